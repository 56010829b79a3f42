#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 once=none
#
# A worker that dies every time, at once or as soon as it serves: ublkd tries ever
# less often, gives up, says why, and takes next to no CPU meanwhile. I/O waits, and
# goes on when there is a good worker again and it is told so.
. /lab/lib.sh disks ublkd

good=$(ublkd --help | sed -n 's/.*(default: \(.*ublkd-worker\)).*/\1/p')
[[ -x $good ]] || fail "no worker: '$good'"

# worker_is LINE...: the program that ublkd starts as a worker from now on.
worker_is() {
	printf '%s\n' '#!/bin/bash' "$@" >worker.new
	chmod 755 worker.new
	mv worker.new worker
}

ticks() { sed 's/.*) //' "/proc/$UBLKD/stat" | awk '{ print $12 + $13 }'; }
descriptors() { find "/proc/$UBLKD/fd" -mindepth 1 | wc -l; }

# gives_up NAME WORDS PERCENT: in the end, with this reason, and for so much of a processor
# at the most, while nobody asks it.
gives_up() {
	local name=$1 before began=$SECONDS used
	before=$(ticks)
	sleep 20
	used=$(($(ticks) - before))
	echo "$name: $used ticks in $((SECONDS - began)) s"
	# Of which there are a hundred a second.
	((used <= (SECONDS - began) * $3)) ||
		fail "ublkd used $used ticks in $((SECONDS - began)) s"
	becomes "$name" failed 120
	[[ $(reason_of "$name") == *"$2"* ]] || fail "$name: reason '$(reason_of "$name")'"
	ublkctl show "$name" | grep -qF "$2" || fail "not shown: $(ublkctl show "$name")"
	state_is "$name" failed || fail "$name: $(state_of "$name")"
	tells "$name" refused given-up "$2"
	cat listed shown
}

# goes_on NAME: with a good worker, as soon as it is told.
goes_on() {
	worker_is "exec $good"
	timeout -k 5 30 ublkctl resume "$1"
	expect live "$(state_of "$1")" "state after resume"
	load_goes_on "$1"
}

scratch_fs 256M
worker_is 'exit 1'
ublkd_options=(--worker "$PWD/worker")
ublkd_start

# One that never was.
refuses 1 'exited at once' export disk="$SCRATCH/image" --create 64M
expect '[]' "$(ublkctl list --json | tr -d ' \n')" "exports"
worker_is "exec $good"
export_start disk "$SCRATCH/image" --create 64M
load_start disk
load_goes_on disk

echo "at $SECONDS s: dies at once"
worker_is 'exit 1'
before=$(descriptors)
kill -KILL "$(worker_of disk)"
gives_up disk 'exited at once' 5
refuses 1 'exited at once' resume disk
(($(descriptors) <= before + 4)) || fail "$before descriptors, then $(descriptors)"
load_is_well disk
goes_on disk

# As soon as it serves, whose writes have to come again.
echo "at $SECONDS s: dies when it serves"
worker_is "(exec 3<&-; sleep 1; kill -KILL \$\$) &" "exec $good"
before=$(descriptors)
kill -KILL "$(worker_of disk)"
# Each time is a whole recovery, four or five in these 20 s; three emulated machines on two
# processors inflate what it takes. Without a pause it would be all of a processor.
gives_up disk 'died' 20
(($(descriptors) <= before + 4)) || fail "$before descriptors, then $(descriptors)"
load_is_well disk
goes_on disk

echo "at $SECONDS s: no program at all"
rm worker
kill -KILL "$(worker_of disk)"
becomes disk recovering
retry 20 reason_says disk 'No such file' || fail "reason '$(reason_of disk)'"
goes_on disk
load_stop disk
ublkd_stop
promise_kept disk "$SCRATCH/image"
