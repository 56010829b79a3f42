#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
#
# udev knows an export and its partitions as it knows any disk: by name, by id, by UUID
# and label, with a model and a serial number; "UUID=" in fstab finds its file system.
. /lab/lib.sh system

uuid=0f7ad4b9-4f1c-4c7e-9d7b-5d1c4a0b7a11

# links_to DEVICE LINK...: each leads there.
links_to() {
	local device=$1 link
	shift
	for link; do
		retry 30 test -L "$link" || fail "no $link: $(udevadm info "$device")"
		expect "$device" "$(readlink -f "$link")" "$link"
	done
}

# property DEVICE NAME
property() { udevadm info --query=property --name="$1" | sed -n "s/^$2=//p"; }

service_start
truncate -s 64M /srv/data.img
mkfs.ext4 -q -L some-label -U $uuid /srv/data.img
device=$(ublkctl export data=/srv/data.img)
links_to "$device" /dev/ublk/data /dev/disk/by-id/ublkd-data /dev/disk/by-uuid/$uuid \
	/dev/disk/by-label/some-label
expect 'ublkd file' "$(property "$device" ID_MODEL)" "ID_MODEL"
expect data "$(property "$device" ID_SERIAL)" "ID_SERIAL"
expect "ublkd file data ext4 some-label $uuid" \
	"$(lsblk -dno MODEL,SERIAL,FSTYPE,LABEL,UUID "$device" | tr -s ' ')" "lsblk"
mkdir -p /mnt/by-uuid
echo "UUID=$uuid /mnt/by-uuid ext4 noauto,x-systemd.device-timeout=30 0 0" >>/etc/fstab
defer "sed -i /by-uuid/d /etc/fstab; systemctl daemon-reload"
systemctl daemon-reload
systemctl start mnt-by\\x2duuid.mount || fail "$(systemctl status mnt-by\\x2duuid.mount)"
expect "$device" "$(findmnt -no SOURCE /mnt/by-uuid)" "what is mounted by UUID"
systemctl stop mnt-by\\x2duuid.mount
ublkctl remove data

truncate -s 64M /srv/parts.img
printf '%s\n' 'label: gpt' 'size=16M, name=first' 'size=16M, name=second' |
	sfdisk -q /srv/parts.img
device=$(ublkctl export parts=/srv/parts.img)
links_to "${device}p2" /dev/ublk/parts-part2 /dev/disk/by-id/ublkd-parts-part2 \
	/dev/disk/by-partlabel/second
expect parts "$(property "${device}p2" ID_SERIAL)" "the partition's ID_SERIAL"
ublkctl remove parts
