#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: own-boot smp=4 once=6.12
#
# One connection to a server that does not have multi-conn, whatever was asked for;
# to one that has, one a queue; read-only, likewise. Also after the server was gone.
. /lab/lib.sh disks nbd

nr_queues() { find "$(sysfs_of "$DEV")/mq" -mindepth 1 -maxdepth 1 -type d | wc -l; }
connected() { [[ $(server_connections main) == "$1" ]]; }

# connects CONNECTIONS QUEUES ARGUMENTS...: the server counts.
connects() {
	local count=$1 queues=$2
	shift 2
	ublk_start disk "$@" "$URI"
	retry 10 connected "$count" ||
		fail "$*: $(server_connections main) connections, not $count"
	expect "$count" "$(gauge connections)" "$*: gauge connections"
	expect "$queues" "$(nr_queues)" "$*: queues"
	writer_start --blocks 1000 --threads 8 --ops 80 --flush 3 --fua 3 --zero 3
	writer_goes_on 100
	retry 10 connected "$count" || fail "$*: under load $(server_connections main) connections, not $count"
	server_kill main
	server_start main
	writer_ends
	retry 10 connected "$count" ||
		fail "$*: $(server_connections main) connections after the server was gone, not $count"
	promises_kept "$DEV"
	ublk_stop disk
}

for where in unix 10810; do
	truncate -s 64M image
	nbdkit_start main "$where" --filter=multi-conn file image multi-conn-mode=disable
	connects 1 1 --queues 4
	server_stop main
	rm image
done

# As many as queues, more and fewer.
multi_conn() {
	truncate -s 64M image
	nbdkit_start main unix file image
	connects "$@"
	server_stop main
	rm image
}
multi_conn 4 4 --queues 4
multi_conn 4 2 --queues 2 -o connections=4
multi_conn 2 2 --queues 4 -o connections=2

# Where nothing is written, several connections cannot disagree.
truncate -s 64M image
nbdkit_start main unix --filter=multi-conn file image multi-conn-mode=disable
ublk_start disk --read-only --queues 4 "$URI"
retry 10 connected 4 || fail "read-only: $(server_connections main) connections, not 4"
ublk_stop disk
