#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=240
#
# A device that is mounted when a worker starts, its own or another's: no worker's
# mount namespace keeps it. It is unmounted, checked and removed, and nobody waits
# for ever, whatever was killed meanwhile.
. /lab/lib.sh disks ublkd

mnt=$PWD/mnt
mkdir mnt

# in_use: fio writes to files of the file system, and verifies them.
in_use() {
	nice -n 19 fio --directory="$mnt" --size=4M --rw=randwrite --bs=4k-64k --verify=crc32c \
		--verify_fatal=1 --loops=100000 --randrepeat=0 --minimal --fsync=64 \
		--name=buffered --name=direct --direct=1 >mounted.fio 2>&1 &
	fio=$!
	defer "kill $fio 2>/dev/null"
	retry 60 has_children "$fio" || fail "no load: $(cat mounted.fio)"
	load_device[disk]=$dev
	retry 20 has_done disk $(($(done_by disk) + 50)) || fail "no load: $(cat mounted.fio)"
}

out_of_use() {
	retry 20 has_done disk $(($(done_by disk) + 50)) || fail "it stands still"
	kill "$fio"
	retry 30 lab_gone "$fio" || fail "fio does not end"
	expect '0 0 ' "$(sed -n 's/^3;//p' mounted.fio | cut -d';' -f4 | tr '\n' ' ')" \
		"fio: $(cat mounted.fio)"
}

nobody_waits() { ps -eo stat,pid,comm | awk '/^D/ { print; found = 1 } END { exit found }'; }

# let_go: unmounted at once, whole, and held by nobody.
let_go() {
	timeout -k 5 30 umount "$mnt" || fail "it cannot be unmounted"
	expect '[]' "$(about disk .holders | tr -d ' \n')" "holders"
	e2fsck -fn "$dev" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
	# This one would not get it while it is mounted, wherever that is.
	e2fsck -fp "$dev" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
	retry 20 nobody_waits || fail "somebody waits"
}

scratch_fs 512M
ublkd_start
export_start disk "$SCRATCH/image" --create 128M
dev=$DEV
mkfs.ext4 -q "$dev"

echo "at $SECONDS s: mounted when its worker starts"
mount "$dev" "$mnt"
in_use
worker_kill disk
out_of_use
let_go

echo "at $SECONDS s: a new worker, and that one dies"
mount "$dev" "$mnt"
in_use
ublkctl upgrade disk
kill -KILL "$(worker_of disk)"
out_of_use
let_go

echo "at $SECONDS s: mounted when others' workers start"
mount "$dev" "$mnt"
export_start memory memory:64M
export_start inner "$mnt/image" --create 64M
load_start inner
load_goes_on inner
worker_kill memory
worker_kill inner
worker_kill disk
load_goes_on inner
load_stop inner
refuses 1 "$mnt" remove disk
ublkctl remove inner
let_go
ublkctl remove disk
[[ ! -e $dev && ! -e ${dev/ublkb/ublkc} ]] || fail "left $dev"
state_is memory live || fail "memory: $(state_of memory)"
ublkd_stop
retry 10 nobody_waits || fail "somebody waits"
e2fsck -fn "$SCRATCH/image" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
