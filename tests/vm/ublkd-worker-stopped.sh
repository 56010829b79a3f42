#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 once=6.12
#
# A worker that hangs (SIGSTOP) while there is work is found within 30 seconds and
# replaced, and nothing is lost, whether it had work when it was stopped or got it
# later. One that is idle, or whose storage lets it wait, is left alone.
. /lab/lib.sh disks nbd ublkd

# untouched NAME PID: it is the worker that it was.
untouched() {
	expect "live $2 0" "$(about "$1" '"\(.export.state) \(.export.pid) \(.recoveries)"')" \
		"$1: state, worker, recoveries"
}

scratch_fs 256M
truncate -s 64M remote
nbdkit_start main unix file remote
dmsetup create slow --table "0 131072 linear /dev/ram1 0"
defer "dmsetup resume slow; dmsetup remove slow"
ublkd_start
export_start file "$SCRATCH/image" --create 64M --queues 2
export_start memory memory:64M
export_start idle memory:64M
export_start nbd "$URI"
export_start slow /dev/mapper/slow
idle=$(worker_of idle)

echo "at $SECONDS s: storage that lets them wait"
load_start nbd
load_start slow
load_goes_on nbd
load_goes_on slow
remote=$(worker_of nbd)
slow=$(worker_of slow)
server_freeze main
dmsetup suspend --nolockfs --noflush slow
waits_since=$SECONDS

echo "at $SECONDS s: stopped at work, and idle"
load_start file
load_goes_on file
pid=$(worker_of file)
late=$(worker_of memory)
kill -STOP "$pid" "$late"
has_other_worker file "$pid" 30
echo "at $SECONDS s: found"
load_goes_on file
expect "$late" "$(worker_of memory)" "the worker that is stopped, and has no work"

echo "at $SECONDS s: work for the idle one"
load_start memory
has_other_worker memory "$late" 30
echo "at $SECONDS s: found"
load_goes_on memory
load_stop memory
load_stop file

while ((SECONDS - waits_since < 40)); do sleep 1; done
echo "at $SECONDS s: it has let them wait"
untouched nbd "$remote"
untouched slow "$slow"
server_thaw main
dmsetup resume slow
load_goes_on nbd
load_goes_on slow
load_stop nbd
load_stop slow
untouched nbd "$remote"
untouched slow "$slow"
untouched idle "$idle"
expect 1 "$(recoveries_of file)" "file: recoveries"
expect 1 "$(recoveries_of memory)" "memory: recoveries"
ublkd_stop
promise_kept file "$SCRATCH/image"
promise_kept nbd remote
promise_kept slow /dev/ram1
