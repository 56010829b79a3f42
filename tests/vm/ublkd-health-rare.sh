#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest timeout=240
#
# The kinds of trouble that take a misbehaving server or disk, in list, show, log and history:
# one of two connections lost, an old connection that the server keeps, an upgrade that cannot
# be, a flush that failed.
. /lab/lib.sh disks nbd ublkd

# arm [FAULT...]: from now on the server does these, and no others.
armed() { (($(grep -c '^armed' faulty.server) >= $1)); }
arm() {
	local before
	before=$(grep -c '^armed' faulty.server || true)
	echo "$*" >&8
	retry 10 armed $((before + 1)) || fail "'$*' is not armed: $(cat faulty.server)"
}

put() { dd if=/dev/zero of="$DEV" bs=4k count=1 seek="$1" oflag=direct status=none; }

ublkd_start

echo "at $SECONDS s: one of two connections is lost"
truncate -s 64M image
mkfifo -m 600 control
exec 8<>control
server_set faulty unix nbd-fault --multi-conn --control control "$PWD/faulty.sock" "$PWD/image"
server_start faulty
export_start two "$URI" --queues 2 -o connections=2
expect 2 "$(about two '.facts.connected')" "connections"
arm cut:write+0 hang:hello+0@all
put 0
ails two degraded connections '1 of 2 connections'
put 1
arm
is_well two
timeout -k 5 60 ublkctl remove two

echo "at $SECONDS s: the server keeps a connection that was given up"
arm
export_start old "$URI" -o request-timeout=1s
arm hang:write+0
put 0 &
writer=$!
ails old waiting old-connection 'given up with writes in flight'
server_kill faulty
server_start faulty
wait "$writer" || fail "the write has failed"
is_well old
timeout -k 5 60 ublkctl remove old
exec 8<&-

echo "at $SECONDS s: an upgrade cannot be"
nbdkit_start main unix memory 64M
export_start remote "$URI"
worker=$(worker_of remote)
server_freeze main
refused timeout -k 5 90 ublkctl upgrade remote
ails remote degraded upgrade ''
expect "$worker" "$(worker_of remote)" "the worker after an upgrade that was refused"
server_thaw main
timeout -k 5 90 ublkctl upgrade remote
is_well remote
timeout -k 5 60 ublkctl remove remote

echo "at $SECONDS s: a flush fails"
truncate -s 32M backing
loop=$(losetup -f --show backing)
sectors=$((32 << 11))
dmsetup create bad --table "0 $sectors linear $loop 0"
defer "dmsetup remove bad; losetup -d $loop"
export_start disk /dev/mapper/bad
dd if=/dev/urandom of="$DEV" bs=1M count=1 status=none conv=fsync
dmsetup suspend --nolockfs bad
dmsetup load bad --table "0 $sectors flakey $loop 0 0 3600 1 error_writes"
dmsetup resume bad
dd if=/dev/urandom of="$DEV" bs=1M count=1 status=none conv=fsync 2>/dev/null && fail "a flush succeeded"
ails disk failing flush-failed 'a flush failed'
timeout -k 5 60 ublkctl remove disk --force
ublkd_stop
