#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Discard and write-zeroes reach an exported block device: its blocks go, or are
# kept, as asked, and nothing beside the range changes, nor beside the device.
. /lab/lib.sh disks

MiB=$((1 << 20))
SLACK=65536 # of bytes_used
random_file full 8M
scratch_fs 64M
image=$SCRATCH/image
defer "dmsetup remove part; losetup -D"
for path in $(io_paths); do
	# file > loop > part of it as a device of its own > export
	cp full "$image"
	loop=$(losetup -f --show "$image")
	dmsetup create part --table "0 $((6 << 11)) linear $loop $((1 << 11))"
	serve "$path" /dev/mapper/part
	dd if=full of=want bs=1M skip=1 count=6 status=none
	holds "$DEV" want "before"
	before=$(bytes_used "$image")

	blkdiscard -o $((2 * MiB)) -l $((2 * MiB)) "$DEV"
	zero_in want $((2 * MiB)) $((2 * MiB))
	holds "$DEV" want "discarded"
	(($(bytes_used "$image") <= before - 2 * MiB + SLACK)) || fail "$(bytes_used "$image") bytes used after a discard"

	before=$(bytes_used "$image")
	blkdiscard -z -o $((4 * MiB + 512)) -l $((MiB - 1024)) "$DEV"
	zero_in want $((4 * MiB + 512)) $((MiB - 1024))
	holds "$DEV" want "zeroed, kept"
	(($(bytes_used "$image") >= before)) || fail "zeroes that should keep their blocks: $before, now $(bytes_used "$image")"

	fallocate -p -o $((4 * MiB)) -l $MiB "$DEV"
	zero_in want $((4 * MiB)) $MiB
	holds "$DEV" want "zeroed, given back"
	(($(bytes_used "$image") <= before - MiB + SLACK)) || fail "$(bytes_used "$image") bytes used after write-zeroes"

	blkdiscard "$DEV"
	zero_in want 0 $((6 * MiB))
	holds "$DEV" want "discarded whole"
	(($(bytes_used "$image") <= 2 * MiB + SLACK)) || fail "$(bytes_used "$image") bytes used, discarded whole"
	ublk_stop disk
	{ head -c 1M full; cat want; tail -c 1M full; } | cmp - "$image" || fail "the device's neighbours changed"
	dmsetup remove part
	losetup -d "$loop"
done

# A device that cannot zero by itself: the kernel writes zeroes.
expect 0 "$(sysfs_of ram1 queue/write_zeroes_max_bytes)" "what RAM disks offer"
ublk_start ram /dev/ram1
cp full want
fill "$DEV" want
blkdiscard -z -o $MiB -l $((MiB + 512)) "$DEV"
zero_in want $MiB $((MiB + 512))
blkdiscard -o $((4 * MiB)) -l $MiB "$DEV"
zero_in want $((4 * MiB)) $MiB
holds "$DEV" want "a RAM disk"
ublk_stop ram
