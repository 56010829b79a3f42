#!/bin/bash
# SPDX-License-Identifier: MIT
#
# SIGKILL while an application is at work: what it asks fails, the device stays
# behind dead, "list" names it, "remove" removes it, and its storage can be exported
# again.
. /lab/lib.sh disks

at_work() { (($(counted read.completed) > 500 && $(counted write.completed) > 500)); }

# state_of ID: the kernel's, as "list" has it.
state_of() { ublkctl list --json | jq -r --argjson id "$1" '.[] | select(.id == $id) | .kernelState'; }

is_dead() { [[ $(state_of "$1") == dead ]]; }

# dies_under_load ARGUMENTS...
dies_under_load() {
	local load
	: >disk.out
	ublk_start disk --id 5 "$@"
	fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=64 --rw=randrw --bs=4k \
		--time_based --runtime=60 --size=32M --minimal --name=a --name=b >fio.out 2>&1 &
	load=$!
	retry 40 at_work || fail "$*: no load"
	expect live "$(state_of 5)" "$*: state"
	ublk_kill disk
	retry 40 is_dead 5 || fail "$*: state $(state_of 5), not dead"
	ublkctl list >listed
	grep -qE '^/dev/ublkb5 +/dev/ublkb5 +foreign ' listed || fail "$*: not listed: $(cat listed)"
	grep -q '^/dev/ublkb5: .*its state is dead' listed || fail "$*: not said to be dead: $(cat listed)"
	retry 40 lab_gone "$load" || fail "$*: fio still waits"
	if wait "$load"; then fail "$*: fio heard of no error"; fi
	ublkctl remove /dev/ublkb5
	[[ ! -e /dev/ublkb5 && ! -e /dev/ublkc5 ]] || fail "$*: not removed"
	expect '[]' "$(ublkctl list --json | tr -d ' \n')" "$*: devices left"
}

scratch_fs 64M
truncate -s 32M "$SCRATCH/image"
dies_under_load --depth 4 null:1G
for path in $(io_paths); do
	dies_under_load --io-path "$path" memory:32M
	dies_under_load --io-path "$path" "$SCRATCH/image"
done
# Its lock is gone with it.
ublk_start again "$SCRATCH/image"
