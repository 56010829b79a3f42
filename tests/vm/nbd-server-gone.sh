#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# The server is gone for good: I/O fails once reconnect-deadline has passed, at once
# with 0, and waits with "forever". When the server is back, so is the device.
. /lab/lib.sh disks nbd

read_one() { timeout -k 5 40 dd if="$DEV" of=/dev/null bs=4k count=1 iflag=direct status=none; }
in_service() { (($(counted queue0.started) > $(counted queue0.completed))); }
# With all its connections: each queue fails until its own is back.
is_well() { gauge_is connected "$(gauge connections)" && read_one 2>/dev/null; }

random_file one 64K
random_file two 64K

# Seconds from the loss; a write that was not flushed is there when it is back.
truncate -s 16M image
nbdkit_start main unix --filter=cache file image cache=writeback
ublk_start disk -o reconnect-deadline=3 "$URI"
fill "$DEV" one
server_kill main
fails_with 'Input/output error' read_one
fails_with 'Input/output error' fill "$DEV" two
# Again, and sooner: the deadline is the server's, not each request's.
fails_with 'Input/output error' read_one
expect 0 "$(gauge connected)" "connections to a server that is gone"
server_start main
retry 30 is_well || fail "still failing with the server back"
# The failed write may have reached it, or not.
dd if="$DEV" bs=64k count=1 iflag=direct status=none of=found
cmp -s found one || cmp -s found two || fail "neither what was written nor what failed"
fill "$DEV" two
sync "$DEV"
holds "$DEV" two
ublk_stop disk
server_stop main
cmp -n 65536 two image || fail "the server's file has not what was flushed"

# At once.
nbdkit_start main unix file image
ublk_start disk -o reconnect-deadline=0 "$URI"
holds "$DEV" two
server_kill main
fails_with 'Input/output error' read_one
server_start main
retry 30 is_well || fail "still failing with the server back"
holds "$DEV" two
ublk_stop disk
server_stop main

# Never: it waits as long as it takes.
nbdkit_start main unix file image
ublk_start disk "$URI"
server_kill main
fill "$DEV" one 2>waiting.err &
waiting=$!
sleep 8
kill -0 $waiting || fail "a write has ended without a server: $(cat waiting.err)"
server_start main
retry 30 lab_gone $waiting || fail "the write still waits with the server back"
wait $waiting || fail "the write that waited: $(cat waiting.err)"
holds "$DEV" one
ublk_stop disk

# The device can be ended while the server is gone: a first signal waits with the
# I/O that waits, a second one does not, and then that gets an error.
ublk_start disk --queues 1 "$URI"
server_kill main
retry 30 gauge_is connected 0 || fail "the loss was not seen"
read_one 2>waiting.err &
waiting=$!
retry 30 in_service || fail "no read is in service"
kill -TERM "$PID"
sleep 1
kill -0 "$PID" || fail "one signal: the read that waits is given up"
kill -TERM "$PID"
retry 40 lab_gone "$PID" || fail "two signals: the device does not end without its server"
wait "$PID" || true
lab_forget disk
retry 30 lab_gone $waiting || fail "a read waits for a device that is gone"
if wait $waiting; then fail "a read of a device without a server was well"; fi
