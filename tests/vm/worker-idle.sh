#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A device of four queues of 128 that nobody uses takes less than 8 MiB and no CPU;
# its threads are named, run where --cpus says, are marked as those who write back,
# and their memory is locked.
# vm: smp=4 once=6.12
. /lab/lib.sh disks

# status FIELD: of the server.
status() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$PID/status"; }

# kernels_own THREAD: one that io_uring started, which wakes each five seconds to see
# whether it may end.
kernels_own() { [[ $(<"$1/comm") == iou-* ]]; }

# work_done: ticks and voluntary context switches of each of its threads.
work_done() {
	local task
	for task in "/proc/$PID"/task/*; do
		! kernels_own "$task" || continue
		echo "${task##*/} $(sed 's/.*) //' "$task/stat" | cut -d' ' -f12,13)" \
			"$(awk '/^voluntary/ { print $2 }' "$task/status")"
	done
}

# idle: three seconds in which none of them did anything. What starting takes, and
# the kernel's look at the disk, may still be under way the first time.
idle() {
	work_done >before
	sleep 3
	work_done >after
	cmp -s before after
}

truncate -s 64M image
for what in null:1G memory:64M "$PWD/image"; do
	for path in $(io_paths); do
		serve "$path" --queues 4 --depth 128 "$what"
		(($(status VmRSS) < 8192)) || fail "$what $path: $(status VmRSS) KiB resident"
		(($(status VmLck) > 0)) || fail "$what $path: no memory is locked"
		retry 30 idle || fail "$what $path: nobody uses it, it works: $(paste before after)"
		ublk_stop disk
	done
done

ublk_start pinned --queues 4 --cpus 1,3 null:1G
# queue_threads: of the server; not its first thread, nor those of the kernel's own.
queue_threads() {
	local task
	for task in /proc/"$PID"/task/*; do
		[[ ${task##*/} == "$PID" ]] || kernels_own "$task" || echo "$task"
	done
}

expect 4 "$(queue_threads | wc -l)" "threads of four queues"
expect 4 "$(queue_threads | sed 's/$/\/comm/' | xargs cat | sort -u | wc -l)" "names of theirs"
for task in $(queue_threads); do
	expect 1,3 "$(awk '$1 == "Cpus_allowed_list:" { print $2 }' "$task/status")" \
		"processors of $(cat "$task/comm")"
	flags=$(sed 's/.*) //' "$task/stat" | cut -d' ' -f7)
	# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, which PR_SET_IO_FLUSHER sets
	((flags & 0x00080000 && flags & 0x00100000)) ||
		fail "$(cat "$task/comm"): flags $(printf '%#x' "$flags"): no I/O flusher"
done
ublk_stop pinned
