#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 shortened
#
# Suspended under load: I/O waits, also over ublkd's death, and is lost nowhere.
# Resumed, it goes on. Asked for twice, either is as it is.
. /lab/lib.sh disks nbd ublkd

names=(file memory nbd)

suspended() {
	local name
	for name in "${names[@]}"; do
		expect suspended "$(state_of "$name")" "$name"
		done_by "$name"
	done >done.before
	sleep 2
	for name in "${names[@]}"; do
		load_is_well "$name"
		done_by "$name"
	done >done.after
	cmp done.before done.after || fail "completed while suspended"
}

both() {
	local verb=$1 name
	for name in "${names[@]}"; do
		timeout -k 5 60 ublkctl "$verb" "$name"
		timeout -k 5 60 ublkctl "$verb" "$name"
	done
}

scratch_fs 256M
truncate -s 64M remote
nbdkit_start main unix file remote
ublkd_start
export_start file "$SCRATCH/image" --create 64M --queues 2
export_start memory memory:64M --queues 2
export_start nbd "$URI"
for name in "${names[@]}"; do load_start "$name"; done
for i in 1 2; do
	for name in "${names[@]}"; do load_goes_on "$name"; done
	echo "at $SECONDS s: suspended"
	both suspend
	suspended
	if ((i == 2)); then
		ublkd_kill
		ublkd_start
		suspended
	fi
	both resume
done
for name in "${names[@]}"; do
	load_goes_on "$name"
	expect 0 "$(recoveries_of "$name")" "$name: recoveries"
	load_stop "$name"
done

# Requests come at every moment of it.
load_start memory
for ((i = $(rounds 12 3); i > 0; i--)); do
	load_goes_on memory 20
	timeout -k 5 60 ublkctl suspend memory
	timeout -k 5 60 ublkctl resume memory
done
load_goes_on memory
load_stop memory

# Nobody is at work: it can be removed as it is.
timeout -k 5 60 ublkctl suspend memory
timeout -k 5 60 ublkctl remove memory
refuses 1 'no export' show memory
refuses 1 'no export' suspend memory
ublkd_stop
promise_kept file "$SCRATCH/image"
promise_kept nbd remote
