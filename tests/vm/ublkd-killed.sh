#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=400 shortened
#
# ublkd dies (SIGKILL) again and again: I/O goes on without it, and the next one takes
# on the workers that it finds. One that has died with it is replaced. What memory
# holds outlives both of them, one after the other.
. /lab/lib.sh disks nbd ublkd

names=(file memory nbd)

all_workers() {
	timeout -k 1 30 ublkctl list --json | jq -r '.[] | "\(.name) \(.state) \(.pid)"' | sort
}

found_again() {
	all_workers >workers.now
	cmp -s workers workers.now
}

scratch_fs 256M
truncate -s 64M remote
nbdkit_start main unix --threads 1 file remote
ublkd_start
export_start file "$SCRATCH/image" --create 64M --queues 2
export_start memory memory:64M
export_start nbd "$URI"
for name in "${names[@]}"; do load_start "$name"; done
for name in "${names[@]}"; do load_goes_on "$name"; done

last=$(rounds 3 1)
for ((i = 1; i <= last; i++)); do
	echo "at $SECONDS s: ublkd, time $i"
	all_workers >workers
	ublkd_kill
	# The last time one comes while there is nothing to be told apart from a restart.
	((i == last)) || for name in "${names[@]}"; do load_goes_on "$name" 80; done
	ublkd_start
	retry 5 found_again || fail "not as before: $(diff workers workers.now)"
	for name in "${names[@]}"; do
		load_goes_on "$name"
	done
done

for name in file nbd; do
	echo "at $SECONDS s: ublkd and the worker of $name"
	pid=$(worker_of "$name")
	kill -KILL "$pid" "$UBLKD"
	wait "$UBLKD" || true
	load_goes_on memory
	ublkd_start
	has_other_worker "$name" "$pid"
	for other in "${names[@]}"; do load_goes_on "$other"; done
done

echo "at $SECONDS s: ublkd, then the worker of memory"
ublkd_kill
ublkd_start
worker_kill memory
load_goes_on memory
ublkd_kill
load_goes_on memory
ublkd_start
worker_kill memory
load_goes_on memory

echo "at $SECONDS s: in order"
ublkd_end
for name in "${names[@]}"; do load_goes_on "$name"; done
ublkd_start
for name in "${names[@]}"; do
	load_goes_on "$name"
	load_stop "$name"
done
ublkd_stop
promise_kept file "$SCRATCH/image"
promise_kept nbd remote
