#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checksummed blocks written by several jobs to a memory disk, through two queues,
# read back as they were, on each I/O path.
. /lab/lib.sh disks

for path in $(io_paths); do
	serve "$path" --queues 2 memory:64M
	fio_verify "$DEV"
	for queue in queue0 queue1; do
		(($(counted $queue.completed) > 100)) || fail "$path: $queue was not used"
	done
	ublk_stop disk
done
