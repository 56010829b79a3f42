#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checksummed blocks written by several jobs to a file, through two queues, read
# back as they were, on each I/O path, and are in the file itself.
. /lab/lib.sh disks

scratch_fs 256M
for path in $(io_paths); do
	rm -f "$SCRATCH/image"
	serve "$path" --queues 2 --create 64M "$SCRATCH/image"
	fio_verify "$DEV"
	for queue in queue0 queue1; do
		(($(counted $queue.completed) > 100)) || fail "$path: $queue was not used"
	done
	ublk_stop disk
	fio_verify "$SCRATCH/image" --verify_only
done
