#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest timeout=240
#
# The kinds of trouble that take a misbehaving server or disk, in list, show, log and history:
# one of two connections lost, an old connection that the server keeps, an upgrade that cannot
# be, a flush that failed.
. /lab/lib.sh disks nbd ublkd

# faults [FAULT...]: the server is to have them from now on.
faults() {
	local before
	before=$(grep -cx armed faulty.server || true)
	echo "$*" >&8
	retry 10 are_armed "$before" || fail "not armed: $(cat faulty.server)"
}
are_armed() { (($(grep -cx armed faulty.server) > $1)); }

put() { dd if=/dev/zero of="$DEV" bs=4k count=1 seek="$1" oflag=direct status=none; }

ublkd_start

echo "at $SECONDS s: one of two connections is lost"
truncate -s 64M image
mkfifo -m 600 control
exec 8<>control
server_set faulty unix nbd-fault --multi-conn --control control "$PWD/faulty.sock" "$PWD/image"
server_start faulty
export_start two "$URI" --queues 1 -o connections=2
expect 2 "$(about two '.facts.connected')" "connections"
faults cut:write+0 hang:hello+0@all
put 0
ails two degraded connections '1 of 2 connections'
put 1
faults
is_well two
timeout -k 5 60 ublkctl remove two

echo "at $SECONDS s: a queue has lost its only connection"
export_start queues "$URI" --queues 2 -o connections=2
faults cut:write+0 hang:hello+0@all
taskset -c 0 dd if=/dev/zero of="$DEV" bs=4k count=1 oflag=direct status=none &
writer=$!
ails queues waiting server-away '1 of 2 queues have no connection'
faults
wait "$writer" || fail "the write has failed"
is_well queues
timeout -k 5 60 ublkctl remove queues

echo "at $SECONDS s: the server keeps a connection that was given up"
exec 8<&-
# It sits on the first write, in parallel to others, whatever becomes of the connection.
nbdkit_start keeper unix eval thread_model='echo parallel' get_size='echo 1M' can_write='exit 0' \
	can_flush='exit 0' flush='exit 0' can_multi_conn='exit 0' \
	pread="head -c \$3 /dev/zero" \
	pwrite="cat >/dev/null; if rm '$PWD/hold' 2>/dev/null; then sleep 1000; fi"
export_start old "$URI" -o request-timeout=1s
: >hold
put 0 &
writer=$!
ails old waiting old-connection 'given up with writes in flight'
server_kill keeper
server_start keeper
wait "$writer" || fail "the write has failed"
is_well old
timeout -k 5 60 ublkctl remove old

echo "at $SECONDS s: an upgrade cannot be"
nbdkit_start main unix memory 64M
export_start remote "$URI"
worker=$(worker_of remote)
server_freeze main
# A worker that has a request in flight cannot hand over.
put 0 &
writer=$!
refused timeout -k 5 90 ublkctl upgrade remote
ails remote degraded upgrade ''
expect "$worker" "$(worker_of remote)" "the worker after an upgrade that was refused"
server_thaw main
wait "$writer" || fail "the write has failed"
timeout -k 5 90 ublkctl upgrade remote
retry 30 is_health remote ok || fail "after an upgrade that could be: $(health_of remote)"
timeout -k 5 60 ublkctl remove remote

echo "at $SECONDS s: a flush fails"
truncate -s 32M backing
loop=$(losetup -f --show backing)
sectors=$((32 << 11))
dmsetup create bad --table "0 $sectors linear $loop 0"
defer "dmsetup remove bad; losetup -d $loop"
export_start disk /dev/mapper/bad
dd if=/dev/urandom of="$DEV" bs=1M count=1 status=none oflag=direct
dmsetup suspend --nolockfs bad
dmsetup load bad --table "0 $sectors flakey $loop 0 0 3600 1 error_writes"
dmsetup resume bad
refused sync "$DEV"
ails disk failing flush-failed 'a flush failed'
timeout -k 5 60 ublkctl remove disk --force
ublkd_stop
