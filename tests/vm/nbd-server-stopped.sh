#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=6.12
#
# A server that hangs, and a network that carries nothing any more: found after
# request-timeout, connected again when there is one that answers, and nothing lost.
. /lab/lib.sh disks nbd

# under_writers WHERE
under_writers() {
	rm -f image
	truncate -s 64M image
	nbdkit_start main "$1" file image
	ublk_start disk --queues 2 -o request-timeout=3 "$URI"
	writer_start --blocks 2000 --threads 8 --ops 1000000 --flush 2 --fua 2 --zero 2
	writer_goes_on 100
}

# found_lost: seconds, as the requirement has it, and some for the lab.
found_lost() { says 'is lost' 40; }

# all_well WORDS
all_well() {
	writer_goes_on 100
	writer_stop
	(($(gauge reconnects) > 0)) || fail "$1: no reconnect"
	expect 0 "$(counted write.failed)" "$1: failed writes"
	promises_kept "$DEV"
	ublk_stop disk
	server_stop main
	promises_kept image
}

under_writers unix
server_freeze main
found_lost
server_kill main
server_start main
all_well "frozen, replaced"

# What it had read it still does: wlog's sequences tell if that is older than what
# has been written since.
under_writers 10810
server_freeze main
found_lost
server_thaw main
all_well "frozen, thawed"

under_writers 10811
defer "tc qdisc del dev lo root 2>/dev/null"
tc qdisc add dev lo root netem loss 100%
found_lost
tc qdisc del dev lo root
all_well "packets lost"
