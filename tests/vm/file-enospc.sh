#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A file system that is full under a sparse file: the write fails with ENOSPC, the
# device stays live and its data as it was, and once there is space it goes on.
. /lab/lib.sh disks

scratch_fs 32M
random_file full 4M
for path in $(io_paths); do
	for direct in on off; do
		serve "$path" -o direct=$direct --create 256M "$SCRATCH/image"
		fill "$DEV" full
		fallocate -l "$(($(stat -f -c '%a * %S' "$SCRATCH") - (2 << 20)))" "$SCRATCH/balloon"
		fails_with 'No space left on device' \
			dd if=full of="$DEV" bs=1M seek=8 count=4 oflag=direct
		(($(counted error.ENOSPC) > 0)) || fail "no error was counted as ENOSPC"
		holds "$DEV" full "$path direct=$direct: what was there before"
		rm "$SCRATCH/balloon"
		dd if=full of="$DEV" bs=1M seek=8 count=4 oflag=direct status=none ||
			fail "$path direct=$direct: no write once there is space again"
		dd if="$DEV" bs=1M skip=8 count=4 iflag=direct status=none | cmp - full ||
			fail "$path direct=$direct: what was written once there was space"
		ublk_stop disk
		rm "$SCRATCH/image"
	done
done
