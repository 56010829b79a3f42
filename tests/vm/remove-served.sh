#!/bin/bash
# SPDX-License-Identifier: MIT
#
# "remove" of a device that a server is at work for stops and removes it, and the
# server ends well; one that is mounted or held is left alone without --force.
. /lab/lib.sh disks

# ended_well: the server "disk", by itself.
ended_well() {
	local status=0
	retry 40 lab_gone "$PID" || fail "the server of a removed device does not end"
	wait "$PID" || status=$?
	lab_forget disk
	expect 0 "$status" "its exit status"
	[[ ! -e $DEV ]] || fail "$DEV is left"
	: >disk.out
}

for name in /dev/ublkb7 ublkb7 /dev/ublkc7 7; do
	ublk_start disk --id 7 memory:8M
	ublkctl remove "$name" || fail "remove $name: status $?"
	ended_well
	[[ ! -e /dev/ublkc7 ]] || fail "/dev/ublkc7 is left"
done

ublk_start disk memory:32M
mkfs.ext4 -q "$DEV"
mkdir mnt
mount "$DEV" mnt
refuses 1 'in use' remove "$DEV"
grep -q -e --force refused.err || fail "no way named: $(cat refused.err)"
touch mnt/file
sync mnt/file || fail "a removal that was refused did harm"
umount mnt
# Held by another device.
dmsetup create holder --table "0 8 linear $DEV 0"
refuses 1 'in use' remove "$DEV"
dmsetup remove holder
mount "$DEV" mnt
ublkctl remove --force "$DEV" || fail "remove --force: status $?"
ended_well
umount mnt
# What was left for whoever had it mounted goes with that.
retry 30 test ! -e /dev/ublkc0 || fail "/dev/ublkc0 outlives the mount"

refuses 1 'device 7' remove 7
refuses 1 'device 7' remove --force 7
