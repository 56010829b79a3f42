#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=6.12
#
# The server dies and loses what it had acknowledged and not yet written back. What
# was written and not flushed is sent again; without that (retain=0) the next flush
# fails, once. What a flush has confirmed is in the server's file, always.
. /lab/lib.sh disks nbd

# caching: a server that keeps writes in memory until they are flushed.
caching() {
	rm -f image
	truncate -s 64M image
	nbdkit_start main unix --filter=cache file image cache=writeback
}

# loses_nothing ARGUMENTS...
loses_nothing() {
	caching
	ublk_start disk "$@" "$URI"
	echo "$*: $(gauge connections) connections"
	writer_start --blocks 2000 --threads 8 --ops 1000000 --flush 1 --fua 1 --zero 2
	for _ in 1 2 3; do
		writer_goes_on 100
		server_kill main
		server_start main
	done
	writer_goes_on 100
	writer_stop
	expect 0 "$(counted write.failed)" "failed writes"
	expect 0 "$(counted flush.failed)" "failed flushes"
	(($(gauge replayed) > 0)) || fail "nothing was sent again"
	promises_kept "$DEV"
	# Without its cache the file has what was flushed, and then all of it.
	server_kill main
	promises_kept image
	server_start main
	sync "$DEV"
	expect 0 "$(gauge retained-bytes)" "bytes kept after a flush"
	promises_kept "$DEV"
	dd if="$DEV" of=all bs=1M iflag=direct status=none
	ublk_stop disk
	server_kill main
	cmp all image || fail "after a flush the file is not what the device is"
}

loses_nothing --queues 1
loses_nothing --queues 2

# lost ARGUMENTS...: a write that the server has only in its cache when it dies.
random_file old 64K
random_file new 64K
lost() {
	caching
	ublk_start disk "$@" "$URI"
	fill "$DEV" old
	sync "$DEV"
	dd if=new of="$DEV" bs=64k oflag=direct status=none
	server_kill main
	server_start main
	# Connected again before the flush.
	dd if="$DEV" bs=64k count=1 iflag=direct status=none of=found
}

lost -o retain=64M
cmp found new || fail "a write was lost"
sync "$DEV" || fail "a flush of what was sent again fails"
ublk_stop disk
server_kill main
cmp -n 65536 new image || fail "a flush has confirmed what is not in the file"

lost -o retain=0
cmp found old || fail "retain=0: sent again, or the server loses nothing"
fails_with 'Input/output error' sync "$DEV"
ublk_stop disk
server_kill main

lost -o retain=trust
cmp found old || fail "retain=trust: sent again, or the server loses nothing"
sync "$DEV" || fail "retain=trust: a flush fails"
ublk_stop disk
server_kill main

# retain=0 and nothing unflushed: nothing to tell.
caching
ublk_start disk -o retain=0 "$URI"
fill "$DEV" old
sync "$DEV"
server_kill main
server_start main
sync "$DEV" || fail "retain=0: a flush fails with nothing lost"
holds "$DEV" old
fill "$DEV" new
sync "$DEV"
holds "$DEV" new
ublk_stop disk
server_kill main
cmp -n 65536 new image || fail "a flush has confirmed what is not in the file"
