#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie append=lab.bare kernel=newest timeout=400
#
# README.md by its own commands: the screen "At work" is what the programs print, and the
# steps of "The first five minutes" lead to what they promise. The log of this test is the
# transcript.
. /lab/lib.sh disks system document

# shellcheck disable=SC2034 # document.sh's
not_run=(
	['apt install autoconf automake gcc make pkg-config libc6-dev libcap-ng-dev libinih-dev libjansson-dev libnbd-dev libseccomp-dev libsystemd-dev liburing-dev libuv1-dev']='no network'
	['./bootstrap']='no compiler: the programs were built on another machine'
	['mkdir -p build/mine && cd build/mine']='as ./bootstrap'
	['../../configure && make']='as ./bootstrap'
	['make install']='as ./bootstrap'
)
is_mounted() { [[ $(findmnt -no SOURCE --types ext4 "$2") == "$(realpath "/dev/ublk/$1")" ]]; }
health_waits() { [[ $(export_says "$1" health) == waiting ]]; }
server_start() {
	systemd-run --quiet --unit=storage nbdkit --foreground --ipaddr 127.0.0.1 file dir=/srv/storage
	retry 30 bash -c '(: </dev/tcp/127.0.0.1/10809) 2>/dev/null' || fail "no NBD server"
}

document README.md
cp -a /srv/installed/. /
mkdir -p /srv/storage /srv/images /srv/data
truncate -s 512M /srv/storage/disk1
echo '127.0.0.1 storage' >>/etc/hosts
server_start
defer 'systemctl stop storage.service || true'

section 'Install'
blocks
systemctl is-active ublkd.service
defer service_end

section 'At work'
block
mkfs.ext4 -q /dev/ublk/data
mount /dev/ublk/data /srv/data
systemctl kill --signal=KILL storage.service
retry 60 health_waits remote || fail "remote does not wait: $(ublkctl show remote)"
block
umount /srv/data
systemctl reset-failed storage.service
server_start
for name in data remote scratch; do ublkctl remove "$name"; done
rm /srv/images/data.img

section 'The first five minutes'
block # the file
block
[[ $(ls /srv/remote) == lost+found ]] || fail "remote: $(ls -a /srv/remote)"
is_mounted remote /srv/remote || fail "remote is not mounted"
block
is_mounted data /mnt || fail "data is not mounted"
[[ -e /etc/ublkd/exports.d/data.conf ]] || fail "data is not declared"
block
expect '8589934592 live' "$(export_says scratch size) $(export_says scratch state)"

umount /mnt
systemctl stop srv-remote.automount srv-remote.mount
sed -i /ublk/d /etc/fstab
systemctl daemon-reload
document_end 'Build and test'
