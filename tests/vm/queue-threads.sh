#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A queue's thread may run on every CPU of its node, and not only on the one CPU that
# submits to it, served by ublkctl run or by a worker; with --cpus, on those alone.
. /lab/lib.sh ublkd

# threads_run_on CPUS PROCESS: all queues' threads of it, two at the least.
threads_run_on() {
	local task n=0
	for task in "/proc/$2/task"/*; do
		[[ $(<"$task/comm") == ublk-queue* ]] || continue
		n=$((n + 1))
		expect "$1" "$(sed -n 's/^Cpus_allowed_list:\s*//p' "$task/status")" "CPUs of $(<"$task/comm")"
	done
	((n >= 2)) || fail "$n queues' threads"
}

(($(nproc) >= 2)) || fail "one CPU"
node=$(cat /sys/devices/system/node/node0/cpulist)
expect "0-$(($(nproc) - 1))" "$node" "the lab's CPUs"

ublk_start any --queues 2 null:1G
threads_run_on "$node" "$PID"
ublk_start one --queues 2 --cpus 1 null:1G
threads_run_on 1 "$PID"

ublkd_start
export_start any null:1G --queues 2
export_start one null:1G --queues 2 --cpus 1
threads_run_on "$node" "$(worker_of any)"
threads_run_on 1 "$(worker_of one)"
ublkd_stop
