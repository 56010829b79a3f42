#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checksummed blocks written by several jobs to an exported block device, through
# two queues, read back as they were, on each I/O path, and are on it itself.
. /lab/lib.sh disks

for path in $(io_paths); do
	ram_disks 64M
	serve "$path" --queues 2 /dev/ram0
	fio_verify "$DEV"
	for queue in queue0 queue1; do
		(($(counted $queue.completed) > 100)) || fail "$path: $queue was not used"
	done
	ublk_stop disk
	fio_verify /dev/ram0 --verify_only
done
