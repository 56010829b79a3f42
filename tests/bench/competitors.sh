# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# competitors.sh: what is measured. Each device or file, of SIZE bytes, is made at
# its first use, filled, and stays. Sourced by guest.sh, which sets SIZE.

# shellcheck source=nbd.sh
. "${BASH_SOURCE[0]%/*}/nbd.sh"

# fill PATH: so that reads find data and not holes.
fill() { dd if=/dev/zero of="$1" bs=1M count=$((SIZE >> 20)) oflag=direct status=none; }

# cpu_of PID: nanoseconds that its threads ran. Sets CPU.
cpu_of() {
	local task ran
	CPU=0
	for task in "/proc/$1/task"/*/schedstat; do
		read -r ran _ <"$task"
		CPU=$((CPU + ran))
	done
}

# file NAME: a filled file on ext4 on a RAM disk. Sets FILE.
file() {
	FILE=$PWD/files/$1
	if [[ ! -d files ]]; then
		mkdir files
		# All is written now, or the kernel would do it behind the measurement.
		mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 /dev/ram0
		mount /dev/ram0 files
		defer "umount '$PWD/files'"
	fi
	[[ -e $FILE ]] || fill "$FILE"
}

# worker_competitor NAME OPTION...: the competitor NAME, served by a worker of ublkd. Sets
# DEV.
worker_competitor() {
	local uri
	if [[ -z ${UBLKD:-} ]]; then
		# shellcheck source=../lab/guest/ublkd.sh
		. /lab/ublkd.sh
		ublkd_start
	fi
	case $1 in
	file-*)
		file "worker-$1"
		uri=$FILE
		set -- "$@" --io-path "${1#file-}" ;;
	*) uri=$1:$SIZE ;;
	esac
	export_start "worker-$1" "$uri" "${@:2}"
	[[ $1 != memory ]] || fill "$DEV"
}

# kublk_competitor NAME --queues N|auto: the server of the kernel's own tests. Sets DEV.
declare -A kublk_pids=() # by name
kublk_pid() { echo "${kublk_pids[$1]}"; }
kublk_competitor() {
	local name=$1 queues=$3 words id
	[[ $queues != auto ]] || queues=$(nproc)
	words=(-q "$queues" -d 128 --auto_zc)
	[[ $name != *-batch ]] || words+=(--batch)
	case $name in
	kublk-null*)
		words+=(-t null) ;;
	kublk-loop*)
		file file-zero-copy
		words+=(-t loop "$FILE") ;;
	esac
	kublk add "${words[@]}" >"$name.out" 2>&1 || fail "kublk add ${words[*]}: $(cat "$name.out")"
	id=$(sed -n 's/^dev id \([0-9]*\):.*/\1/p' "$name.out")
	kublk_pids[$name]=$(sed -n 's/.* daemon pid \([0-9]*\) .*/\1/p' "$name.out")
	defer "kublk del -n $id"
	DEV=/dev/ublkb$id
	# With one queue the kernel would choose another scheduler than that of our devices.
	echo none >"$(sysfs_of "$DEV")/queue/scheduler"
}

# competitor NAME OPTION...: make it if it is not there yet; the options are those
# of ublkctl run, where it serves a local one. Sets TARGET, fio's words for what
# it opens; none has a blank in it.
declare -A targets=()
competitor() {
	local name=$1 id=${1//-/_}
	read -ra TARGET <<<"${targets[$name]:-}"
	((${#TARGET[@]} == 0)) || return 0
	shift
	DEV=
	[[ $name != poll-* ]] || set -- "$@" --poll-us auto
	case ${name#poll-} in
	*@*)
		nbd_competitor "$name" ;;
	worker-*)
		worker_competitor "${name#worker-}" "$@" ;;
	null)
		ublk_start "$id" "null:$SIZE" "$@" ;;
	memory)
		ublk_start "$id" "memory:$SIZE" "$@"
		fill "$DEV" ;;
	kublk-*)
		kublk_competitor "$name" "$@" ;;
	file-zero-copy | file-user-copy | file-copy)
		file "$name"
		ublk_start "$id" "file:$FILE" "$@" --io-path "${name#*file-}" ;;
	brd)
		DEV=/dev/ram1
		fill $DEV ;;
	loop)
		file loop
		DEV=$(losetup --show --find --direct-io=on "$FILE")
		defer "losetup -d $DEV"
		expect 1 "$(sysfs_of "$DEV" loop/dio)" "direct I/O of the loop device" ;;
	raw)
		file raw
		DEV=$FILE ;;
	*)
		fail "no such competitor: $name" ;;
	esac
	sync
	[[ $name == *@* ]] || TARGET=(--filename="$DEV")
	targets[$name]=${TARGET[*]}
}
