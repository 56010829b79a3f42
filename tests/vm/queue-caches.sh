#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: smp=4,sockets=2,cores=2 once=newest
#
# With one NUMA node and two last-level caches, a queue's thread may run on the CPUs that share
# the cache of those that submit to it, and a thread of a queue for all CPUs on all.
. /lab/lib.sh

# threads_run_on PROCESS CPUS...: the threads of its queues, in their order.
threads_run_on() {
	local process=$1 task cpus=()
	shift
	while read -r task; do
		cpus+=("$(sed -n 's/^Cpus_allowed_list:\s*//p' "${task%comm}status")")
	done < <(grep -l '^ublk-queue' "/proc/$process/task"/*/comm | sort -V)
	expect "$*" "${cpus[*]}" "CPUs of the queues"
}

caches=$(cat /sys/devices/system/cpu/cpu[0-9]*/cache/index3/shared_cpu_list | sort -u | xargs)
expect '0-1 2-3' "$caches" "last-level caches"
expect 0-3 "$(cat /sys/devices/system/node/node0/cpulist)" "CPUs of the node"

ublk_start each --queues 4 null:1G
mapfile -t masks < <(cat /sys/block/"${DEV#/dev/}"/mq/*/cpu_list)
echo "CPUs that submit to each queue: ${masks[*]}"
expected=()
for mask in "${masks[@]}"; do
	[[ $mask == [01] ]] && expected+=(0-1) || expected+=(2-3)
done
threads_run_on "$PID" "${expected[@]}"
ublk_start one --queues 1 null:1G
threads_run_on "$PID" 0-3
