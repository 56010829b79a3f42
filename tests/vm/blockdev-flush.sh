#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# Each flush, and each write that must be on stable storage, reaches the device
# behind an export, and no other write asks for that: counted at that device.
. /lab/lib.sh disks

# counts WORDS LOOP FLUSH WRITE: what has come since last time: flushes at the
# device, flushes and writes at the export.
counts() {
	local loop_now flush_now write_now
	loop_now=$(flushes "$loop")
	flush_now=$(counted flush.completed)
	write_now=$(counted write.completed)
	expect "$2" $((loop_now - loop_seen)) "$path: $1: flushes at the device behind it"
	expect "$3" $((flush_now - flush_seen)) "$path: $1: flushes at the export"
	expect "$4" $((write_now - write_seen)) "$path: $1: writes at the export"
	loop_seen=$loop_now flush_seen=$flush_now write_seen=$write_now
}

truncate -s 16M image
loop=$(losetup -f --show image)
defer "losetup -d $loop"
# It has a write cache and no FUA: one write that asks for that costs it one flush.
expect 'write back 0' "$(sysfs_of "$loop" queue/write_cache) $(sysfs_of "$loop" queue/fua)"
for path in $(io_paths); do
	serve "$path" "$loop"
	loop_seen=$(flushes "$loop") flush_seen=$(counted flush.completed)
	write_seen=$(counted write.completed)
	write_blocks
	counts 'plain writes' 0 0 20
	write_blocks --sync=dsync
	counts 'writes with FUA' 20 0 20
	write_blocks --fdatasync=1 --end_fsync=1
	counts 'a flush after each write' 20 20 20
	sync "$DEV"
	counts 'a flush alone' 1 1 0
	expect 0 "$(counted flush.failed)" "failed flushes"
	ublk_stop disk
done
