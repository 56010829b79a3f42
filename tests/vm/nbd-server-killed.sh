#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=6.12
#
# The server dies (SIGKILL) again and again under writers, and comes back, at once
# or after five seconds: no application hears of it, and nothing is lost.
. /lab/lib.sh disks nbd

# soon_back ABSENCE: after an absence of five seconds R5 wants the connection to be back
# within two of the server's return; the lab is slow, and is given one more.
soon_back() {
	local away
	says 'is back after'
	away=$(sed -n 's/.* is back after \([0-9]*\)\.[0-9]* s$/\1/p' disk.err | sort -n | tail -n 1)
	echo "back after $away s, the server was away for $1"
	((away < 10)) || fail "a connection is back only after $away s"
}

more_reconnects() { (($(gauge reconnects) > $1)); }

# killed_often WHERE ABSENCE ARGUMENTS...: ABSENCE is for how many seconds the server
# is away, the first time.
killed_often() {
	local where=$1 absence=$2 i before
	shift 2
	rm -f image
	truncate -s 64M image
	nbdkit_start main "$where" file image
	ublk_start disk "$@" "$URI"
	writer_start --blocks 2000 --threads 8 --ops 1000000 --flush 2 --fua 2 --zero 2
	for i in 1 2 3; do
		writer_goes_on 100
		before=$(gauge reconnects)
		server_kill main
		((i > 1)) || sleep "$absence"
		server_start main
		retry 20 more_reconnects "$before" || fail "not connected again"
		((i > 1)) || soon_back "$absence"
	done
	writer_goes_on 100
	writer_stop
	expect 0 "$(counted write.failed)" "failed writes"
	expect 0 "$(counted flush.failed)" "failed flushes"
	retry 20 gauge_is connected "$(gauge connections)" || fail "$(gauge connected) connections"
	(($(lines 'is back') >= 3)) || fail "$(lines 'is back') connections were said to be back"
	promises_kept "$DEV"
	ublk_stop disk
	server_stop main
	promises_kept image
}

killed_often unix 5
killed_often 10810 0 --queues 2 -o connections=4
