#!/bin/bash
# SPDX-License-Identifier: MIT
#
# vm: timeout=420 once=6.12 shortened
#
# A server that breaks the protocol (R10): cut at every kind of message and inside
# each, silent, garbage, wrong in each field, answering what was not asked. At the
# start that is one line and status 1; while the device is used, the connection is
# made again or the one request fails. Never a crash, a hang, or wrong content.
. /lab/lib.sh disks nbd

# Seconds; a request waits no longer than both.
options=(-o request-timeout=500ms -o reconnect-deadline=20 -o structured=on)
patience=40

# faulty_start [OPTION...]: the server "faulty" on $PWD/image, with its control open.
faulty_start() {
	mkfifo -m 600 control
	exec 8<>control
	server_set faulty unix nbd-fault --control control "$@" "$PWD/faulty.sock" "$PWD/image"
	server_start faulty
}

faulty_end() {
	server_stop faulty
	exec 8<&-
	rm -f control
}

fired() { (($(grep -c '^fired' faulty.server) >= $1)); }
armed() { (($(grep -c '^armed' faulty.server) >= $1)); }

# arm [FAULT...]: from now on these, and no others; FIRED is how many have come so far.
arm() {
	local before
	before=$(grep -c '^armed' faulty.server)
	FIRED=$(grep -c '^fired' faulty.server || true)
	echo "$*" >&8
	echo "at $SECONDS s: $*"
	retry 10 armed $((before + 1)) || fail "'$*' is not armed: $(cat faulty.server)"
}

# sane WORDS FILE: what ublkctl said has no sign of a crash, and is fit for a terminal.
sane() {
	if grep -aE 'Sanitizer|runtime error|Assertion|stack smashing' "$2"; then fail "$1: a crash"; fi
	if LC_ALL=C grep -aq $'[\001-\010\013-\037]' "$2"; then fail "$1: escapes in $2"; fi
}

# refused_with FAULT: the export is not to be had.
refused_with() {
	arm "$1@all"
	refuses 1 '' run "${options[@]}" "$URI"
	fired $((FIRED + 1)) || fail "$1 has not come: $(tail -n 3 faulty.server)"
	sane "$1" refused.err
	! compgen -G '/dev/ublkb*' || fail "$1: a device is there"
}

# refused_or_served FAULT: one or the other, and if served then whole.
refused_or_served() {
	local status=0
	: >either.out
	arm "$1@all"
	timeout -s TERM -k 10 20 ublkctl run "${options[@]}" "$URI" >either.out 2>either.err &
	PID=$!
	retry 30 decided || fail "$1: neither served nor refused: $(cat either.err)"
	fired $((FIRED + 1)) || fail "$1 has not come: $(tail -n 3 faulty.server)"
	if [[ -s either.out ]]; then
		arm
		DEV=$(cat either.out)
		timeout 30 dd if="$DEV" of=/dev/null bs=64k count=1 iflag=direct status=none ||
			fail "$1: served, and not readable"
		kill -TERM "$PID"
	fi
	wait "$PID" || status=$?
	# What "timeout" hands on is 124 after a TERM of its own, and ublkctl's status else.
	((status == 0 || status == 1)) || fail "$1: exit status $status: $(cat either.err)"
	sane "$1" either.err
	! compgen -G '/dev/ublkb*' || fail "$1: a device is left"
}

decided() { [[ -s either.out ]] || lab_gone "$PID"; }

# readable: at once or once it is reconnected, but within its bounds.
readable() {
	timeout "$patience" dd if="$DEV" of=/dev/null bs=4k count=2 iflag=direct status=none
}

# survives FAULT...: under the writer's load all of them come, and it goes on.
survives() {
	local words=$*
	# The longer a server is in trouble, the longer the pauses: a device is not given much.
	if ((survived >= 6)); then
		device_end
		device_start
	fi
	survived=$((survived + $#))
	arm "$@"
	until fired $((FIRED + $#)); do
		# Holes are where nothing was written yet.
		timeout "$patience" dd if="$DEV" of=/dev/null bs=4k count=1 skip=2040 iflag=direct \
			status=none 2>/dev/null || true
		((SECONDS < limit)) || fail "$words: not come: $(tail -n 3 faulty.server)"
	done
	readable || fail "$words: the device is not readable again"
	kill -0 "$PID" 2>/dev/null || fail "$words: the server of the device has ended"
	kill -0 "$WRITER" 2>/dev/null || fail "$words: the writer has ended: $(cat writer.out)"
}

# begin [--errors] [SERVER-OPTION...]: the server, a device and a writer.
begin() {
	writer=(--blocks 512 --threads 4 --ops 100000000 --flush 10 --zero 10)
	if [[ ${1:-} == --errors ]]; then
		writer+=(--errors)
		shift
	fi
	faulty_start "$@"
	device_start
}

device_start() {
	truncate -s 0 image
	truncate -s 8M image
	ublk_start disk "${options[@]}" "$URI"
	rm -f writer.log.*
	writer_start "${writer[@]}"
	limit=$((SECONDS + 100)) survived=0
}

# device_end: the writer ends, and what it wrote is there, on the device and behind it.
device_end() {
	arm
	kill -TERM "$WRITER"
	retry "$patience" lab_gone "$WRITER" || fail "the writer does not end"
	wait "$WRITER" 2>/dev/null || true
	if [[ -s writer.out ]]; then fail "the writer: $(cat writer.out)"; fi
	readable || fail "not readable at the end"
	promises_kept "$DEV"
	ublk_stop disk
	promises_kept "$PWD/image"
	sane "the device" disk.err
}

finish() {
	device_end
	faulty_end
}

# is_due: each fault is, in a quick run each third.
nr=0 by=$(rounds 1 3)
is_due() { ((nr++ % by == 0)); }

truncate -s 8M image

# --- At the start ---------------------------------------------------------------

faulty_start
for fault in cut:hello+{0,9} cut:option+{0,19} cut:info+{0,25} cut:blocks+27 \
	hang:info+24 garbage:hello+0 garbage:option+8 garbage:info+22 \
	hello-magic hello-option-magic option-magic option-other option-length \
	info-type info-short size-zero size-huge size-negative \
	no-info refused shut-down; do
	is_due || continue
	refused_with "$fault"
done
for fault in option-type option-error blocks-{zero,odd,huge,preferred-zero,preferred-odd} \
	blocks-most-{zero,small} flags-none flags-all two-infos size-one; do
	is_due || continue
	refused_or_served "$fault"
done
faulty_end

# --- While it is used: the connection is made again, and nobody hears of it --------

begin
for fault in cut:chunk+{0,3,19} cut:data+{0,24,28,500} cut:hole+{8,30} cut:end+10 \
	cut:{read,write,flush}+{0,7} hang:write+0 hang:data+100 silent-flush \
	garbage:chunk+0 garbage:data+20 garbage:write+6 \
	chunk-magic chunk-cookie chunk-length data-length; do
	is_due || continue
	survives "$fault"
done
# The next connection is no better, at each step of its negotiation.
for fault in cut:hello+{0,9} cut:option+{0,12} cut:info+{0,23} cut:blocks+4 hang:option+0 \
	garbage:info+0 hello-magic hello-oldstyle option-magic option-length info-short no-info; do
	is_due || continue
	survives cut:chunk+0 "$fault"
done
# And another export is none of ours: it waits until the right one is back.
for fault in size-one size-huge size-negative flags-none blocks-huge blocks-most-small; do
	is_due || continue
	survives cut:write+0 "$fault"
done
finish

begin --simple
for fault in cut:reply+{0,4,15} cut:read+{16,1000} hang:read+20 silent-write \
	garbage:reply+0 garbage:read+30 reply-magic reply-cookie missing-read@3; do
	is_due || continue
	survives "$fault"
done
finish

# --- An answer that is wrong in itself: an error of that request, or as above --------

begin --errors
for fault in chunk-type chunk-error-type chunk-flags missing-read overlap-read data-short data-before data-after \
	hole-before hole-after hole-long hole-empty end-long \
	silent-read twice-{read,write,flush} errno-{read,write,huge,zero} \
	error-long error-escapes across-read endless-read two-ends-read empty-read \
	data-for-write simple-for-read; do
	is_due || continue
	survives "$fault"
done
finish
