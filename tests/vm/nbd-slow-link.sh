#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# A server that is slow, and a link that is slow and loses packets, are not taken
# for dead.
. /lab/lib.sh disks nbd

# slow [OPTION...]
slow() {
	ublk_start disk "$@" "$URI"
	writer_start --blocks 4000 --threads 16 --ops 20 --flush 5 --fua 5 --zero 5
	writer_ends
	expect 0 "$(gauge reconnects)" "reconnects"
	expect 0 "$(lines 'is lost')" "lines on lost connections"
	ublk_stop disk
	# Block by block over such a link takes minutes: in the server's file.
	promises_kept image
	rm image
	truncate -s 32M image
}

truncate -s 32M image
nbdkit_start delayed unix --filter=delay file image rdelay=200ms wdelay=200ms
slow
slow -o request-timeout=5
server_stop delayed

nbdkit_start remote 10810 file image
defer "tc qdisc del dev lo root 2>/dev/null"
tc qdisc add dev lo root netem delay 20ms 5ms loss 2%
slow --queues 2
tc qdisc del dev lo root
