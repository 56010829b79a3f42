#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=6.12
#
# A server that serves in parallel sits on a write while its connection is given up.
# Until the server has ended that connection nothing is written to the same block on
# another one, however long that takes, and I/O elsewhere goes on. So the first write
# never lands on a newer one. Over a Unix socket and over TCP.
. /lab/lib.sh disks nbd

# The first write that comes while "hold" is there waits until "release" is there.
start_server() { # NAME WHERE
	nbdkit_start "$1" "$2" eval thread_model='echo parallel' get_size='echo 1M' \
		can_write='exit 0' can_flush='exit 0' flush='exit 0' can_multi_conn='exit 0' \
		pread="dd if='$PWD/image' bs=64k iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
		pwrite="cd '$PWD'
			cat >data.\$\$
			if rm hold 2>/dev/null; then
				: >held
				for i in \$(seq 1200); do
					[ ! -e release ] || break
					sleep 0.1
				done
				dd if=data.\$\$ of=image bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none
				: >landed
			else
				dd if=data.\$\$ of=image bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none
			fi
			rm data.\$\$"
}

may_wait 120
random_file older 4K
random_file newer 4K
random_file other 4K

try() { # NAME WHERE
	local older newer=
	rm -f held release landed image
	truncate -s 1M image
	start_server "$1" "$2"
	ublk_start disk -o request-timeout=2 "$URI"
	: >hold
	fill "$DEV" older 2>older.err &
	older=$!
	retry 20 test -e held || fail "$1: the first write did not arrive"
	says 'is lost'
	says 'is back'
	timeout -k 5 40 dd if=other of="$DEV" bs=4k seek=16 oflag=direct status=none ||
		fail "$1: a write elsewhere fails or waits"
	timeout -k 5 40 dd if="$DEV" of=seen bs=4k skip=16 count=1 iflag=direct status=none ||
		fail "$1: a read elsewhere fails or waits"
	cmp other seen || fail "$1: a block elsewhere is not as it was written"
	# The fault needs time to show, the right behaviour needs none.
	if retry 9 lab_gone $older; then
		wait $older || fail "$1: the first write: $(cat older.err)"
		timeout -k 5 20 dd if=newer of="$DEV" bs=4k oflag=direct status=none && newer=written
		: >release
		retry 30 test -e landed || fail "$1: the first write did not land"
		[[ ! $newer ]] || holds "$DEV" newer "$1: an older write has come over the newer one"
		fail "$1: the first write has ended before the server had ended its connection"
	fi
	says 'may still carry out (offset+length: 0+4096)'
	expect 1 "$(gauge ghost-writes)" "$1: writes of old connections"
	: >release
	retry 60 lab_gone $older || fail "$1: the first write never ends"
	wait $older || fail "$1: the first write: $(cat older.err)"
	[[ -e landed ]] || fail "$1: the first write was sent again before it had landed"
	says 'goes on'
	expect 0 "$(gauge ghost-writes)" "$1: writes of old connections"
	fill "$DEV" newer
	holds "$DEV" newer "$1: an older write has come over the newer one"
	cmp -n 4096 newer image || fail "$1: the file has not the newer write"
	ublk_stop disk
}

try unix unix
try tcp 10809
