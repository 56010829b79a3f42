#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 append=lab.bare once=newest
#
# From a machine without ublkd to a file system on an export that is mounted after a
# reboot, by the steps that `make install` prints. The programs were built beside the
# guest, by `./configure && make && make install DESTDIR=...`: a compiler in an emulated
# machine takes too long. A copy into / is all that `make install` itself does here.
. /lab/lib.sh disks system

case $LAB_BOOT in
1)
	! type -P ublkctl || fail "ublkd is installed already"
	! getent passwd ublkd || fail "the user is there already"
	cp -a /srv/installed/. /
	sed -n 's/^    //p' /lab/next-steps >steps
	expect 6 "$(wc -l <steps)" "steps: $(cat /lab/next-steps)"
	while read -r step; do
		bash -ec "$step" </dev/null || fail "$step: $?"
	done <steps
	[[ $(ublkctl check-config) == '/etc/ublkd: 0 exports, no error' ]] ||
		fail "the configuration: $(ublkctl check-config)"

	ublkctl export data=/var/lib/ublkd/data.img --create 64M --persist
	mkfs.ext4 -q /dev/ublk/data
	echo '/dev/ublk/data /srv/data ext4 x-systemd.requires=ublk@data.service,nofail 0 2' >>/etc/fstab
	mkdir -p /srv/data
	systemctl daemon-reload
	mount /srv/data
	cp /lab/lib.sh /srv/data/
	reboot_machine
	;;
2)
	expect running "$(systemctl is-system-running --wait)" "$(systemctl --failed)"
	mountpoint -q /srv/data || fail "it is not mounted: $(systemctl status --no-pager srv-data.mount)"
	cmp /lab/lib.sh /srv/data/lib.sh
	ublkctl check-config || fail "the configuration"
	;;
esac
