#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=6.12
#
# A file that is replaced, removed or made too small behind its device, and then the
# worker dies: the next one refuses what is there and touches nothing, I/O waits, and
# goes on by itself when the right file is back.
. /lab/lib.sh disks ublkd

# waits_for WORDS: the worker dies, and no other serves what is there, as it says.
waits_for() {
	local before
	kill -KILL "$(worker_of disk)"
	retry 20 reason_says disk "$1" || fail "reason '$(reason_of disk)', not '$1'"
	before=$(done_by disk)
	refuses 1 "$1" resume disk
	sleep 2
	expect "$before" "$(done_by disk)" "completed without a file"
	[[ $(state_of disk) == recovering ]] || fail "state $(state_of disk)"
	reason_says disk "$1" || fail "reason '$(reason_of disk)', not '$1'"
	load_is_well disk
}

# back: it goes on by itself.
back() {
	becomes disk live 20
	load_goes_on disk
}

scratch_fs 512M
image=$SCRATCH/image
ublkd_start
export_start disk "$image" --create 64M
load_start disk
load_goes_on disk

echo "at $SECONDS s: replaced"
mv "$image" "$image.right"
truncate -s 64M "$image"
waits_for 'not what the device was created for'
cmp -n $((64 << 20)) "$image" /dev/zero || fail "the wrong file was written to"
mv "$image.right" "$image"
back

echo "at $SECONDS s: removed"
mv "$image" "$image.right"
waits_for "$image"
mv "$image.right" "$image"
back

echo "at $SECONDS s: made smaller"
truncate -s 48M "$image"
waits_for 'smaller'
truncate -s 64M "$image"
back

load_stop disk
ublkd_stop
promise_kept disk "$image"
