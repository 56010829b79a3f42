#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# Where a file system has no direct I/O the page cache serves, which is said once;
# where direct I/O is asked for, that is refused. What the file system cannot do
# (holes, zeroes) is not offered.
. /lab/lib.sh disks

# buffered MOUNTED WORDS: a file there works through the page cache.
buffered() {
	local image=$1/image path
	random_file full 4M
	cp full "$image"
	refuses 1 direct=on run -o direct=on "$image"
	for path in $(io_paths); do
		serve "$path" "$image"
		expect 1 "$(grep -c 'page cache' disk.err)" "$2: lines on the page cache"
		holds "$DEV" full "$2"
		random_file full 4M
		fill "$DEV" full
		sync "$DEV"
		blkdiscard -z -o 1536 -l 1M "$DEV"
		zero_in full 1536 $((1 << 20))
		holds "$DEV" full "$2, written"
		ublk_stop disk
		cmp "$image" full || fail "$2: the file is not what was written"
	done
	rm "$image"
}

mkdir ramfs
mount -t ramfs none ramfs
defer "umount '$PWD/ramfs'"
buffered ramfs 'ramfs'
truncate -s 1M ramfs/image
serve copy "$PWD/ramfs/image"
expect 0 "$(sysfs_of "$DEV" queue/discard_max_bytes)" "ramfs: discard"
expect 0 "$(sysfs_of "$DEV" queue/write_zeroes_max_bytes)" "ramfs: write-zeroes"
ublk_stop disk

scratch_fs 64M
umount "$SCRATCH"
mount -o data=journal /dev/ram0 "$SCRATCH"
buffered "$SCRATCH" 'ext4 that journals data'

# Asked for, it goes through the page cache where it need not.
mount -o remount "$SCRATCH"
truncate -s 4M image
ublk_start asked -o direct=off image
! grep -q 'page cache' asked.err || fail "what was asked for was told as a surprise"
ublk_stop asked
# tmpfs has direct I/O or not, as the kernel goes: auto works.
ublk_start tmpfs image
random_file full 4M
fill "$DEV" full
holds "$DEV" full "tmpfs"
ublk_stop tmpfs
cmp image full || fail "tmpfs: the file is not what was written"
