#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180
#
# The server dies (SIGKILL) again and again under writers, and comes back, at once
# or after five seconds: no application hears of it, and nothing is lost.
# shellcheck source=lib.sh
. /lab/lib.sh
# shellcheck source=guest/disks.sh
. /lab/disks.sh
# shellcheck source=guest/nbd.sh
. /lab/nbd.sh

more_reconnects() { (($(gauge reconnects) > $1)); }

# killed_often WHERE ARGUMENTS...
killed_often() {
	local where=$1 i before
	shift
	rm -f image
	truncate -s 64M image
	nbdkit_start main "$where" file image
	ublk_start disk "$@" "$URI"
	writer_start --blocks 2000 --threads 8 --ops 1000000 --flush 2 --fua 2 --zero 2
	for i in 1 2 3 4 5; do
		writer_goes_on 300
		before=$(gauge reconnects)
		server_kill main
		((i > 1)) || sleep 5
		server_start main
		retry 20 more_reconnects "$before" || fail "not connected again"
	done
	writer_goes_on 300
	writer_stop
	expect 0 "$(counted write.failed)" "failed writes"
	expect 0 "$(counted flush.failed)" "failed flushes"
	expect "$(gauge connections)" "$(gauge connected)" "connections"
	(($(lines 'is back') >= 5)) || fail "$(lines 'is back') connections were said to be back"
	promises_kept "$DEV"
	ublk_stop disk
	server_stop main
	promises_kept image
}

killed_often unix
killed_often 10810 --queues 2 -o connections=4
