#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 append=lab.bare kernel=newest timeout=600
#
# The tasks of docs/operations.md, by its own commands, from a machine without ublkd to one
# without it again; the outcome of each task is checked. The log of this test is the
# transcript. The NBD server "storage" is a service that the machine keeps until its exports
# are gone, as it would do on another machine.
. /lab/lib.sh disks system document

# shellcheck disable=SC2034 # document.sh's
not_run=(
	['make uninstall']='the programs were built on another machine'
)
# shellcheck disable=SC2034
until_interrupted=(['ublkctl monitor']=5)

health_is() { [[ $(export_says "$1" health) == "$2" ]]; }
becomes_healthy() { retry 60 health_is "$1" "$2" || fail "$1: not $2: $(ublkctl show "$1")"; }
size_of() { df --block-size=1 --output=size "$1" | tail -n 1; }
is_mounted() { [[ $(findmnt -no SOURCE --types ext4 "/srv/$1") == "$(realpath "/dev/ublk/$1")" ]]; }

storage_server() {
	mkdir -p /srv/storage
	truncate -s 20G /srv/storage/disk1
	grep -q storage /etc/hosts || echo '127.0.0.1 storage' >>/etc/hosts
	cat >/etc/systemd/system/storage.service <<-'UNIT'
		[Unit]
		DefaultDependencies=no
		After=systemd-remount-fs.service
		Before=ublkd.service shutdown.target
		Conflicts=shutdown.target
		[Service]
		KillSignal=SIGKILL
		ExecStart=nbdkit --foreground --ipaddr 127.0.0.1 file dir=/srv/storage
		[Install]
		WantedBy=sysinit.target
	UNIT
	systemctl --quiet enable --now storage.service
	retry 30 bash -c '(: </dev/tcp/127.0.0.1/10809) 2>/dev/null' || fail "no NBD server"
}

document operations.md
# The document calls it jq.
ln -sf "$(type -P gojq)" /usr/local/bin/jq

case $LAB_BOOT in
1)
	! type -P ublkctl || fail "ublkd is installed already"
	cp -a /srv/installed/. /
	storage_server

	section 'After the installation'
	blocks
	systemctl is-active ublkd.service

	section 'Mount a remote NBD export at boot'
	block # nbd-list
	block # the file
	block # reload
	block # mkfs
	block # fstab
	is_mounted remote || fail "remote is not mounted"
	echo 'content of remote' >/srv/remote/lost+found/file

	section 'Create a first disk'
	block
	is_mounted data || fail "data is not mounted"
	echo 'content of data' >/srv/data/lost+found/file
	reboot_machine
	;;
2)
	expect running "$(systemctl is-system-running --wait)" "$(systemctl --failed)"
	may_wait 300
	section 'Mount a remote NBD export at boot'
	block
	section 'Create a first disk'
	block
	for name in remote data; do
		is_mounted $name || fail "$name is not mounted: $(systemctl status --no-pager "srv-$name.mount")"
		expect "content of $name" "$(<"/srv/$name/lost+found/file")"
	done

	section 'Create a RAM disk'
	blocks
	is_mounted scratch || fail "scratch is not mounted"
	umount /srv/scratch
	ublkctl remove scratch

	section 'Grow an export and its file system'
	declare -A before=([data]=$(size_of /srv/data) [remote]=$(size_of /srv/remote))
	truncate -s 40G /srv/storage/disk1
	block # data
	block # remote
	for name in data remote; do
		(($(size_of /srv/$name) > before[$name] * 3 / 2)) || fail "$name has not grown"
		expect "content of $name" "$(<"/srv/$name/lost+found/file")"
	done
	block # smaller
	expect 12 "$(($(blockdev --getsize64 /dev/ublk/data) >> 30))" "GiB of data"
	is_mounted data || fail "data is not mounted"
	expect 'content of data' "$(</srv/data/lost+found/file)"

	section 'Partition an export'
	blocks
	expect part "$(lsblk -dno TYPE /dev/ublk/disk-part1)"
	udevadm settle
	ublkctl remove disk

	section 'The NBD server is down'
	systemctl stop storage.service
	becomes_healthy remote waiting
	dd if=/dev/zero of=/srv/remote/written bs=4k count=1 oflag=direct status=none &
	writer=$!
	block
	kill -0 $writer || fail "the write did not wait"
	sleep 5
	systemctl start storage.service
	becomes_healthy remote ok
	wait $writer || fail "the write has failed"
	block
	lasted=$(journalctl --boot --output=cat UBLKD_EXPORT=remote | sed -nE 's/.*ok again after ([0-9]+) s/\1/p')
	((lasted >= 5)) || fail "the log has an outage of $lasted s"
	sync -f /srv/remote
	systemctl stop storage.service
	becomes_healthy remote waiting
	block
	[[ ! -e /dev/ublk/remote ]] || fail "it is there still"
	systemctl start storage.service
	block
	is_mounted remote || fail "remote is not mounted again"
	expect 'content of remote' "$(</srv/remote/lost+found/file)"

	section 'A configuration file is wrong'
	truncate -s 64M /srv/storage/disk2
	printf '%s\n' 'uri = nbd://storage/disk2' 'conections = 4' >/etc/ublkd/exports.d/backup.conf
	ublkctl reload || true
	block
	expect 'live ok' "$(export_says data state) $(export_says data health)"
	sed -i 's/^conections/connections/' /etc/ublkd/exports.d/backup.conf
	block
	expect live "$(export_says backup state)"
	rm /etc/ublkd/exports.d/backup.conf
	ublkctl reload

	section 'Upgrade the package'
	old=$(service_pid) worker=$(export_says data pid)
	blocks
	[[ $(service_pid) != "$old" ]] || fail "ublkd is the same process"
	[[ $(export_says data pid) != "$worker" ]] || fail "the worker is the same process"
	is_mounted data || fail "data is not mounted"
	expect 'content of data' "$(cat /srv/data/lost+found/file)"

	section 'Monitor'
	systemctl stop storage.service
	becomes_healthy remote waiting
	blocks
	systemctl start storage.service
	becomes_healthy remote ok

	section 'ublkd does not start'
	systemctl stop ublkd.socket ublkd.service
	cp /etc/passwd passwd.before
	sed -i '/^ublkd:/d' /etc/passwd
	systemctl start ublkd.service || true
	retry 110 systemctl --quiet is-failed ublkd.service ||
		fail "it is still restarted: $(systemctl status --no-pager ublkd.service)"
	block
	expect 'content of data' "$(cat /srv/data/lost+found/file)"
	cp passwd.before /etc/passwd
	block
	export_lives data

	section 'Remove an export'
	block
	is_mounted data || fail "data is not mounted any more"
	block
	[[ ! -e /etc/ublkd/exports.d/data.conf ]] || fail "its file is there still"
	[[ -e /var/lib/ublkd/data.img ]] || fail "its image is gone"
	expect '' "$(grep ublk.data /etc/fstab || true)" "in fstab"
	umount /srv/remote
	block
	retry 30 bash -c '[[ ! -e /dev/ublk/remote ]]' || fail "remote is there: $(ublkctl show remote)"
	systemctl stop srv-remote.automount

	section 'Stop and uninstall'
	ublkctl export data=/var/lib/ublkd/data.img
	worker=$(export_says data pid)
	block
	kill -0 "$worker" || fail "the worker has ended"
	[[ -b /dev/ublk/data ]] || fail "data is not there"
	block
	expect "$worker" "$(export_says data pid)" "the worker after ublkd came back"
	blocks
	[[ -e /var/lib/ublkd/data.img ]] || fail "the image is gone"
	for unit in ublkd.socket ublkd.service ublkd-worker.socket ublkd-shutdown.service; do
		if systemctl --quiet is-active $unit; then fail "$unit is active"; fi
	done
	document_end
	;;
esac
