#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 once=newest
#
# A write that a killed worker had sent, and that its NBD server holds back, does not
# land on a newer one of the same block: no worker serves before the server has ended
# the old connection. ublkd tells why, and meanwhile recovers other exports and removes
# this one if asked to. Over a Unix socket and over TCP.
. /lab/lib.sh disks nbd ublkd

put() { # LETTER: a block of it, directly
	head -c 4096 /dev/zero | tr '\0' "$1" | dd of="$device" bs=4096 count=1 oflag=direct status=none
}

# The first write of all waits for "release", those after it do not.
start_server() { # NAME WHERE
	rm -rf held release back
	truncate -s 64M back
	nbdkit_start "$1" "$2" eval thread_model='echo parallel' get_size='echo 64M' \
		can_write='exit 0' can_flush='exit 0' flush='exit 0' \
		pread="dd if='$PWD/back' bs=4096 iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
		pwrite="if mkdir '$PWD/held'; then
				for i in \$(seq 1200); do [ ! -e '$PWD/release' ] || break; sleep 0.1; done
			fi 2>/dev/null
			dd of='$PWD/back' conv=notrunc oflag=seek_bytes seek=\$4 status=none"
}

# lose_worker NAME: with a write that the server holds. Sets writer, which goes on to
# another one.
lose_worker() {
	ublkctl export "$1=$URI" --queues 1 >device
	device=$(<device)
	{ put A && put B; } &
	writer=$!
	retry 30 test -d held || fail "$1: the server has not been asked to write"
	kill -KILL "$(worker_of "$1")"
	retry 30 reason_says "$1" 'has not closed 1 connections' ||
		fail "$1: the reason is $(reason_of "$1")"
}

try() { # NAME WHERE
	start_server "$1" "$2"
	lose_worker "$1"
	worker_kill memory
	# The fault needs time to show, the right behaviour needs none.
	! retry 7 state_is "$1" live || fail "$1: a worker serves beside the old connection"
	: >release
	wait "$writer" || fail "$1: a write has failed"
	expect B "$(head -c 1 back)" "$1: what the server has in the end"
	expect null "$(reason_of "$1")" "$1: why it is not as it should be"
}

may_wait 120
ublkd_start
ublkctl export memory=memory:16M >/dev/null
try unix unix
try tcp 10809

# The next ublkd knows, and leaves it to the user.
start_server again unix
lose_worker again
ublkd_end
ublkd_start
retry 30 reason_says again 'when ublkd stopped' || fail "the reason is $(reason_of again)"
lab_gone "$writer" && fail "a write has ended that the server holds"
: >release
ublkctl resume again
wait "$writer" || fail "a write has failed"

# It can be removed at any time.
start_server gone unix
lose_worker gone
timeout -k 5 60 ublkctl remove gone --force || fail "it cannot be removed"
wait "$writer" && fail "a write is well that nobody has served"
: >release
ublkd_stop
