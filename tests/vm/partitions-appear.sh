#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Partitions on a device appear, are used, are there again when it is exported
# again, and are not looked for where that was asked.
. /lab/lib.sh disks

scratch_fs 64M
image=$SCRATCH/image
ublk_start disk --create 32M "$image"
printf '%s\n' 'label: gpt' 'size=8M' ',' | sfdisk -q "$DEV"
retry 30 test -b "${DEV}p2" || fail "the partitions just made are not there"
expect $((8 << 11)) "$(sysfs_of "${DEV}p1" size)" "the first one's size"
mkfs.ext4 -q "${DEV}p1"
mkdir mnt
mount "${DEV}p1" mnt
cp /lab/lib.sh mnt/
umount mnt
ublk_stop disk
[[ ! -e /dev/ublkb0p1 ]] || fail "a partition outlives its device"

for path in $(io_paths); do
	for scan in '' '--partitions=on'; do
		serve "$path" ${scan:+"$scan"} "$image"
		# From Linux 7.0 on they may appear after the device.
		retry 30 test -b "${DEV}p2" || fail "$path $scan: no partitions"
		mount -o ro "${DEV}p1" mnt
		cmp /lab/lib.sh mnt/lib.sh || fail "the partition's content"
		umount mnt
		ublk_stop disk
	done
	serve "$path" --partitions off "$image"
	dd if="$DEV" of=/dev/null bs=1M count=8 iflag=direct status=none
	! retry 2 test -b "${DEV}p1" || fail "$path: --partitions off, and they are there"
	# Whoever wants them can still have them.
	partx -a "$DEV"
	retry 30 test -b "${DEV}p1" || fail "$path: --partitions off, and they cannot be read at all"
	ublk_stop disk
done
