# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# ublkd.sh: ublkd for tests, and load on its exports.
#
#   . /lab/lib.sh ublkd
#
#   ublkd_start
#   ublkctl export disk=memory:64M
#   load_start disk
#   worker_kill disk
#   load_goes_on disk
#   load_stop disk
#   ublkd_stop
#
# Its configuration is the directory "config" of the test, what it says is in ublkd.err,
# over all its starts. It ends with the test, and with it all of its exports; what
# they need (servers, file systems) has to be started before it.

# shellcheck source=tests/lab/guest/writer.sh
. /lab/writer.sh

UBLKD=
# Options that it is started with.
ublkd_options=()
# For all of its exports to be removed.
ublkd_stop_seconds=90

# ublkd_start: start it, until it answers. Sets UBLKD to the process.
ublkd_start() {
	[[ -d config ]] || { mkdir -p config/exports.d; defer ublkd_clean; }
	ublkd --config "$PWD/config" ${ublkd_options[@]+"${ublkd_options[@]}"} 2>>ublkd.err &
	UBLKD=$!
	retry 30 ublkd_answers || fail "ublkd does not answer"
}

# Without a socket given, "list" asks the kernel where no ublkd is.
ublkd_answers() {
	lab_gone "$UBLKD" || timeout -k 1 10 ublkctl list --socket /run/ublkd/io.ublkd >/dev/null 2>&1
}

# ublkd_kill: with SIGKILL.
ublkd_kill() {
	kill -KILL "$UBLKD"
	wait "$UBLKD" 2>/dev/null || true
}

# ublkd_end: with SIGTERM; its exports stay.
ublkd_end() {
	local status=0
	kill -TERM "$UBLKD"
	retry 30 lab_gone "$UBLKD" || fail "ublkd has not ended 30 s after SIGTERM"
	wait "$UBLKD" || status=$?
	expect 0 "$status" "ublkd's exit status"
}

# ublkd_stop: remove all exports, which must be let, and end it; nothing may be left.
ublkd_stop() {
	timeout -k 5 "$ublkd_stop_seconds" ublkctl shutdown --remove || fail "not all could be removed"
	retry 30 lab_gone "$UBLKD" || fail "ublkd has not ended 30 s after its last export"
	wait "$UBLKD" || fail "ublkd's exit status: $?"
	expect '' "$(ls /run/ublkd/exports)" "records left"
	expect '' "$(ls /run/ublkd/workers)" "sockets left"
	[[ ! -e /dev/ublk ]] || expect '' "$(ls /dev/ublk)" "links left"
}

# What a test that has failed leaves.
ublkd_clean() {
	lab_gone "$UBLKD" || kill -CONT "$UBLKD"
	if lab_gone "$UBLKD"; then
		[[ $(echo /run/ublkd/exports/*) != '/run/ublkd/exports/*' ]] || return 0
		ublkd --config "$PWD/config" 2>>ublkd.err &
		UBLKD=$!
		retry 30 ublkd_answers
	fi
	timeout -k 5 60 ublkctl shutdown --remove --force
	retry 10 lab_gone "$UBLKD" || kill -KILL "$UBLKD"
	wait "$UBLKD" 2>/dev/null
}

# ublkd_says WORDS [SECONDS]: until it has said them.
ublkd_says() { retry "${2:-40}" grep -qF -e "$1" ublkd.err || fail "not said: '$1'"; }

# export_start NAME URI [OPTION...]: until it is live; sets DEV.
export_start() {
	local name=$1
	shift
	DEV=$(timeout -k 5 60 ublkctl export "${@:2}" "$name=$1") || fail "$name=$1: not exported"
	[[ -b $DEV ]] || fail "$name: '$DEV' is no block device"
}

# about NAME FILTER: of what "show" tells, what jq's filter picks; "null" where it
# is not there.
about() { timeout -k 1 30 ublkctl show "$1" --json | jq -r "$2"; }

state_of() { about "$1" .export.state; }
reason_of() { about "$1" .export.reason; }
reason_says() { [[ $(reason_of "$1") == *"$2"* ]]; }
worker_of() { about "$1" .export.pid; }
device_of() { about "$1" .export.device; }
recoveries_of() { about "$1" .recoveries; }
has_errors() { [[ $(timeout -k 1 30 ublkctl stats "$1" --json | jq -r .errors.EIO) == [1-9]* ]]; }

state_is() { [[ $(state_of "$1") == "$2" ]]; }

# becomes NAME STATE [SECONDS]
becomes() {
	retry "${3:-10}" state_is "$1" "$2" ||
		fail "$1: not $2 but $(state_of "$1") ($(reason_of "$1"))"
}

# worker_kill NAME: with SIGKILL, until there is another that serves. Ten seconds is
# what a recovery may take.
worker_kill() {
	local pid
	pid=$(worker_of "$1")
	kill -KILL "$pid"
	has_other_worker "$1" "$pid"
}

# has_other_worker NAME PID [SECONDS]: until another one serves.
has_other_worker() {
	retry "${3:-10}" is_other_worker "$1" "$2" ||
		fail "$1: $(state_of "$1") ($(reason_of "$1")), worker $(worker_of "$1"), not recovered from $2"
}

is_other_worker() {
	about "$1" '.export | "\(.state) \(.pid)"' >"$1.serves"
	[[ $(<"$1.serves") == 'live '[0-9]* && $(<"$1.serves") != "live $2" ]]
}

# done_by NAME: requests that it has completed, as the block layer counts them.
done_by() { awk '{ print $1 + $5 }' "$(sysfs_of "${load_device[$1]}")/stat"; }

has_done() { (($(done_by "$1") >= $2)); }

# --- Load ----------------------------------------------------------------------
#
# On the first 8 MiB a writer that logs what it did, from 16 MiB on fio, which
# verifies what it wrote. Both leave time for the rest: the lab's processors are
# slow and few.

declare -A load_device=() load_writer=() load_fio=()

# load_start NAME [WLOG-OPTION...]: on the export of that name, in the background.
load_start() {
	local name=$1
	load_start_writer "$@"
	fio --filename="${load_device[$name]}" --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
		--bs=4k-32k --offset=16M --size=16M --verify=crc32c --verify_backlog=32 --verify_fatal=1 \
		--loops=100000 --randrepeat=0 --rate_iops=40 --eta=never --disk_util=0 --minimal \
		--name="$name" >"$name.fio" 2>&1 &
	load_fio[$name]=$!
	defer "kill ${load_fio[$name]} 2>/dev/null"
	# Before it has a job it ends by a signal without a word.
	retry 60 has_children "${load_fio[$name]}" || fail "$name: no load: $(cat "$name.fio")"
}

# load_start_writer NAME [WLOG-OPTION...]: the half of it that takes less to start.
load_start_writer() {
	local name=$1
	load_device[$name]=$(device_of "$name")
	/lab/bin/wlog write --pause 20 --blocks 2000 --threads 4 --ops 10000000 --flush 2 --fua 2 --zero 2 \
		"${@:2}" "${load_device[$name]}" "$PWD/$name.log" >"$name.writer" 2>&1 &
	load_writer[$name]=$!
	load_fio[$name]=
	: >"$name.fio"
	defer "kill ${load_writer[$name]} 2>/dev/null"
}

has_children() { lab_gone "$1" || [[ -n $(ps -o pid= --ppid "$1") ]]; }

# load_goes_on NAME [N [SECONDS]]: until N requests more (default 40) are completed,
# and both are still at work.
load_goes_on() {
	local name=$1 wanted
	wanted=$(($(done_by "$name") + ${2:-40}))
	retry "${3:-30}" has_done "$name" "$wanted" || {
		stands_still "$name"
		fail "$name: I/O stands still: $(cat "$name.writer" "$name.fio")"
	}
	load_is_well "$name"
}

# stands_still NAME: what can be seen of why.
stands_still() {
	echo "in flight: $(cat "$(sysfs_of "${load_device[$1]}")/inflight")"
	timeout -k 1 5 ublkctl show "$1" || true
	where_they_are
}

# where_they_are: what ublkd, its workers and NBD servers wait for.
where_they_are() {
	local process task
	for process in /proc/[0-9]*; do
		[[ $(cat "$process/comm") =~ ^(ublkd|ublkd-worker|nbdkit)$ ]] || continue
		for task in "$process"/task/*; do
			echo "$task $(<"$task/comm")"
			cat "$task/stack"
		done
		grep -h -A20 '^PollList' "$process"/fdinfo/*
	done || true
}

load_is_well() {
	kill -0 "${load_writer[$1]}" 2>/dev/null || fail "$1: the writer: $(cat "$1.writer")"
	[[ -z ${load_fio[$1]} ]] || kill -0 "${load_fio[$1]}" 2>/dev/null || fail "$1: fio: $(cat "$1.fio")"
}

# load_stop NAME [FILE]: end it, and fail unless all of its I/O was well and what the
# writer was promised is on the device, and in the file.
load_stop() {
	local name=$1 status=0
	load_is_well "$name"
	# shellcheck disable=SC2086 # there may be none
	kill -TERM "${load_writer[$name]}" ${load_fio[$name]}
	retry 60 lab_gone "${load_writer[$name]}" || fail "$name: the writer does not end"
	wait "${load_writer[$name]}" || status=$?
	expect 143 "$status" "$name: the writer: $(cat "$name.writer")"
	if [[ -n ${load_fio[$name]} ]]; then
		retry 60 lab_gone "${load_fio[$name]}" || fail "$name: fio does not end"
		expect 0 "$(sed -n 's/^3;//p' "$name.fio" | cut -d';' -f4)" "$name: fio: $(cat "$name.fio")"
	fi
	promise_kept "$name" "${load_device[$name]}"
	if (($# > 1)); then
		sync "$2"
		promise_kept "$name" "$2"
	fi
}

# promise_kept NAME DEVICE-OR-FILE: what the writer's log says was durable is there.
promise_kept() {
	/lab/bin/wlog verify "$2" "$PWD/$1.log" >"$1.verified" 2>&1 ||
		fail "$1 in $2: $(cat "$1.verified")"
	echo "$1: $(cat "$1.verified")"
	grep -q ' 0 promises broken' "$1.verified" || fail "$1 in $2: $(cat "$1.verified")"
}

lab_began=$(date +%s)
health_of() { about "$1" .export.health; }
is_health() { [[ $(health_of "$1") == "$2" ]]; }

# tells NAME HEALTH CAUSE WORDS: list and show do, soon, with a documented reason and a cure.
tells() {
	retry 30 is_ailing "$@" ||
		fail "$1: $(health_of "$1"), $(about "$1" .export.cause), not $2, $3: $(reason_of "$1")"
	[[ $(about "$1" .export.cure) == ?* ]] || fail "$1: no cure"
	documented_reasons "$3" | grep -qxF "$(plain_reason <<<"$(reason_of "$1")")" ||
		fail "docs/operations.md has '$(documented_reasons "$3")', the reason is '$(reason_of "$1")'"
	(($(about "$1" .export.healthSinceUsec) / 1000000 >= lab_began)) || fail "$1: since when?"
	ublkctl list >listed
	grep -q "^$1 .* $2 " listed || fail "list has no '$2': $(cat listed)"
	grep -q "^$1: $2 since .*$4" listed || fail "list has no reason: $(cat listed)"
	ublkctl show "$1" >shown
	grep -q '^  cure ' shown || fail "show has no cure: $(cat shown)"
}

# ails NAME HEALTH CAUSE WORDS: a live export does, and the log and the history tell, too.
ails() {
	tells "$@"
	grep -q "$1: warning: $2: .*$4" ublkd.err || fail "the log does not have it"
	about "$1" '.history[].reason' >history
	grep -q "$2: .*$4" history || fail "the history does not have it: $(cat history)"
}

# is_ailing NAME HEALTH CAUSE WORDS. On the way there another cause may show for a moment.
is_ailing() {
	is_health "$1" "$2" && [[ $(about "$1" .export.cause) == "$3" ]] && reason_says "$1" "$4"
}

# documented_reasons CAUSE: as docs/operations.md has them, one a line.
documented_reasons() {
	sed -nE "/^## Health: reasons/,\$s/^\| \`$1\` \| (.*) \|\$/\1/p" /lab/documents/operations.md |
		plain_reason
}
# plain_reason: without paths, numbers, and why a connection is lost.
plain_reason() {
	sed -E 's/(connections? to the server: |have no connection).*/\1/; s|/[^ :]+|PATH|g; s/[0-9]+/N/g'
}

# is_well NAME: again, and that is said, too.
is_well() {
	retry 30 is_health "$1" ok || fail "$1: $(health_of "$1"): $(reason_of "$1")"
	expect null "$(about "$1" .export.cure)" "$1: a cure"
	grep -q "$1: ok again" ublkd.err || fail "the log does not say that it is over"
}
