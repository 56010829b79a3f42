#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Removals and mounts of one device side by side: each removal is refused, or no mount
# has succeeded meanwhile. Where a mount has succeeded, a write to it does, too, since the
# device is there until the file system is unmounted.
. /lab/lib.sh disks ublkd

mkdir mnt
truncate -s 32M image
mkfs.ext4 -q image

# mounts_go_on DEVICE: mount, write, unmount, again and again, until the device is gone.
# Status 1: a write to what was mounted has failed.
mounts_go_on() {
	local i
	for ((i = 0; i < 12; i++)); do
		[[ -b $1 ]] || return 0
		# A gap in which the removal may get in.
		sleep 0.1
		mount "$1" mnt 2>/dev/null || continue
		: >mounted
		{ echo "$i" >mnt/file && sync mnt/file; } || return 1
		umount mnt || return 1
	done
}

# beside_mounts REMOVE...: the command is tried until it succeeds.
beside_mounts() {
	local tries=0 loop
	rm -f mounted
	mounts_go_on "$DEV" &
	loop=$!
	retry 30 test -e mounted || fail "nothing was mounted"
	until timeout -k 5 60 "$@" 2>>refused.err; do
		tries=$((tries + 1))
		((tries < 200)) || fail "never removed: $(tail -n 1 refused.err)"
	done
	wait "$loop" || fail "a file system lost its device after $tries refusals"
	! grep -q "$PWD/mnt" /proc/mounts || fail "it was removed while it was mounted"
	if dmesg | tail -n 200 | grep -q 'potential data loss'; then fail "data was lost"; fi
	echo "$tries refused"
}

for round in 1 2; do
	ublk_start disk "$PWD/image"
	beside_mounts ublkctl remove "$DEV"
	retry 40 lab_gone "$PID" || fail "round $round: the server does not end"
	lab_forget disk
done

ublkd_start
for round in 1 2; do
	export_start data "$PWD/image"
	beside_mounts ublkctl remove data
done
ublkd_stop
