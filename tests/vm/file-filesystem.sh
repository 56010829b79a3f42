#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A file system in a file keeps its content, on each I/O path, and is there
# again when the file is exported again.
. /lab/lib.sh disks

scratch_fs 512M
for path in $(io_paths); do
	rm -f "$SCRATCH/image"
	serve "$path" --create 256M "$SCRATCH/image"
	file_system_holds "$DEV"
	ublk_stop disk
	e2fsck -fn "$SCRATCH/image" >fsck.out 2>&1 || fail "the file itself: $(cat fsck.out)"
	serve "$path" file:"$SCRATCH/image"
	mount "$DEV" mnt
	cmp tree.before <(tree_sum mnt) || fail "exported again, the tree is another"
	umount mnt
	ublk_stop disk
done
