#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 once=newest
. /lab/lib.sh system

# A machine that goes down while files are written to an export unmounts it, then ends
# ublkd: the file system is clean without anybody's repair, and has every file that was
# written.
case $LAB_BOOT in
1)
	truncate -s 256M /srv/data.img
	mkdir -p /etc/ublkd/exports.d /data
	printf '%s\n' '[export]' 'uri = file:/srv/data.img' >/etc/ublkd/exports.d/data.conf
	service_start
	export_lives data
	retry 30 test -b /dev/ublk/data
	mkfs.ext4 -q /dev/ublk/data
	echo '/dev/ublk/data /data ext4 x-systemd.requires=ublk@data.service 0 0' >>/etc/fstab
	systemctl daemon-reload
	systemctl start data.mount
	# Ended with the others by systemd, before what it writes to is unmounted.
	cat >/srv/write <<-'END'
		for ((i = 1; ; i++)); do
			{ echo "$i" && head -c 100000 /dev/zero; } >"/data/$i" && echo "$i" >>/srv/written
		done
	END
	touch /srv/written
	systemd-run --quiet --unit=writer --property=RequiresMountsFor=/data bash /srv/write
	many_written() { (($(wc -l </srv/written) > 50)); }
	retry 60 many_written
	# Nothing shall be mounted for the next boot to look at.
	systemctl --quiet disable ublkd.socket ublkd.service
	sed -i '/ublk/d' /etc/fstab
	reboot_machine
	;;
2)
	[[ ! -e /dev/ublkb0 ]] || fail "there is a device"
	dumpe2fs -h /srv/data.img >super 2>&1
	grep -qx 'Filesystem state: *clean' super || fail "$(cat super)"
	if grep -q needs_recovery super; then fail "its journal was not written back: $(cat super)"; fi
	e2fsck -fn /srv/data.img || fail "e2fsck finds something"
	mkdir -p /mnt
	mount -o loop,ro /srv/data.img /mnt
	defer umount /mnt
	while read -r i; do
		[[ -s /mnt/$i ]] || fail "the file $i of $(wc -l </srv/written) is not there"
		expect "$i" "$(head -n 1 "/mnt/$i")"
	done </srv/written
	journalctl --boot=-1 --output=cat _PID=1 >journal
	unmounted=$(grep -n 'Unmounted data.mount' journal | cut -d: -f1)
	stopped=$(grep -n 'Stopped ublkd.service' journal | cut -d: -f1)
	[[ -n $unmounted && -n $stopped ]] || fail "$(grep -i -e ublk -e data journal)"
	((unmounted < stopped)) || fail "ublkd was ended before /data was unmounted"
	;;
esac
