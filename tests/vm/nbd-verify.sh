#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=240 once=6.12
#
# What is written to an NBD server is what is read back, by each server and kind
# of socket: nbdkit, qemu-nbd, the reference server; and it is in the server's file. Each
# also with structured replies.
. /lab/lib.sh disks nbd

# well_served [ARGUMENTS...]: of the server at $URI.
well_served() {
	echo "at $SECONDS s: $URI"
	ublk_start disk "$@" "$URI"
	writer_start --blocks 2048 --threads 8 --ops 100 --flush 3 --fua 3 --zero 3
	writer_ends
	promises_kept "$DEV"
	expect 0 "$(gauge reconnects)" "$*: reconnects"
	expect 0 "$(counted error.EIO)" "$*: errors"
}

# The one that takes longest to start.
truncate -s 64M reference
nbd_server_start reference 10811 "$PWD/reference" 'flush = true' 'fua = true' 'trim = true'
reference_uri=$URI

# Also the data itself, by fio and by a file system.
nbdkit_start memory unix memory 64M
well_served
ublk_stop disk
for path in $(io_paths); do
	[[ $path != zero-copy ]] || continue
	for structured in off on; do
		ublk_start disk --io-path "$path" -o structured=$structured "$URI"
		fio_verify "$DEV"
		ublk_stop disk
	done
done
server_stop memory

nbdkit_start tcp 10810 memory 64M
well_served --queues 2
ublk_stop disk
server_stop tcp

truncate -s 512M image
nbdkit_start file unix file image
well_served --queues 2
ublk_stop disk
promises_kept image
# Most of it are holes.
ublk_start disk -o structured=on "$URI"
file_system_holds "$DEV"
ublk_stop disk
server_stop file
e2fsck -fn image >fsck.out 2>&1 || fail "e2fsck of the server's file: $(cat fsck.out)"

qemu-img create -q -f qcow2 image.qcow2 64M
qemu_nbd_start qemu unix --shared=4 --format=qcow2 --discard=unmap image.qcow2
well_served --queues 2
fio_verify "$DEV"
ublk_stop disk
well_served --queues 2 -o structured=on
ublk_stop disk
server_stop qemu
qemu-img check -q image.qcow2 || fail "qemu-img finds image.qcow2 damaged"

echo "at $SECONDS s: waiting for nbd-server"
nbd_server_greets 10811
URI=$reference_uri
well_served
ublk_stop disk
well_served -o structured=on
ublk_stop disk
server_stop reference
promises_kept reference
echo "at $SECONDS s: done"
