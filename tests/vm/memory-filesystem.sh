#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A file system on a memory disk keeps its content, on each I/O path.
. /lab/lib.sh disks

for path in $(io_paths); do
	serve "$path" memory:256M
	file_system_holds "$DEV"
	ublk_stop disk
done
