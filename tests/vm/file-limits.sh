#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# What a file or block device is shows in sysfs: its size without a tail, its
# blocks, a write cache, what it can discard and zero.
. /lab/lib.sh disks

scratch_fs 64M
truncate -s $((8 << 20)) "$SCRATCH/file"
asked "$SCRATCH/file"
shows size $((8 << 11)) ro 0 queue/logical_block_size 512 queue/physical_block_size 4096 \
	queue/write_cache 'write back' queue/fua 1 queue/discard_max_bytes $((1 << 30)) \
	queue/write_zeroes_max_bytes $((1 << 30)) queue/discard_granularity 4096 \
	queue/rotational "$(sysfs_of ram0 queue/rotational)"
ublk_stop disk

asked --read-only "$SCRATCH/file"
shows ro 1 queue/write_cache 'write through' queue/fua 0 queue/discard_max_bytes 0 \
	queue/write_zeroes_max_bytes 0
ublk_stop disk

# A tail is not exported, and told of once.
truncate -s $(((8 << 20) + 5000)) "$SCRATCH/file"
asked "$SCRATCH/file"
shows size $(((8 << 11) + 9))
expect 1 "$(grep -c 'last 392 bytes are not exported' disk.err)" "lines on the tail"
ublk_stop disk
asked --block-size 4096 "$SCRATCH/file"
shows size $(((8 << 11) + 8)) queue/logical_block_size 4096
expect 1 "$(grep -c 'last 904 bytes are not exported' disk.err)" "lines on the tail"
ublk_stop disk
expect $(((8 << 20) + 5000)) "$(stat -c %s "$SCRATCH/file")" "the file's size afterwards"

# A block device's own block size, and what it cannot do is not offered.
loop=$(losetup -f --show -b 4096 "$SCRATCH/file" 2>/dev/null)
defer "losetup -d $loop"
asked "$loop"
shows size $(((8 << 11) + 8)) queue/logical_block_size 4096 queue/write_cache 'write back'
ublk_stop disk
expect 0 "$(sysfs_of ram1 queue/write_zeroes_max_bytes)" "what RAM disks offer"
asked /dev/ram1
shows size "$(sysfs_of ram1 size)" queue/logical_block_size 512 queue/write_zeroes_max_bytes 0 \
	queue/rotational "$(sysfs_of ram1 queue/rotational)"
(($(sysfs_of "$DEV" queue/discard_max_bytes) > 0)) || fail "/dev/ram1: no discard"
ublk_stop disk

# Smaller blocks than the device's own take the page cache.
asked --block-size 512 "$loop"
shows queue/logical_block_size 512
grep -q 'page cache' disk.err || fail "nothing said of the page cache"
dd if=/dev/zero of="$DEV" bs=512 count=1 seek=1 oflag=direct status=none
ublk_stop disk
refuses 1 block-size run --block-size 512 -o direct=on "$loop"
