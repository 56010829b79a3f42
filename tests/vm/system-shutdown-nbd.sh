#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie boots=2 disk=512M once=newest timeout=300
. /lab/lib.sh disks system

# A machine goes down while file systems on NBD exports have dirty data that nobody has
# synced. The NBD servers run until the end, as storage on another machine would. All
# that was written is on the servers' disk afterwards, and the file systems are clean:
#   hand  is mounted by mount(8); systemd knows nothing of ublkd
#   net   is mounted from fstab, as ublkd(8) advises for an export on the network
#   held  is never unmounted by systemd's manager, as the root would not be: that is left
#         to systemd-shutdown, which has killed nearly all processes by then. systemd
#         before 255 kills the worker too (see ublkd-worker@.service): the file system
#         then looks as after a power cut, but what was written has been synced before.

mounts=(hand net held)
has_survivors() { (($(systemctl --version | awk 'NR == 1 { print int($2) }') >= 255)); }
sectors_written() { stat_field "$(realpath "/dev/ublk/$1")" 7; }
# is_dirty NAME: less than half of the content has been written since it was copied.
is_dirty() { (($(sectors_written "$1") - ${before[$1]} < 8192)) || fail "$1: its content is not dirty"; }

# server NUMBER: an nbdkit that systemd spares to the end, for that partition.
server() {
	cat >"/run/systemd/system/server-$1.service" <<-END
		[Unit]
		DefaultDependencies=no
		IgnoreOnIsolate=yes
		SurviveFinalKillSignal=yes
		[Service]
		ExecStart=@$(type -P nbdkit) @nbdkit --foreground --unix /run/server-$1 file /dev/vdb$1
		KillMode=none
	END
	systemctl daemon-reload
	systemctl start "server-$1.service"
	retry 30 test -S "/run/server-$1"
}

case $LAB_BOOT in
1)
	has_survivors || mounts=(hand net)
	sysctl -q vm.dirty_writeback_centisecs=0 vm.dirty_expire_centisecs=360000
	printf ',150M\n,150M\n,150M\n' | sfdisk --quiet /dev/vdb
	mkdir -p /etc/ublkd/exports.d
	for i in "${!mounts[@]}"; do
		server $((i + 1))
		printf '%s\n' '[export]' "uri = nbd+unix:///?socket=/run/server-$((i + 1))" \
			>"/etc/ublkd/exports.d/${mounts[i]}.conf"
	done
	service_start
	for name in "${mounts[@]}"; do
		export_lives "$name"
		retry 30 test -b "/dev/ublk/$name"
		# What it leaves to be done later would look like content that is written.
		mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "/dev/ublk/$name"
		mkdir -p "/$name"
	done
	mount /dev/ublk/hand /hand
	echo '/dev/ublk/net /net ext4 _netdev,x-systemd.requires=ublk@net.service 0 0' >>/etc/fstab
	printf '%s\n' '[Unit]' DefaultDependencies=no '[Mount]' What=/dev/ublk/held Where=/held \
		>/run/systemd/system/held.mount
	systemctl daemon-reload
	systemctl start net.mount
	! has_survivors || systemctl start held.mount
	random_file /srv/content 8M
	sync
	declare -A before=()
	for name in "${mounts[@]}"; do
		mountpoint -q "/$name" || fail "/$name is not mounted"
		before[$name]=$(sectors_written "$name")
		cp /srv/content "/$name/content"
	done
	! has_survivors || : >/run/lab/outlives
	# Nothing shall be served or mounted at the next boot.
	systemctl --quiet disable ublkd.socket ublkd.service
	sed -i '/ublk/d' /etc/fstab
	sync /etc/fstab
	for name in "${mounts[@]}"; do is_dirty "$name"; done
	reboot_machine
	;;
2)
	has_survivors || mounts=(hand net)
	mkdir -p /mnt
	for i in "${!mounts[@]}"; do
		name=${mounts[i]} disk=/dev/vdb$((i + 1))
		dumpe2fs -h "$disk" >super 2>&1
		grep -qx 'Filesystem state: *clean' super || fail "$name: $(cat super)"
		if grep -q needs_recovery super; then fail "$name: its journal was not written back"; fi
		e2fsck -fn "$disk" || fail "$name: e2fsck finds something"
		mount -o ro "$disk" /mnt
		cmp /srv/content /mnt/content || fail "$name: its content has not arrived"
		umount /mnt
	done
	journalctl --boot=-1 --output=cat _PID=1 >journal
	removed=$(grep -n 'Stopped ublkd-shutdown.service' journal | cut -d: -f1)
	for name in hand net; do
		unmounted=$(grep -n "Unmounted $name.mount" journal | cut -d: -f1)
		[[ -n $unmounted && -n $removed ]] || fail "$(grep -i -e ublk -e mount journal)"
		((unmounted < removed)) || fail "exports were removed before /$name was unmounted"
	done
	;;
esac
