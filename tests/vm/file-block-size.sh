#!/bin/bash
# SPDX-License-Identifier: MIT
#
# An image reads the same wherever it lies: partitions and file systems that were made
# with blocks of 512 are found on a disk that takes direct I/O in blocks of 4096 only, and
# what was made with 4096 is found on a disk of 512. A warning names the page cache.
. /lab/lib.sh disks

# disk_of BLOCK: an ext4 on a disk with blocks of this size, mounted at host$BLOCK.
disk_of() {
	local loop
	truncate -s 256M "backing$1"
	loop=$(losetup -f --show -b "$1" "backing$1" 2>/dev/null)
	defer "losetup -d $loop"
	mkfs.ext4 -q -b 4096 "$loop"
	mkdir "host$1"
	mount "$loop" "host$1"
	defer "umount '$PWD/host$1'"
}

# partitions: start and size of each, in units of 512.
partitions() {
	local p dir
	dir=$(sysfs_of "$DEV")
	for p in "$dir"/"${DEV##*/}"p*; do
		[[ ! -e $p ]] || echo "$(cat "$p/start")+$(cat "$p/size")"
	done
}

has_partitions() { [[ $(partitions | wc -l) == 2 ]]; }

# seen IMAGE DISK BLOCK [OPTION...]: what is in it, by its device on that disk.
seen() {
	local image=$1 disk=$2 block=$3
	shift 3
	ublk_start disk "$@" "$PWD/host$disk/$image"
	expect "$block" "$(sysfs_of "$DEV" queue/logical_block_size)" "$image on $disk: blocks"
	case $image in
	*mbr | *gpt)
		retry 10 has_partitions ||
			fail "$image on $disk: partitions: $(partitions)"
		expect '2048+8192 20480+8192' "$(partitions | xargs)" "$image on $disk"
		;;
	xfs*)
		mkdir -p mnt
		mount -t xfs "$DEV" mnt || fail "$image on $disk does not mount"
		cmp mnt/lib.sh /lab/lib.sh || fail "$image on $disk: its content"
		umount mnt
		;;
	esac
	warned=$(grep -c 'page cache' disk.err || true)
	dd if="$DEV" of=/dev/null bs=4k count=1 iflag=direct status=none
	ublk_stop disk
}

disk_of 512
disk_of 4096

truncate -s 64M host512/mbr host512/gpt
printf 'label: dos\nstart=2048,size=8192\nstart=20480,size=8192\n' | sfdisk -q host512/mbr
printf 'label: gpt\nstart=2048,size=8192\nstart=20480,size=8192\n' | sfdisk -q host512/gpt
# A GPT for 4096, and XFS of either kind, made on devices that have such blocks.
truncate -s 64M host512/4k-gpt
ublk_start made --block-size 4096 "$PWD/host512/4k-gpt"
printf 'label: gpt\nstart=256,size=1024\nstart=2560,size=1024\n' | sfdisk -q "$DEV"
ublk_stop made
for sector in 512 4096; do
	truncate -s 64M "host512/xfs$sector"
	ublk_start made --block-size "$sector" "$PWD/host512/xfs$sector"
	mkfs.xfs -q -f --unsupported -s size="$sector" "$DEV" 2>mkfs.err ||
		mkfs.xfs -q -f -s size="$sector" "$DEV" || fail "mkfs.xfs: $(cat mkfs.err)"
	mkdir -p mnt
	mount -t xfs "$DEV" mnt
	cp /lab/lib.sh mnt
	umount mnt
	ublk_stop made
done
sync
cp --sparse=always host512/{mbr,gpt,4k-gpt,xfs512,xfs4096} host4096

for image in mbr gpt xfs512; do
	seen "$image" 512 512
	expect 0 "$warned" "$image on 512: lines on the page cache"
	seen "$image" 4096 512
	expect 1 "$warned" "$image on 4096: lines on the page cache"
done
for image in 4k-gpt xfs4096; do
	for disk in 512 4096; do
		seen "$image" "$disk" 4096
		expect 0 "$warned" "$image on $disk: lines on the page cache"
	done
done

# A new image is like any other; what was asked for counts.
ublk_start new --create 16M "$PWD/host4096/new"
expect 512 "$(sysfs_of "$DEV" queue/logical_block_size)" "a new image"
grep -q 'warning.*page cache.*block-size=4096' new.err || fail "no warning: $(cat new.err)"
ublk_stop new
ublk_start new --block-size 4096 "$PWD/host4096/new"
expect 4096 "$(sysfs_of "$DEV" queue/logical_block_size)" "as asked for"
! grep -q 'page cache' new.err || fail "direct I/O was not used"
ublk_stop new
refuses 1 'block-size' run -o direct=on "$PWD/host4096/new"

# Through the page cache a flush and a FUA write reach the disk all the same.
loop=$(findmnt -n -o SOURCE host4096)
random_file host4096/flushed 4M
sync
ublk_start disk "$PWD/host4096/flushed"
for kind in --fdatasync=1 --sync=dsync; do
	before=$(flushes "$loop")
	fio --name=w --filename="$DEV" --direct=1 --ioengine=libaio --rw=write --bs=512 --size=10k \
		--minimal "$kind" >fio.out 2>&1 || fail "fio: $(cat fio.out)"
	(($(flushes "$loop") - before >= 20)) ||
		fail "$kind: $(($(flushes "$loop") - before)) flushes, not 20"
done
ublk_stop disk

# Preallocated space stays so where discards are off.
fallocate -l 8M host512/full
ublk_start disk -o discard=off "$PWD/host512/full"
expect 0 "$(sysfs_of "$DEV" queue/discard_max_bytes)" "discard=off: discards"
random_file data 8M
fill "$DEV" data
fails blkdiscard "$DEV"
blkdiscard -z -o 1M -l 1M "$DEV"
fallocate -p -o 2M -l 1M "$DEV"
zero_in data $((1 << 20)) $((2 << 20))
holds "$DEV" data "discard=off: zeroed"
(($(stat -c '%b * %B' host512/full) >= 8 << 20)) || fail "discard=off: blocks were given back"
ublk_stop disk
# tmpfs has no ZERO_RANGE: holes serve.
head -c 8M data >tmp
ublk_start disk "$PWD/tmp"
expect $((1 << 30)) "$(sysfs_of "$DEV" queue/write_zeroes_max_bytes)" "tmpfs: write-zeroes"
fallocate -p -o 4M -l 1M "$DEV"
zero_in data $((4 << 20)) $((1 << 20))
fallocate -z -o 6M -l 1M "$DEV"
zero_in data $((6 << 20)) $((1 << 20))
holds "$DEV" data "tmpfs: zeroed"
expect $((7 << 20)) "$(($(stat -c '%b * %B' tmp)))" "tmpfs: bytes used"
ublk_stop disk
