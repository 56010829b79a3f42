#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A device's queues are served whatever CPUs there are: it is recovered, upgraded and
# adopted with fewer CPUs online, or allowed, than when it was made.
. /lab/lib.sh ublkd

online() { echo "$1" >/sys/devices/system/cpu/cpu1/online; }
defer online 1

# is_served NAME: by two threads, and a read is answered.
is_served() {
	local pid
	pid=$(worker_of "$1")
	expect 2 "$(cat "/proc/$pid/task"/*/comm | grep -c ublk-queue)" "$1: queues' threads"
	timeout -k 1 20 dd if="$(device_of "$1")" of=/dev/null bs=4k count=8 iflag=direct status=none ||
		fail "$1: a read: $(reason_of "$1")"
}

# all_recover: their workers die.
all_recover() {
	local name
	for name in auto pinned; do
		worker_kill "$name"
		is_served "$name"
	done
}

# runs_on CPUS NAME: all threads of its queues.
runs_on() {
	local task pid
	pid=$(worker_of "$2")
	for task in "/proc/$pid/task"/*; do
		[[ $(<"$task/comm") == ublk-queue* ]] || continue
		expect "$1" "$(sed -n 's/^Cpus_allowed_list:\s*//p' "$task/status")" "CPUs of $2"
	done
}

expect 2 "$(nproc)" "CPUs"
ublkd_start
export_start auto memory:16M
export_start pinned memory:16M --queues 2 --cpus 1
runs_on 1 pinned

echo "at $SECONDS s: a CPU is offline"
online 0
all_recover
timeout -k 5 60 ublkctl upgrade --all || fail "the upgrade: $(reason_of auto), $(reason_of pinned)"
is_served auto
is_served pinned
refuses_offline() { ! timeout -k 5 30 ublkctl export --cpus 1 new=null:1M >new.out 2>&1; }
refuses_offline || fail "a new device on a CPU that is offline: $(cat new.out)"
grep -q 'cpus: .*may not run on any' new.out || fail "not said why: $(cat new.out)"

echo "at $SECONDS s: ublkd is started anew, and may run on one CPU"
ublkd_kill
ublkd() { exec taskset -c 0 "$(type -P ublkd)" "$@"; }
ublkd_start
becomes auto live
becomes pinned live
online 1
all_recover
runs_on 0 auto
ublkd_stop
