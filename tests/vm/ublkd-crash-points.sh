#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ublkd killed at each step of each operation: the next one finishes what was begun,
# or undoes it; nothing is left over, the same request again does what it says, and
# another export never notices. On the newest kernel it dies before the first step, the
# third and so on, on 6.12 after them, so that the two have each moment once; with
# CRASH_ALL=yes it is every step on either.
# vm: timeout=900 shortened
. /lab/lib.sh disks ublkd orderly

# A quick run takes each eighth: of every operation a few.
when=after by=$(rounds 2 8)
! has_zero_copy || when=before
[[ ${CRASH_ALL:-} != yes ]] || by=1
export CRASH_AT=$PWD/crash-at
asked_for=0

crashing_ublkd() { LD_PRELOAD=/lab/bin/crash-at.so ublkd_start; }

# restart: the next ublkd after a crash; the neighbour's worker is the same as ever.
restart() {
	rm -f "$CRASH_AT"
	wait "$UBLKD" 2>/dev/null || true
	crashing_ublkd
	kill -0 "$writer" 2>/dev/null || fail "$at: the neighbour's writer: $(cat neighbour.writer)"
	orderly "$at"
	expect "live $neighbour" "$(exported neighbour)" "$at: the neighbour's state and worker"
}

# exported NAME: its state and worker, when "orderly" was called last.
exported() { sed -n "s/^$1 \([a-z]* [0-9a-z]*\) .*/\1/p" exports; }
is() { [[ $(exported x) == "$1 "* ]]; }

# has_content: the file and the device show what was written.
has_content() {
	cmp <(head -c 64K content) <(dd if=/dev/ublk/x bs=64K count=1 iflag=direct status=none) ||
		fail "$at: another content"
}

request() { timeout -k 5 60 ublkctl "$@" >asked 2>&1; }

# ask ARGUMENTS...: of ublkctl, for a request that must succeed.
ask() { request "$@" || fail "$at: ublkctl $*: status $?: $(cat asked)"; }

# An operation is asked for by "do_NAME"; when it is done, "done_NAME" holds; and
# "back_NAME" leads to where it began.
do_create() { request export "x=$PWD/image"; }
done_create() { is live && has_content; }
back_create() { ask remove x; }

do_remove() { request remove x || [[ $(<asked) == *"no export 'x'"* ]]; }
done_remove() { [[ -z $(exported x) ]]; }
back_remove() { ask export "x=$PWD/image"; }

do_suspend() { request suspend x; }
done_suspend() { is suspended; }
back_suspend() { ask resume x; }

do_resume() { request resume x; }
done_resume() { is live && has_content; }
back_resume() { ask suspend x; }

do_upgrade() { request upgrade x; }
done_upgrade() { is live && has_content; }
back_upgrade() { :; }

size=$((16 << 20))
do_resize() { request resize x $((size + 4096)); }
done_resize() { [[ $(blockdev --getsize64 /dev/ublk/x) == $((size + 4096)) ]] && has_content; }
back_resize() { size=$((size + 4096)); }

# Nobody asks for this: a worker dies. Asked again, it only has to be over.
do_recover() {
	local pid
	pid=$(worker_of x)
	lab_gone "$UBLKD" || kill -KILL "$pid"
	retry 60 recovered_or_crashed "$pid"
}
recovered_or_crashed() { lab_gone "$UBLKD" || is_other_worker x "$1"; }
done_recover() { is live && has_content; }
back_recover() { :; }

# crash OPERATION N: false where there is no N-th step.
crash() {
	at="$1, $when step $2"
	rm -f "$CRASH_AT.steps"
	echo "$when $2 $((++asked_for))" >"$CRASH_AT.new"
	mv "$CRASH_AT.new" "$CRASH_AT"
	"do_$1" || true
	rm -f "$CRASH_AT"
	if [[ ! -e $CRASH_AT.steps ]] || (($(wc -l <"$CRASH_AT.steps") < $2)); then
		orderly "$at, never"
		"done_$1" || fail "$at: not done: $(cat asked)"
		return 1
	fi
	at+=" ($(sed -n "s/^$2 //p" "$CRASH_AT.steps"))"
	retry 10 lab_gone "$UBLKD" || fail "$at: ublkd lives"
	restart
	"do_$1" || fail "$at: asked again: $(cat asked)"
	orderly "$at, asked again"
	"done_$1" || fail "$at: not done when asked again: $(cat asked)"
}

# crash_all OPERATION: at each step.
crash_all() {
	local n=1 began=$SECONDS
	while crash "$1" $n; do
		"back_$1"
		n=$((n + by))
	done
	at=$1
	orderly "$1, at last"
	echo "$1: killed $when steps 1 to $((n - by)), by $by, $((SECONDS - began)) s"
	((n > 4)) || fail "$1: only $((n - by)) steps"
}

head -c 16M /dev/urandom >content
cp content image
crashing_ublkd
export_start neighbour memory:16M
neighbour=$(worker_of neighbour)
/lab/bin/wlog write --blocks 2000 --threads 1 --ops 100000000 --fua 5 --pause 20 "$DEV" \
	"$PWD/neighbour.log" >neighbour.writer 2>&1 &
writer=$!
defer "kill $writer 2>/dev/null"

crash_all create
crash_all remove
# It is removed already.
do_remove || fail "it cannot be removed: $(cat asked)"
ask export "x=$PWD/image"
crash_all upgrade
crash_all recover
crash_all suspend
crash_all resume
ublkctl features --json | jq -e '.features | any(.name == "update-size" and .available)' >/dev/null &&
	crash_all resize

# Its content is with two processes while they change.
ask remove x
ask export x=memory:16M
dd if=content of=/dev/ublk/x bs=1M oflag=direct status=none
crash_all upgrade

kill -TERM "$writer" || fail "the neighbour's writer has ended: $(cat neighbour.writer)"
retry 60 lab_gone "$writer" || fail "the neighbour's writer does not end"
promise_kept neighbour /dev/ublk/neighbour
ublkd_stop
