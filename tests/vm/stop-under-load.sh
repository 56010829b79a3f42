#!/bin/bash
# SPDX-License-Identifier: MIT
#
# SIGTERM, SIGINT or SIGHUP while an application is at work: the server ends with
# status 0, the device is gone, and what the application still asks fails.
. /lab/lib.sh disks

# at_work: whether many requests have come by now.
at_work() { (($(counted read.completed) > 500 && $(counted write.completed) > 500)); }

# ends_under_load SIGNAL ARGUMENTS...
ends_under_load() {
	local signal=$1 load status=0
	shift
	: >disk.out
	ublk_start disk "$@"
	fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw --bs=4k \
		--time_based --runtime=60 --size=32M --minimal --name=a --name=b >fio.out 2>&1 &
	load=$!
	retry 40 at_work || fail "$*: no load"
	kill -0 "$load" || fail "$*: fio ended before the signal: $(cat fio.out)"
	kill -"$signal" "$PID"
	retry 40 lab_gone "$PID" || fail "$*: not ended 40 s after SIG$signal"
	wait "$PID" || status=$?
	lab_forget disk
	expect 0 "$status" "$*: exit status after SIG$signal"
	[[ ! -e $DEV && ! -e ${DEV/ublkb/ublkc} ]] || fail "$*: left $DEV"
	retry 40 lab_gone "$load" || fail "$*: fio still waits"
	if wait "$load"; then fail "$*: fio heard of no error"; fi
	grep -q ': read: ' disk.err || fail "$*: no summary"
	fails mountpoint -q "$DEV"
}

scratch_fs 64M
truncate -s 32M "$SCRATCH/image"
ends_under_load INT null:1G
ends_under_load HUP --depth 1 null:1G
for path in $(io_paths); do
	ends_under_load TERM --io-path "$path" memory:32M
	ends_under_load TERM --io-path "$path" "$SCRATCH/image"
done
