#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=240
#
# An export in use is not removed, and who uses it is named; by force it is, and with
# --wait as soon as it can be. What is gone cannot be removed once more. A
# device that another program serves is listed, described, and left alone.
. /lab/lib.sh disks ublkd

# is_busy WORDS: refused, with these words, and it serves on.
is_busy() {
	local pid
	pid=$(worker_of disk)
	refuses 1 "$1" remove disk
	expect "live $pid" "$(about disk '.export | "\(.state) \(.pid)"')" "state, worker"
	dd if="$dev" of=/dev/null bs=1M count=1 iflag=direct status=none
}

is_gone() {
	[[ ! -e $dev && ! -e ${dev/ublkb/ublkc} && ! -e /dev/ublk/disk ]] || fail "$dev is left"
	refuses 1 'no export' show disk
	refuses 1 "no export 'disk'" remove disk
	refuses 1 "no export '$dev'" remove "$dev"
}

disk() {
	export_start disk "$SCRATCH/image"
	dev=$DEV
	expect "$dev" "$(readlink -f /dev/ublk/disk)" "the link"
}

scratch_fs 256M
truncate -s 64M "$SCRATCH/image"
ublkd_start

echo "at $SECONDS s: other programs' devices"
ublk_start foreign memory:64M
foreign=$DEV
expect "foreign $(ublk_pid foreign)" \
	"$(ublkctl list --json | jq -r --arg dev "$foreign" '.[] | select(.device == $dev) | "\(.origin) \(.pid)"')" \
	"the foreign one"
ublkctl show "$foreign" >shown
for words in "$foreign: foreign" 'program            ublkctl' 'size               64M' \
	"in use by          nobody" "kernel's state     live"; do
	grep -qF -- "$words" shown || fail "show of a foreign device lacks '$words': $(cat shown)"
done
disk

echo "at $SECONDS s: open"
exec 5<"$dev"
is_busy "process $$"
exec 5<&-
echo "at $SECONDS s: mounted"
mkfs.ext4 -q "$dev"
mkdir mnt
mount "$dev" mnt
is_busy "$PWD/mnt"
mkdir mnt/more
mount --bind mnt/more /mnt
umount mnt
is_busy /mnt
umount /mnt
echo "at $SECONDS s: swapped on"
mkswap "$dev" >/dev/null
swapon "$dev"
is_busy swap
swapoff "$dev"
echo "at $SECONDS s: held by another device"
dmsetup create over --table "0 1024 linear $dev 0"
is_busy dm-
dmsetup remove over
losetup /dev/loop0 "$dev"
is_busy loop0
losetup -d /dev/loop0

echo "at $SECONDS s: removed"
timeout -k 5 60 ublkctl remove disk
is_gone

echo "at $SECONDS s: waited for"
disk
exec 5<"$dev"
timeout -k 5 100 ublkctl remove disk --wait 2>wait.out 5<&- &
waits=$!
retry 30 grep -q "waiting: .*process $$" wait.out ||
	fail "it does not say what it waits for: $(cat wait.out)"
kill -0 "$waits" || fail "it did not wait: $(cat wait.out)"
state_is disk live || fail "state $(state_of disk)"
exec 5<&-
retry 30 lab_gone "$waits" || fail "it waits for ever"
wait "$waits" || fail "it failed: $(cat wait.out)"
is_gone

echo "at $SECONDS s: by force, under load"
# Nothing of what was there before may be taken for what the load has written.
rm "$SCRATCH/image"
truncate -s 64M "$SCRATCH/image"
disk
load_start disk
load_goes_on disk
timeout -k 5 60 ublkctl remove disk --force
retry 30 lab_gone "${load_writer[disk]}" || fail "the writer does not end"
retry 30 lab_gone "${load_fio[disk]}" || fail "fio does not end"
if wait "${load_writer[disk]}"; then fail "the writer has heard of no error"; fi
if wait "${load_fio[disk]}"; then fail "fio has heard of no error"; fi
retry 10 test ! -e "$dev"
is_gone
promise_kept disk "$SCRATCH/image"

echo "at $SECONDS s: by force, mounted"
disk
mkfs.ext4 -q "$dev"
mount "$dev" mnt
timeout -k 5 60 ublkctl remove disk --force
timeout -k 5 30 umount mnt
retry 10 test ! -e "$dev"
is_gone

echo "at $SECONDS s: all, and not the others' device"
disk
exec 5<"$dev"
refused timeout -k 5 60 ublkctl shutdown --remove
exec 5<&-
state_is disk live || fail "state $(state_of disk)"
ublkd_stop
dd if="$foreign" of=/dev/null bs=1M count=1 iflag=direct status=none
ublk_stop foreign
