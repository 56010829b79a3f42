#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest timeout=240
#
# What is wrong with an export stands where people look: list, show, the log and the history
# say since when, why and what to do, for each kind of trouble, and that it is over.
. /lab/lib.sh disks nbd ublkd

# writes_until_well NAME: writes some; false while that is not enough.
writes_until_well() {
	blkdiscard -o 0 -l 4M "$DEV"
	dd if=/dev/urandom of="$DEV" bs=1M count=4 oflag=direct status=none
	is_health "$1" ok
}

ublkd_start
nbdkit_start main unix memory 64M
export_start remote "$URI"
expect ok "$(health_of remote)" "its health at the start"

ublkctl monitor --json >changes 2>monitor.err &
monitor=$!
defer "kill $monitor 2>/dev/null"
retry 10 test -s changes || fail "the monitor says nothing"
server_kill main
ails remote waiting server-away 'no connection to the server'
retry 10 grep -q '"waiting: no connection' changes || fail "the monitor does not have it"
server_start main
is_well remote
retry 10 grep -q '"ok again"' changes || fail "the monitor does not say that it is over"
server_kill main
ails remote waiting server-away 'no connection to the server'
kill "$monitor"
expect '' "$(jq -c '[.export.name, .change]' changes | sort | uniq -d)" "changes that came twice"
# The next ublkd knows it, too.
ublkd_kill
ublkd_start
retry 20 is_health remote waiting || fail "after a restart: $(health_of remote)"
server_start main
retry 30 is_health remote ok || fail "the server is back: $(health_of remote)"

echo "at $SECONDS s: another export in its place"
server_kill main
nbdkit_set main unix memory 32M
server_start main
ails remote refused other-export 'has shrunk'
server_kill main
nbdkit_set main unix memory 64M
server_start main
is_well remote
timeout -k 5 60 ublkctl remove remote

echo "at $SECONDS s: I/O fails"
export_start brief "$URI" -o reconnect-deadline=1s
server_kill main
dd if="$DEV" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null || true
ails brief failing deadline 'reconnect-deadline'
server_start main
is_well brief
timeout -k 5 60 ublkctl remove brief

echo "at $SECONDS s: no room"
export_start memory memory:64M -o limit=16M
dd if=/dev/urandom of="$DEV" bs=1M count=32 oflag=direct 2>/dev/null || true
ails memory failing memory-full 'ENOSPC'
# Over once nothing was refused for ten seconds.
blkdiscard "$DEV"
retry 30 writes_until_well memory || fail "memory: $(health_of memory)"
is_well memory
timeout -k 5 60 ublkctl remove memory
scratch_fs 64M
export_start file "$SCRATCH/image" --create 256M
dd if=/dev/urandom of="$DEV" bs=1M count=96 oflag=direct 2>/dev/null || true
ails file failing no-space 'ENOSPC'
blkdiscard "$DEV"
retry 30 writes_until_well file || fail "file: $(health_of file)"
is_well file

echo "at $SECONDS s: what a client asked for"
timeout -k 5 60 ublkctl suspend file
tells file waiting suspended 'a client suspended I/O'
grep -q 'file: user 0 (process [0-9]*) asks to suspend' ublkd.err || fail "the log has not who asked"
timeout -k 5 60 ublkctl resume file
expect ok "$(health_of file)" "a resumed export"
timeout -k 5 60 ublkctl remove file
ublkd_stop
