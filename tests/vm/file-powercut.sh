#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: boots=2 disk=1536M timeout=180 once=6.12
. /lab/lib.sh

# The machine dies while blocks are written to a sparse file's device: what was
# flushed, or written with FUA, is there when it comes back. The file's new
# extents are what a server loses that answers a flush without flushing.

# The log is behind the file system, on the same disk, written directly.
fs_blocks=$((1024 << 20 >> 12))
log=/dev/vda@$((1280 << 20))

# The file system is of the first part of the disk only.
mount_disk() { mkdir -p disk && mount -t ext4 /dev/vda disk; }

if ((LAB_BOOT == 1)); then
	mkfs.ext4 -q -b 4096 /dev/vda "$fs_blocks"
	mount_disk
	ublk_start cut --create 256M "file:$PWD/disk/image"
	/lab/bin/wlog write --blocks 60000 --threads 16 --ops 5000 --flush 2 --fua 2 --zero 2 \
		"$DEV" "$log" &
	writer=$!
	# In the middle of things.
	many_writes() { (($(/lab/bin/read-counters "$PID" write.completed) > 4000)); }
	retry 100 many_writes
	kill -0 "$writer" || fail "the writer ended before the power did"
	echo b >/proc/sysrq-trigger # at once, nothing is written back
	sleep 100
fi
mount_disk
defer umount "$PWD/disk"
ublk_start after --read-only "file:$PWD/disk/image"
/lab/bin/wlog verify "$DEV" "$log" | tee verified
grep -q ' 0 promises broken' verified
# At least some were durable, or nothing was shown.
[[ $(cut -d" " -f6 verified) -gt 100 ]] || fail "hardly anything was durable"
