# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# lib.sh [PART...]: what every test in the guest begins with. A part is another file of
# /lab, without .sh: disks, nbd, ublkd, orderly, writer, system.
#
#   . /lab/lib.sh disks
#
#   ublk_start disk file:"$SCRATCH"/image --queues 2
#   mkfs.ext4 -q "$DEV"
#   ublk_stop
#
# A test runs with set -eu in an empty directory of its own (tmpfs). Whatever it
# started with these functions is undone when it ends, in reverse order. When it
# fails, what its ublkctl processes wrote is in its log.
#
# No test asserts on time; the bounds here are only so that none hangs.

set -eu -o pipefail

lab_deferred=()
lab_names=()
declare -A lab_pids=() lab_devs=() # by name

# fail WORDS: end the test, it failed.
fail() {
	echo "failed: $*" >&2
	exit 1
}

# skip WORDS: end the test, a prerequisite is truly missing here.
skip() {
	echo "$*" >&2
	exit 77
}

# defer COMMAND: to be run when the test ends, however it ends; the last first.
defer() { lab_deferred+=("$*"); }

# retry SECONDS COMMAND...: again and again until it succeeds; false when the
# seconds are over.
retry() {
	local until=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < until)) || return 1
		# A pause that starts no process.
		read -rt 0.1 <>/run/lab.pause || true
	done
}
[[ -p /run/lab.pause ]] || mkfifo /run/lab.pause

# expect WANTED GOT [WORDS]: fail unless the two are the same.
expect() { [[ $1 == "$2" ]] || fail "${3:-}${3:+: }wanted '$1', got '$2'"; }

# refused COMMAND...: fail if it succeeds.
refused() { if "$@"; then fail "should have been refused: $*"; fi; }

# rounds FULL QUICK: how often, in a full run and in a quick one. A test that uses it
# has "shortened" in its head.
rounds() { if [[ -e /lab/quick ]]; then echo "$2"; else echo "$1"; fi; }

# gojq starts in a third of jq's time here, and tests ask often.
jq() { gojq "$@"; }

# may_wait SECONDS: a task that waits for storage for no longer is no fault, and the kernel
# is not to say that it hangs.
may_wait() {
	local bound=/proc/sys/kernel/hung_task_timeout_secs
	defer "echo $(<$bound) >$bound"
	echo "$1" >$bound
}

# keep_etc NAME...: the test changes these files of /etc; they are as before when it ends.
keep_etc() {
	local name
	for name; do
		if [[ -e /etc/$name ]]; then
			cp -a "/etc/$name" "kept.$name"
			defer "cp -a '$PWD/kept.$name' /etc/$name"
		else
			defer "rm -f /etc/$name"
		fi
	done
}

# sysfs_of DEVICE [ATTRIBUTE]: its directory in sysfs, or what an attribute says.
sysfs_of() {
	local dir
	dir=$(readlink -f "/sys/class/block/${1##*/}")
	if (($# > 1)); then cat "$dir/$2"; else echo "$dir"; fi
}

# ublk_start NAME ARGUMENTS...: ublkctl run ARGUMENTS in the background, until its
# device is live. Sets DEV to the device and PID to the process; its output is in
# NAME.out and NAME.err. NAME is what ublk_stop and ublk_pid know it by.
ublk_start() {
	local name=$1 until=$((SECONDS + 60))
	shift
	: >"$name.out" # an earlier device of this name must not be taken for this one
	ublkctl run "$@" >"$name.out" 2>"$name.err" &
	PID=$!
	lab_names+=("$name")
	lab_pids[$name]=$PID
	until grep -q '^/dev/ublkb' "$name.out"; do
		if ! kill -0 "$PID" 2>/dev/null; then
			local status=0
			wait "$PID" || status=$?
			fail "ublkctl run $*: ended with status $status"
		fi
		((SECONDS < until)) || fail "ublkctl run $*: no device after 60 s"
		read -rt 0.05 <>/run/lab.pause || true
	done
	DEV=$(cat "$name.out")
	[[ -b $DEV ]] || fail "ublkctl run $*: printed '$DEV', which is no block device"
	lab_devs[$name]=$DEV
}

# ublk_pid NAME, ublk_dev NAME: of what ublk_start started by this name.
ublk_pid() { echo "${lab_pids[$1]}"; }
ublk_dev() { echo "${lab_devs[$1]:-}"; }

# ublk_stop [NAME]: end it with SIGTERM (default: the last one started), and fail
# unless it ends with status 0 and leaves no device.
ublk_stop() { lab_stop "${1:-${lab_names[-1]}}" || exit 1; }

lab_stop() {
	local name=$1 pid dev status=0
	pid=$(ublk_pid "$name")
	dev=$(ublk_dev "$name")
	kill -TERM "$pid" 2>/dev/null || true
	if ! retry 60 lab_gone "$pid"; then
		echo "failed: $name: not ended 60 s after SIGTERM" >&2
		return 1
	fi
	wait "$pid" || status=$?
	lab_forget "$name"
	if ((status != 0)); then
		echo "failed: $name: ended with status $status after SIGTERM" >&2
		return 1
	fi
	if [[ -e $dev || -e ${dev/ublkb/ublkc} ]]; then
		echo "failed: $name: left $dev" >&2
		return 1
	fi
}

lab_gone() { ! kill -0 "$1" 2>/dev/null; }

lab_forget() {
	local name left=()
	for name in "${lab_names[@]}"; do
		[[ $name == "$1" ]] || left+=("$name")
	done
	lab_names=(${left[@]+"${left[@]}"})
}

# ublk_kill [NAME]: end it with SIGKILL. Its device stays: ublkctl remove it.
ublk_kill() {
	local name=${1:-${lab_names[-1]}} pid
	pid=$(ublk_pid "$name")
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	lab_forget "$name"
}

# ram_disks SIZE [COUNT]: make /dev/ram0 and on anew, empty and of this size. They
# take direct I/O, and memory only where written. At the start there are two of
# 1 GiB.
ram_disks() {
	local bytes
	bytes=$(numfmt --from=iec "$1")
	rmmod brd || fail "the RAM disks are in use"
	modprobe brd rd_nr="${2:-2}" rd_size=$((bytes / 1024))
}

# scratch_fs SIZE [TYPE]: a file system (default ext4) of this size on a fresh
# /dev/ram0, which takes direct I/O. Sets SCRATCH to where it is mounted.
scratch_fs() {
	local type=${2:-ext4}
	ram_disks "$1"
	"mkfs.$type" -q /dev/ram0
	SCRATCH=$PWD/scratch
	mkdir -p "$SCRATCH"
	mount -t "$type" /dev/ram0 "$SCRATCH"
	defer "cd /; umount '$SCRATCH'; ram_disks 1G"
}

lab_end() {
	local status=$? name i file
	trap - EXIT
	set +e
	if ((status == 0)); then
		# What still serves must end well, too.
		for ((i = ${#lab_names[@]} - 1; i >= 0; i--)); do
			lab_stop "${lab_names[i]}" || status=1
		done
	fi
	for name in ${lab_names[@]+"${lab_names[@]}"}; do
		kill -TERM "$(ublk_pid "$name")" 2>/dev/null
	done
	for name in ${lab_names[@]+"${lab_names[@]}"}; do
		retry 20 lab_gone "$(ublk_pid "$name")" || kill -KILL "$(ublk_pid "$name")"
	done
	if ((status != 0 && status != 77)); then
		for file in *.err; do
			[[ ! -s $file ]] || sed "s/^/$file: /" "$file"
		done
	fi
	for ((i = ${#lab_deferred[@]} - 1; i >= 0; i--)); do
		eval "${lab_deferred[i]}"
	done
	exit "$status"
}
trap lab_end EXIT
trap 'exit 143' TERM INT
# A command that fails by itself says little; fail() says enough.
trap 'echo "line $LINENO failed: $BASH_COMMAND" >&2' ERR

for lab_part; do
	# shellcheck source=/dev/null
	. "/lab/$lab_part.sh"
done
