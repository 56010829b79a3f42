#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# The lab's kernel has the driver that everything here is about, and what tests
# build on: RAM disks that take direct I/O.
. /lab/lib.sh

[[ -c /dev/ublk-control ]] || fail "no /dev/ublk-control"
expect 2G "$(ram_disks 2G && lsblk -ndo SIZE /dev/ram0 | tr -d ' ')" "a RAM disk's size"
scratch_fs 64M
dd if=/dev/urandom of="$SCRATCH/file" bs=1M count=8 oflag=direct status=none
sum=$(sha256sum <"$SCRATCH/file")
umount "$SCRATCH"
mount /dev/ram0 "$SCRATCH"
expect "$sum" "$(sha256sum <"$SCRATCH/file")" "content after a remount"
