#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# Each flush, and each write that must be on stable storage, becomes a sync of the
# file: counted at the device that the file system is on.
. /lab/lib.sh disks

# The file system writes its journal when it likes: at least so many.
expect_flushes() {
	(($(flushes "$loop") - seen >= $1)) ||
		fail "$path direct=$direct: $2: $(($(flushes "$loop") - seen)) flushes, not $1"
	seen=$(flushes "$loop")
}

truncate -s 64M backing
loop=$(losetup -f --show backing)
defer "losetup -d $loop"
mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 "$loop"
mkdir mnt
mount "$loop" mnt
defer "umount mnt"
random_file mnt/image 8M
sync
for direct in on off; do
	for path in $(io_paths); do
		serve "$path" -o direct=$direct mnt/image
		seen=$(flushes "$loop")
		write_blocks
		# It may sync something of its own meanwhile.
		(($(flushes "$loop") - seen < 10)) ||
			fail "$path direct=$direct: plain writes: $(($(flushes "$loop") - seen)) flushes"
		seen=$(flushes "$loop")
		write_blocks --sync=dsync
		expect 0 "$(counted flush.completed)" "flushes at the export"
		expect_flushes 20 'writes with FUA'
		write_blocks --fdatasync=1 --end_fsync=1
		expect 20 "$(counted flush.completed)" "flushes at the export"
		expect_flushes 20 'a flush after each write'
		ublk_stop disk
	done
done
