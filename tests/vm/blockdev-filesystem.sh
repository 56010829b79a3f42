#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A file system on an exported block device keeps its content, on each I/O path,
# and is the block device's own.
. /lab/lib.sh disks

ram_disks 256M
for path in $(io_paths); do
	serve "$path" /dev/ram0
	file_system_holds "$DEV"
	ublk_stop disk
	mount /dev/ram0 mnt
	cmp tree.before <(tree_sum mnt) || fail "the device itself holds another tree"
	umount mnt
done
