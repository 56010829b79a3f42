#!/bin/bash
# SPDX-License-Identifier: MIT
#
# An error of the storage reaches the application as itself: EIO from a bad range
# under a block device or a file, on reads and writes, on each I/O path; what lies
# beside the range stays good, and the device stays live.
. /lab/lib.sh disks

# bad_range_fails: block 16 of 64 KiB is bad, and only that.
bad_range_fails() {
	fails_with 'Input/output error' dd if="$DEV" of=/dev/null bs=64k skip=16 count=1 iflag=direct
	fails_with 'Input/output error' dd if=full of="$DEV" bs=64k skip=16 seek=16 count=1 \
		oflag=direct
	# A request that is good in its first part only.
	fails_with 'Input/output error' dd if="$DEV" of=/dev/null bs=128k skip=7 count=2 iflag=direct
	dd if="$DEV" bs=64k skip=15 count=1 iflag=direct status=none |
		cmp - <(dd if=full bs=64k skip=15 count=1 status=none) || fail "before the bad range"
	dd if="$DEV" bs=64k skip=17 count=1 iflag=direct status=none |
		cmp - <(dd if=full bs=64k skip=17 count=1 status=none) || fail "behind the bad range"
	dd if=full of="$DEV" bs=64k skip=17 seek=17 count=1 oflag=direct status=none
	(($(counted error.EIO) >= 3)) || fail "$(counted error.EIO) errors were counted as EIO"
	(($(counted read.failed) >= 2)) || fail "$(counted read.failed) failed reads were counted"
	(($(counted write.failed) >= 1)) || fail "$(counted write.failed) failed writes were counted"
}

# swap_table TABLE: of the device "bad", at once and with nothing written back.
swap_table() {
	dmsetup suspend --nolockfs bad
	dmsetup load bad --table "$1"
	dmsetup resume bad
}

# bad_at BYTE: 64 KiB from there.
bad_at() {
	local at=$(($1 / 512))
	printf '%s\n' "0 $at linear /dev/ram0 0" "$at 128 error" \
		"$((at + 128)) $((sectors - at - 128)) linear /dev/ram0 $((at + 128))"
}

ram_disks 32M
sectors=$((32 << 11))
random_file full 4M
good="0 $sectors linear /dev/ram0 0"
dmsetup create bad --table "$good"
defer "cd /; umount '$PWD/mnt'; dmsetup remove bad"

for path in $(io_paths); do
	swap_table "$good"
	fill /dev/mapper/bad full
	swap_table "$(bad_at $((16 << 16)))"
	serve "$path" /dev/mapper/bad
	bad_range_fails
	ublk_stop disk
done

swap_table "$good"
mkfs.ext4 -q -O ^has_journal /dev/mapper/bad
mkdir -p mnt
mount /dev/mapper/bad mnt
fallocate -l 4M mnt/image
cp full mnt/image
sync
start=$(filefrag -b512 -v mnt/image | awk '$1 == "0:" { print $4 + 0; exit }')
expect 1 "$(filefrag mnt/image | awk '{ print $2 }')" "pieces of the file"
swap_table "$(bad_at $((start * 512 + (16 << 16))))"
for path in $(io_paths); do
	serve "$path" mnt/image
	bad_range_fails
	ublk_stop disk
done

# Through the page cache a read fails as well; a write is only lost later: flush.
sync mnt/image || true
echo 3 >/proc/sys/vm/drop_caches
serve copy -o direct=off mnt/image
fails_with 'Input/output error' dd if="$DEV" of=/dev/null bs=64k skip=16 count=1 iflag=direct
dd if=full of="$DEV" bs=64k skip=16 seek=16 count=1 oflag=direct status=none
fails_with 'Input/output error' sync "$DEV"
ublk_stop disk
