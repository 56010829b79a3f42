#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Storage that does not answer while the device comes up, with a reader (as udev is
# one) that has a request in flight: the path is printed, SIGTERM ends the server, and
# "remove --force" ends the device. Nothing that the user waits for writes to
# queue/scheduler, which waits for the reader's request.
. /lab/lib.sh disks nbd

# read_early ID: two readers of the device from the moment when it appears.
read_early() {
	local i
	readers=()
	for i in 1 2; do
		timeout 60 bash -c "until { read -r -N 1 x </dev/ublkb$1; } 2>/dev/null; do :; done" &
		readers+=($!)
	done
}

readers_end() {
	local pid
	for pid in "${readers[@]}"; do
		kill "$pid" 2>/dev/null || true
		retry 30 lab_gone "$pid" || fail "a reader still waits"
	done
}

for queues in 1 2; do
	nbdkit_start silent unix --filter=delay memory 64M rdelay=600
	read_early 5
	ublk_start disk --id 5 --queues "$queues" "$URI"
	# The second signal gives up on what is in service.
	kill -TERM "$PID"
	sleep 0.5
	kill -TERM "$PID" 2>/dev/null || true
	retry 40 lab_gone "$PID" || fail "$queues queues: the server does not end: $(cat "/proc/$PID/stack")"
	lab_forget disk
	retry 10 test ! -e /dev/ublkc5 || fail "$queues queues: /dev/ublkc5 is left"
	readers_end
	server_kill silent
done

nbdkit_start silent unix --filter=delay memory 64M rdelay=600
read_early 5
ublk_start disk --id 5 "$URI"
timeout -k 5 60 ublkctl remove --force 5 || fail "remove --force: status $?"
retry 40 lab_gone "$PID" || fail "the server outlives its device"
lab_forget disk
readers_end
