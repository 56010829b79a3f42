#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=none timeout=180
#
# A flush, a zeroing and a discard that take the server four times request-timeout: each
# reaches the server once and succeeds, over a Unix socket and over TCP. A server that
# serves one request at a time and negotiates no connection meanwhile cannot be told from
# a stopped one: its flush is given up once, and then has the time that it takes.
. /lab/lib.sh disks nbd

# slow_start WHERE SECONDS [ARGUMENT]
slow_start() {
	: >requests
	nbdkit_start slow "$1" eval get_size='echo 64M' can_write='exit 0' can_flush='exit 0' \
		can_trim='exit 0' can_zero='exit 0' pread="head -c \$3 /dev/zero" \
		pwrite='cat >/dev/null' flush="echo flush >>'$PWD/requests'; sleep $2" \
		zero="echo zero >>'$PWD/requests'; sleep $2" \
		trim="echo trim >>'$PWD/requests'; sleep $2" ${3:+"$3"}
}

for where in unix 10809; do
	slow_start "$where" 8 thread_model='echo parallel'
	ublk_start disk --queues 1 -o request-timeout=2 "$URI"
	dd if=/dev/zero of="$DEV" bs=4k count=1 oflag=direct status=none
	sync "$DEV" || fail "$where: a slow flush fails"
	blkdiscard -z -l 1M "$DEV" || fail "$where: a slow zeroing fails"
	blkdiscard -l 1M "$DEV" || fail "$where: a slow discard fails"
	expect 1 "$(grep -c flush requests)" "$where: flushes at the server"
	expect 1 "$(grep -c zero requests)" "$where: zeroings at the server"
	expect 1 "$(grep -c trim requests)" "$where: discards at the server"
	expect 0 "$(gauge reconnects)" "$where: reconnects"
	expect 0 "$(lines 'is lost')" "$where: lines on lost connections"
	says 'waiting on' 1
	ublk_stop disk
	server_stop slow
done

slow_start unix 5
ublk_start disk --queues 1 -o request-timeout=3 "$URI"
dd if=/dev/zero of="$DEV" bs=4k count=1 oflag=direct status=none
timeout 100 sync "$DEV" || fail "a flush of a serial server does not end"
sent=$(grep -c flush requests)
((sent <= 3)) || fail "the flush was carried out $sent times"
ublk_stop disk
