#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 programs=mkfs.btrfs,btrfs
#
# Another file with the inode number of the one that a device was made for, a snapshot, or
# another disk at the same device number is refused; the very same file is known again
# after a new mount of its file system, and the same disk by its identifier. An
# administrator may accept what cannot be shown to be the same. What --persist records
# holds for the next start, and where it cannot be written no device is made.
. /lab/lib.sh disks ublkd

# marked DEVICE|FILE WORD, has_mark DEVICE WORD
marked() { printf '%-4096s' "$2" | dd of="$1" bs=4k count=1 conv=notrunc,fsync status=none; }
has_mark() {
	local got
	got=$(dd if="$1" bs=4k count=1 iflag=direct status=none | tr -d ' ')
	expect "$2" "$got" "$1 holds"
}

# goes_on NAME MARK: after what was done to its storage while it was suspended.
goes_on() {
	timeout -k 5 40 ublkctl resume "$1" || fail "$1 does not go on"
	has_mark "$(device_of "$1")" "$2"
}
suspend() { timeout -k 5 40 ublkctl suspend "$1" || fail "$1 is not suspended"; }

# same_number FILE: removes it and makes another with its inode number.
same_number() {
	local number
	number=$(stat -c %i "$1")
	rm "$1"
	for _ in $(seq 50); do
		truncate -s 16M "$1"
		[[ $(stat -c %i "$1") != "$number" ]] || return 0
		mv "$1" "$1.$RANDOM"
	done
	fail "no file gets inode number $number again"
}

# remount DEVICE TYPE: mounts it anew, with another anonymous device number.
remount() {
	umount mnt
	mkdir -p taken
	mount -t ramfs none taken
	mount -t "$2" "$1" mnt
	umount taken
}

# ublkd is ended before what its exports are on, and so started after it.
ram_disks 192M 2
mkdir ext4 mnt
mkfs.ext4 -q /dev/ram0
mount /dev/ram0 ext4
defer "cd /; umount '$PWD/ext4'; ram_disks 1G"
mkfs.btrfs -q /dev/ram1
mount -t btrfs /dev/ram1 mnt
defer "umount '$PWD/mnt'"
truncate -s 48M fat-disk
fat=$(losetup -f --show fat-disk)
defer "losetup -d $fat"
truncate -s 16M disk1 disk2
ublkd_start

echo "at $SECONDS s: another file with the same inode number"
image=$PWD/ext4/image
export_start one "$image" --create 16M --persist
marked "$DEV" first
suspend one
goes_on one first
suspend one
cp "$image" ext4/right
same_number "$image"
marked "$image" other
refuses 1 'created later' resume one
refuses 1 'with accept-storage' resume one
ublkd_kill
ublkd_start
refuses 1 'not what the device was created for' resume one
timeout -k 5 40 ublkctl resume --accept-storage one
has_mark "$DEV" other
ublkd_says 'accepting other storage'
# It is the device's from then on, and what comes after it is not.
worker_kill one
has_mark "$DEV" other
suspend one
same_number "$image"
refuses 1 'not what the device was created for' resume one
suspend one
truncate -s 8M "$image"
refuses 1 'smaller' resume --accept-storage one
suspend one
truncate -s 16M "$image"
refuses 1 'not what the device was created for' resume one
timeout -k 5 40 ublkctl resume --accept-storage one

echo "at $SECONDS s: what was recorded"
grep -qx 'block-size = 512' config/exports.d/one.conf || fail "$(cat config/exports.d/one.conf)"
expect "$DEV" "$(ublkctl export --persist --create 16M one="$image")" 'asked for again'
ublkctl reload
! grep -q 'differs from the running export' ublkd.err || fail 'the file declares another export'

echo "at $SECONDS s: btrfs, mounted anew"
btrfs -q subvolume create mnt/vol
export_start two "$PWD/mnt/vol/image" --create 16M
marked "$DEV" first
suspend two
before=$(stat -c %d mnt/vol/image)
remount /dev/ram1 btrfs
[[ $(stat -c %d mnt/vol/image) != "$before" ]] || fail 'the device number is the same'
goes_on two first
suspend two
btrfs -q subvolume snapshot mnt/vol mnt/snap
mv mnt/vol mnt/old
mv mnt/snap mnt/vol
refuses 1 'not what the device was created for' resume two
mv mnt/vol mnt/snap
mv mnt/old mnt/vol
goes_on two first
suspend two
mv mnt/vol/image mnt/vol/right
truncate -s 16M mnt/vol/image
refuses 1 'not what the device was created for' resume two
mv mnt/vol/right mnt/vol/image
goes_on two first
timeout -k 5 40 ublkctl remove two
retry 10 umount mnt 2>/dev/null || umount mnt

echo "at $SECONDS s: FAT, mounted anew"
busybox mkdosfs "$fat" >/dev/null
mount -t vfat "$fat" mnt
export_start three "$PWD/mnt/image" --create 16M
marked "$DEV" first
suspend three
remount "$fat" vfat
goes_on three first
suspend three
rm mnt/image
truncate -s 16M mnt/image
refuses 1 'not what the device was created for' resume three
timeout -k 5 40 ublkctl remove three

echo "at $SECONDS s: disks"
loop=$(losetup -f --show disk1)
export_start four "$loop"
marked "$DEV" first
suspend four
losetup -d "$loop"
losetup "$loop" disk2
refuses 1 'another disk' resume four
timeout -k 5 40 ublkctl remove four
dm() { dmsetup create lab --uuid "$1" --noudevsync --table "0 16384 linear $loop 0"; }
dm LAB-1
export_start five /dev/mapper/lab --persist
grep -qx 'disk = LAB-1' config/exports.d/five.conf || fail "$(cat config/exports.d/five.conf)"
marked "$DEV" dm
suspend five
dmsetup remove lab
dm LAB-1
goes_on five dm
suspend five
dmsetup remove lab
dm LAB-2
refuses 1 'another disk' resume five
# At the next start the path alone does not decide either.
suspend five # no try of its own has the disk open meanwhile
refuses 1 'LAB-1' run -o disk=LAB-1 /dev/mapper/lab
timeout -k 5 40 ublkctl remove five
dmsetup remove lab
losetup -d "$loop"

echo "at $SECONDS s: --persist that cannot be written"
before=$(ls /sys/block)
mount --bind config config
mount -o remount,bind,ro config
refuses 1 'not created now' export --persist six=null:1M
umount config
mount -t tmpfs -o size=4k none config/exports.d
head -c 4k /dev/zero >config/exports.d/.full
refuses 1 'not created now' export --persist six=null:1M
umount config/exports.d
mkdir config/exports.d/six.conf
refuses 2 'not created now' export --persist six=null:1M
rmdir config/exports.d/six.conf
expect "$before" "$(ls /sys/block)" 'block devices'
refuses 1 'no export' show six
export_start six null:1M --persist
