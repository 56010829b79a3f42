#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 once=newest
. /lab/lib.sh disks system

# An export that is declared, with a file system that fstab names, is mounted at boot,
# and again at the next one.
case $LAB_BOOT in
1)
	truncate -s 256M /srv/data.img
	mkdir -p /etc/ublkd/exports.d /data
	printf '%s\n' '[export]' 'uri = file:/srv/data.img' >/etc/ublkd/exports.d/data.conf
	systemctl --quiet enable --now ublkd.socket ublkd.service
	retry 30 test -b /dev/ublk/data || fail "there is no /dev/ublk/data: $(ublkctl show data)"
	mkfs.ext4 -q /dev/ublk/data
	echo '/dev/ublk/data /data ext4 x-systemd.requires=ublk@data.service 0 2' >>/etc/fstab
	systemctl daemon-reload
	systemctl start data.mount
	cp -a /usr/bin /data
	tree_sum /data/bin >/srv/tree
	reboot_machine
	;;
2)
	expect running "$(systemctl is-system-running --wait)" "$(systemctl --failed)"
	mountpoint -q /data || fail "it is not mounted: $(systemctl status --no-pager data.mount)"
	expect /dev/ublkb0 "$(realpath "$(findmnt -no SOURCE /data)")"
	expect declared "$(export_says data origin)"
	cmp /srv/tree <(tree_sum /data/bin) || fail "the tree is not what was copied"
	# fstab had it checked before it was mounted.
	expect success "$(systemctl show --property=Result --value 'systemd-fsck@dev-ublk-data.service')"
	[[ -n $(systemctl show --property=ExecMainExitTimestamp --value 'systemd-fsck@dev-ublk-data.service') ]] ||
		fail "it was not checked"
	;;
esac
