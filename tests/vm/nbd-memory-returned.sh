#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# The memory of written and unflushed data is given back some seconds after a flush has
# covered it, but for each queue's share; and it is used again. By one queue alone: another one's
# memory waits for its next request.
. /lab/lib.sh disks nbd

resident() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$PID/status"; }

nbdkit_start memory unix memory 256M
# Each of the four queues may hold on to 8 MiB.
ublk_start disk --queues 4 -o connections=4 -o retain=64M "$URI"
before=$(resident)
for round in 1 2; do
	taskset 1 dd if=/dev/zero of="$DEV" bs=64k count=448 oflag=direct status=none
	full=$(resident)
	((full - before > 26000)) || fail "round $round: $before KiB before, $full KiB with 28 MiB kept"
	taskset 1 sync "$DEV"
	is_small() { (($(resident) - before < 12000)); }
	retry 30 is_small || fail "round $round: $before KiB before, $(resident) KiB after the flush"
	echo "round $round: $before KiB, $full KiB, $(resident) KiB"
done
expect 0 "$(gauge retained-bytes)" "bytes kept after a flush"
