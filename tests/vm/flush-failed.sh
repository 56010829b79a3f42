#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# After one failed flush every further flush of the export fails, though the
# storage is well again: what was lost cannot be told from what was not. A new
# export starts afresh.
. /lab/lib.sh disks

swap_table() {
	dmsetup suspend --nolockfs bad
	dmsetup load bad --table "$1"
	dmsetup resume bad
}

# flush_stays_failed FILE: with a write before the storage fails.
flush_stays_failed() {
	fill "$DEV" full
	swap_table "$failing"
	fails_with 'Input/output error' sync "$DEV"
	expect 1 "$(grep -c 'a flush failed' disk.err)" "lines on the failed flush"
	swap_table "$good"
	fails_with 'Input/output error' sync "$DEV"
	# Of either queue, and after a write that was well.
	taskset 1 dd if=full of="$DEV" bs=4k count=1 oflag=direct status=none
	fails_with 'Input/output error' taskset 1 sync "$DEV"
	fails_with 'Input/output error' taskset 2 sync "$DEV"
	(($(counted flush.failed) >= 4)) || fail "$(counted flush.failed) failed flushes were counted"
	expect 1 "$(grep -c 'a flush failed' disk.err)" "lines on the failed flush"
	ublk_stop disk
}

# Below it a device with a write cache, or the kernel would send it no flush.
random_file full 1M
truncate -s 32M backing
loop=$(losetup -f --show backing)
sectors=$((32 << 11))
good="0 $sectors linear $loop 0"
failing="0 $sectors flakey $loop 0 0 3600 1 error_writes"
dmsetup create bad --table "$good"
defer "cd /; umount '$PWD/mnt'; dmsetup remove bad; losetup -d $loop"

for path in $(io_paths); do
	serve "$path" --queues 2 /dev/mapper/bad
	flush_stays_failed
	serve "$path" /dev/mapper/bad
	fill "$DEV" full
	sync "$DEV" || fail "a new export cannot flush"
	ublk_stop disk
done

# A file through the page cache: the loss is only found when it is written back.
mkfs.ext4 -q -O ^has_journal /dev/mapper/bad
mkdir mnt
mount /dev/mapper/bad mnt
cp full mnt/image
sync
serve copy --queues 2 -o direct=off mnt/image
flush_stays_failed
