#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Storage is exported once for writing, or any number of times for reading.
. /lab/lib.sh disks

scratch_fs 32M
truncate -s 4M "$SCRATCH/image"
ln -s image "$SCRATCH/link"
ln "$SCRATCH/image" "$SCRATCH/other"
for what in "$SCRATCH/image" /dev/ram1; do
	: >first.out
	: >second.out
	ublk_start first "$what"
	refuses 1 "$what" run "$what"
	refuses 1 "$what" run --queues 1 -o direct=off "$what"
	[[ -b $what ]] || refuses 1 "$what" run --read-only "$what"
	if [[ -f $what ]]; then
		refuses 1 other run "$SCRATCH/other"
		refuses 1 link run "$SCRATCH/link"
	fi
	# The one that was there is none the worse.
	dd if=/dev/zero of="$(ublk_dev first)" bs=4k count=1 oflag=direct status=none
	ublk_stop first

	: >first.out
	ublk_start first --read-only "$what"
	ublk_start second --read-only "$what"
	[[ -b $what ]] || refuses 1 "$what" run "$what"
	ublk_stop first
	ublk_stop second
done

# A device that is mounted is not written to behind the file system's back.
refuses 1 'in use' run /dev/ram0
ublk_start first --read-only /dev/ram0
