#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
#
# A partition table that is written to an export takes effect by itself: partitions are
# added, resized and removed, those in use stay as they are, and those that did not change
# are not touched.
. /lab/lib.sh system

# kernel_has PARTITION...: for retry: these, and no others.
kernel_has() { [[ "${*:-}" == "$(lsblk --raw --noheadings --output NAME "$device" | sed -n 's/^ublkb[0-9]*p//p' | sort | paste -sd' ')" ]]; }
becomes_parts() { retry 30 kernel_has "$@" || fail "partitions are not '$*': $(lsblk "$device")"; }
# identity PARTITION: a partition that is removed and added again has another.
identity() { stat -L --format=%i "/sys/class/block/${device##*/}p$1"; }

service_start
truncate -s 64M /srv/parts.img
device=$(ublkctl export parts=/srv/parts.img)
printf '%s\n' 'label: gpt' 'size=16M' 'size=16M' | sfdisk -q "$device"
becomes_parts 1 2
retry 30 test -L /dev/ublk/parts-part2 || fail "no link to the partition"

mkfs.ext4 -q /dev/ublk/parts-part1
mkdir -p /mnt/parts
mount /dev/ublk/parts-part1 /mnt/parts
cp /lab/lib.sh /mnt/parts/
udevadm settle
first=$(identity 1) second=$(identity 2)
echo 'size=8M' | sfdisk -q --append --no-reread "$device"
becomes_parts 1 2 3
expect "$first" "$(identity 1)" "the mounted partition"
expect "$second" "$(identity 2)" "the unchanged partition"

sfdisk -q --no-reread --delete "$device" 2
becomes_parts 1 3
echo ', 12M' | sfdisk -q --no-reread -N 3 "$device"
is_resized() { [[ $(<"/sys/class/block/${device##*/}p3/size") == $((12 << 11)) ]]; }
retry 30 is_resized || fail "the third partition has $(<"/sys/class/block/${device##*/}p3/size") sectors"
cmp /lab/lib.sh /mnt/parts/lib.sh
umount /mnt/parts
wipefs -q --all --force "$device"
becomes_parts
ublkctl remove parts

# Not where that was asked for.
device=$(ublkctl export off=/srv/parts.img --partitions off)
printf '%s\n' 'label: dos' 'size=16M' | sfdisk -q "$device"
udevadm settle
sleep 2
udevadm settle
becomes_parts
partx --add "$device"
becomes_parts 1
ublkctl remove off

# An extended partition is as large as the kernel wants it.
device=$(ublkctl export parts=/srv/parts.img)
printf '%s\n' 'label: dos' 'size=16M' 'type=Ex' 'size=8M' | sfdisk -q "$device"
becomes_parts 1 2 5
udevadm settle
before=$(identity 2)
echo 'size=4M' | sfdisk -q --append "$device"
becomes_parts 1 2 5 6
expect "$before" "$(identity 2)" "the extended partition"
ublkctl remove parts
