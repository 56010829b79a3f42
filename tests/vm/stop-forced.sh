#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Storage that does not answer: a first SIGTERM waits for it, a second one does not.
# The application's requests fail and the device is gone while the storage still
# hangs; with zero copy, where the storage is at work in the application's own pages,
# as soon as it answers.
. /lab/lib.sh disks

in_service() { (($(counted queue0.started) > $(counted queue0.completed))); }

# hangs PATH: the device is live, and a request waits for the storage.
hangs() {
	dmsetup resume hung
	serve "$1" --queues 1 /dev/mapper/hung
	dmsetup suspend --nolockfs --noflush hung
	dd if=full of="$DEV" bs=64k count=1 oflag=direct status=none 2>error.txt &
	load=$!
	retry 30 in_service || fail "no request is in service"
	kill -TERM "$PID"
	sleep 1
	kill -0 "$PID" || fail "$1: did not wait for what was in service"
}

# ended STATUS...: the server, with one of these; the application, too.
ended() {
	local status=0
	retry 40 lab_gone "$PID" || fail "$path: the server does not end: $(cat "/proc/$PID/stack")"
	wait "$PID" || status=$?
	lab_forget disk
	[[ " $* " == *" $status "* ]] || fail "$path: exit status $status"
	retry 40 lab_gone "$load" || fail "$path: the application still waits"
	retry 10 test ! -e /dev/ublkb0 -a ! -e /dev/ublkc0 || fail "$path: left $(ls /dev/ublk*)"
}

random_file full 1M
truncate -s 32M backing
loop=$(losetup -f --show backing)
dmsetup create hung --table "0 65536 linear $loop 0"
defer "dmsetup resume hung; dmsetup remove hung; losetup -d $loop"
for path in $(io_paths); do
	# One signal, and the storage answers after all: all is well.
	hangs "$path"
	dmsetup resume hung
	ended 0
	wait "$load" || fail "$path: what was in service failed: $(cat error.txt)"

	hangs "$path"
	kill -TERM "$PID"
	[[ $path != zero-copy ]] || dmsetup resume hung
	ended 0 1
	dmsetup resume hung
done
