#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 once=newest
. /lab/lib.sh disks system

# The machine boots while the NBD server is down, with lines in fstab as docs/operations.md
# has them: the boot does not wait and nothing fails. When the server is there, the first
# access mounts the file system: an access that has waited since before, and one after an
# access that was given up.
mounts=(remote brief)
health_waits() { [[ $(export_says "$1" health) == waiting ]]; }
mount_waits() { [[ $(systemctl list-jobs) == *srv-remote.mount*waiting* ]]; }

case $LAB_BOOT in
1)
	mkdir -p /srv/images /etc/ublkd/exports.d
	for name in "${mounts[@]}"; do
		mkdir -p "content/$name" "/srv/$name"
		echo "content of $name" >"content/$name/file"
		truncate -s 64M "/srv/images/$name"
		mkfs.ext4 -q -d "content/$name" "/srv/images/$name"
		echo "uri = nbd://127.0.0.1/$name" >"/etc/ublkd/exports.d/$name.conf"
	done
	printf '%s\n' '/dev/ublk/remote /srv/remote ext4 _netdev,nofail,x-systemd.automount 0 2' \
		'/dev/ublk/brief /srv/brief ext4 _netdev,nofail,x-systemd.automount,x-systemd.device-timeout=5s 0 2' \
		>>/etc/fstab
	systemctl --quiet enable ublkd.socket ublkd.service
	reboot_machine
	;;
2)
	# The access that is given up is one of the things that the lab would complain of.
	: >/run/lab/times-out
	defer 'systemctl stop server.service || true'
	defer service_end
	# No job is left over, either: none waits for a device.
	expect running "$(systemctl is-system-running --wait)" "$(systemctl --failed; systemctl list-jobs)"
	for name in "${mounts[@]}"; do
		expect autofs "$(findmnt -no FSTYPE "/srv/$name")" "what is at /srv/$name"
		retry 30 health_waits "$name" || fail "the health of $name: $(ublkctl show "$name")"
	done
	timeout -k 5 60 cat /srv/brief/file && fail "a file of a server that is down"
	timeout -k 5 120 cat /srv/remote/file >waited &
	cat=$!
	retry 30 mount_waits || fail "no mount waits: $(systemctl list-jobs)"

	systemd-run --quiet --unit=server nbdkit --foreground --ipaddr 127.0.0.1 file dir=/srv/images
	wait $cat || fail "the access that waited: $(systemctl status --no-pager srv-remote.mount)"
	expect 'content of remote' "$(<waited)"
	export_lives brief
	expect 'content of brief' "$(cat /srv/brief/file)"
	for name in "${mounts[@]}"; do
		expect "$(realpath "/dev/ublk/$name")" "$(findmnt -no SOURCE --types ext4 "/srv/$name")"
	done
	expect '' "$(systemctl --failed --plain --no-legend)" "units that have failed"
	for name in "${mounts[@]}"; do
		systemctl stop "srv-$name.automount" "srv-$name.mount"
	done
	sed -i /ublk/d /etc/fstab
	systemctl daemon-reload
	;;
esac
