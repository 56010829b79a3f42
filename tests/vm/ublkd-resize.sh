#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180
#
# An export is made larger with its file, or follows the file; it is made smaller only
# by force and while nobody has it open. A kernel that cannot do that is said to.
. /lab/lib.sh disks ublkd

MiB=$((1 << 20))
image=

# size_is MIB: the device's, the export's and the file's.
size_is() {
	expect "$(($1 * MiB)) $(($1 * MiB)) $(($1 * MiB))" \
		"$(blockdev --getsize64 "$DEV") $(about disk .export.size) $(stat -c %s "$image")" \
		"sizes of device, export, file"
}

can_resize() {
	ublkctl features --json |
		jq -e '.features | any(.name == "update-size" and .available)' >/dev/null
}

scratch_fs 512M
image=$SCRATCH/image
ublkd_start
export_start disk "$image" --create 64M
size_is 64
if ! can_resize; then
	refuses 1 'cannot resize a live device' resize disk 96M
	size_is 64
	truncate -s 96M "$image"
	refuses 1 'cannot resize a live device' resize disk
	expect $((64 * MiB)) "$(blockdev --getsize64 "$DEV")" "the device's size"
	ublkd_stop
	exit
fi

load_start disk
load_goes_on disk

echo "at $SECONDS s: larger"
timeout -k 5 30 ublkctl resize disk 96M
size_is 96
timeout -k 5 30 ublkctl resize disk 96M
size_is 96
load_goes_on disk
truncate -s 128M "$image"
timeout -k 5 30 ublkctl resize "$DEV"
size_is 128
load_goes_on disk
random_file part 4M
dd if=part of="$DEV" bs=1M seek=124 oflag=direct status=none

echo "at $SECONDS s: smaller, refused"
refuses 1 'open' resize disk 64M
refuses 1 'open' resize disk 64M --force
size_is 128
refuses 2 'block size' resize disk $((160 * MiB + 100))
refuses 2 'size' resize disk 0
size_is 128

# The size is the next worker's as well, and the next ublkd's.
worker_kill disk
load_goes_on disk
ublkd_kill
ublkd_start
size_is 128
load_goes_on disk
load_stop disk
dd if="$DEV" of=/dev/stdout bs=1M skip=124 iflag=direct status=none | cmp - part ||
	fail "not what was written where it has grown"

echo "at $SECONDS s: smaller"
refuses 2 'use force' resize disk 96M
mkfs.ext4 -q "$DEV" 64M
mkdir mnt
mount "$DEV" mnt
refuses 1 "$PWD/mnt" resize disk 96M --force
umount mnt
size_is 128
timeout -k 5 30 ublkctl resize disk 96M --force
size_is 96
timeout -k 5 30 ublkctl resize disk 96M --force
worker_kill disk
size_is 96
e2fsck -fn "$DEV" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
fio_verify "$DEV"

echo "at $SECONDS s: what cannot be"
ram_disk=/dev/ram1
export_start disk-of-its-own $ram_disk
refuses 1 'is a block device' resize disk-of-its-own 32M --force
! grep -q 'disk-of-its-own: resized' ublkd.err || fail "a block device's export was shrunk"
export_start memory memory:64M
refuses 1 '' resize memory 128M
refuses 1 'cannot be resized here' resize memory 32M --force
! grep -q 'memory: resized' ublkd.err || fail "a device that cannot shrink was shrunk"
expect $((64 * MiB)) "$(blockdev --getsize64 "$DEV")" "the memory's size"
refuses 1 'no export' resize nobody 64M
ublkd_stop
