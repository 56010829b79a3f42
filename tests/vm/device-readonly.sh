#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A read-only device refuses writes, and cannot be made to take them; a file or
# block device exported so is not written to, nor opened for it.
. /lab/lib.sh disks

# writes_refused: in every way that there is.
writes_refused() {
	expect 1 "$(blockdev --getro "$DEV")" "$DEV is read-only"
	fails dd if=/dev/urandom of="$DEV" bs=4k count=4 oflag=direct
	blockdev --setrw "$DEV" 2>error.txt || true
	fails dd if=/dev/urandom of="$DEV" bs=4k count=4 oflag=direct
	fails dd if=/dev/urandom of="$DEV" bs=4k count=4 conv=fsync
	fails blkdiscard "$DEV"
	fails blkdiscard -z "$DEV"
	fails fallocate -p -o 0 -l 4096 "$DEV"
}

# opened_for_reading FILE: no descriptor of the server can write to it.
opened_for_reading() {
	local fd found=no flags
	for fd in /proc/"$PID"/fd/*; do
		[[ $(readlink "$fd") == "$1" ]] || continue
		found=yes
		flags=$(awk '$1 == "flags:" { print $2 }' "/proc/$PID/fdinfo/${fd##*/}")
		((8#$flags % 4 == 0)) || fail "$1 is open with flags $flags"
	done
	expect yes "$found" "$1 is open"
}

for uri in null:8M memory:8M; do
	serve auto --read-only "$uri"
	head -c 8M /dev/zero >want
	writes_refused
	holds "$DEV" want
	ublk_stop disk
done

ram_disks 8M
mkfs.ext4 -q /dev/ram0
mkdir mnt
mount /dev/ram0 mnt
cp /lab/lib.sh mnt/
umount mnt
head -c 8M /dev/ram0 >want
chmod 444 want
before=$(stat -c '%Y %Z %s %b' want)
for what in "$PWD/want" /dev/ram0; do
	serve auto --read-only "$what"
	opened_for_reading "$what"
	writes_refused
	mount -o ro "$DEV" mnt
	cmp /lab/lib.sh mnt/lib.sh || fail "$what: mounted, it is another"
	fails touch mnt/new
	umount mnt
	holds "$DEV" want
	ublk_stop disk
done
cmp want /dev/ram0 || fail "the block device changed"
expect "$before" "$(stat -c '%Y %Z %s %b' want)" "the file's times and sizes"

# A file that cannot be written can be exported read-only, and only so.
scratch_fs 32M
random_file "$SCRATCH/image" 4M
mount -o remount,ro "$SCRATCH"
refuses 1 'the option read-only' run "$SCRATCH/image"
serve copy --read-only "$SCRATCH/image"
writes_refused
holds "$DEV" "$SCRATCH/image"
ublk_stop disk
