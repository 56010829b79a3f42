#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=400 disk=3G mem=768 once=none
#
# A machine whose memory is full of what has to be written to an export: twice as much
# as there is, through a file system on the device, and the worker writes it to another
# one. It comes to its end, also when the worker dies over it, and every thread of the
# worker is marked as one who writes back.
. /lab/lib.sh disks ublkd

# marked: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, which PR_SET_IO_FLUSHER sets, on each
# thread but the kernel's own.
marked() {
	local task name flags
	for task in /proc/"$1"/task/*; do
		# The kernel's come and go.
		name=$(cat "$task/comm" 2>/dev/null) || continue
		[[ $name != iou-* ]] || continue
		flags=$(sed 's/.*) //' "$task/stat" | cut -d' ' -f7)
		((flags & 0x00080000 && flags & 0x00100000)) ||
			fail "$name: flags $(printf '%#x' "$flags"): no I/O flusher"
	done
	(($(awk '$1 == "VmLck:" { print $2 }' "/proc/$1/status") > 0)) || fail "no memory is locked"
}

meminfo() { awk -v field="$1:" '$1 == field { print int($2 / 1024) }' /proc/meminfo; }

mkdir below mnt
mkfs.ext4 -q /dev/vda
mount /dev/vda below
defer "cd /; umount '$PWD/below'"
ublkd_start

# As much as is free may be dirty.
echo 70 >/proc/sys/vm/dirty_ratio
echo 60 >/proc/sys/vm/dirty_background_ratio
free=$(meminfo MemAvailable)
size=$((free * 2))
echo "$free MiB are free, $size MiB are written"
((free > 100 && size < 1300)) || fail "this machine is not what the test was made for"

# pressed NAME [OPTION...]: half of it is left to write when the worker dies.
pressed() {
	local name=$1 i
	echo "at $SECONDS s: $*"
	export_start "$name" "$PWD/below/image" --create 1400M "${@:2}"
	load_device[$name]=$DEV
	marked "$(worker_of "$name")"
	mkfs.ext4 -q "$DEV"
	mount "$DEV" mnt
	fio --directory="$PWD/mnt" --size=$((size / 2))M --bs=1M --rw=write --verify=crc32c \
		--do_verify=0 --minimal --name=one --name=two >fio.out 2>&1 &
	fio=$!
	defer "kill $fio 2>/dev/null"
	for i in 1 2; do
		retry 100 has_done "$name" $(($(done_by "$name") + 50)) || fail "nothing is written"
		worker_kill "$name"
	done
	retry 150 lab_gone "$fio" || fail "fio does not end"
	wait "$fio" || fail "fio: $(cat fio.out)"
	timeout -k 5 100 sync -f mnt || fail "it is not written to the end"
	marked "$(worker_of "$name")"
	expect 2 "$(recoveries_of "$name")" "recoveries"
	timeout -k 5 30 umount mnt
	mount "$DEV" mnt
	fio --directory="$PWD/mnt" --size=$((size / 2))M --bs=1M --rw=write --verify=crc32c \
		--verify_only --verify_fatal=1 --minimal --name=one --name=two >fio.out 2>&1 ||
		fail "fio: $(cat fio.out)"
	umount mnt
	e2fsck -fn "$DEV" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
	timeout -k 5 60 ublkctl remove "$name"
	rm below/image
}

pressed direct
pressed cached -o direct=off
ublkd_stop
