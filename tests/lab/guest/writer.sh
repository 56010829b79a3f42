# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# writer.sh: a writer that logs what it did, and whether a device kept what it
# promised to it.
#
#   . /lab/lib.sh disks writer

# writer_start [WLOG-OPTION...]: wlog writes to $DEV in the background and logs what
# it did to writer.log.*; what it says is in writer.out. Sets WRITER.
writer_start() {
	/lab/bin/wlog write "$@" "$DEV" "$PWD/writer.log" >writer.out 2>&1 &
	WRITER=$!
	defer "kill $WRITER 2>/dev/null"
	WRITTEN=$(writes "$DEV")
}

# writes DEVICE: that it has completed.
writes() { stat_field "$1" 5; }

# writer_goes_on N: until it has written N blocks more, and still writes. WRITTEN is
# what it has come to.
writer_goes_on() {
	local until=$((WRITTEN + $1))
	retry 60 has_written "$until" || fail "the writer stands still: $(cat writer.out)"
	WRITTEN=$(writes "$DEV")
	kill -0 "$WRITER" 2>/dev/null || fail "the writer has ended too soon: $(cat writer.out)"
}

has_written() { (($(writes "$DEV") >= $1)) || lab_gone "$WRITER"; }

# writer_ends: wait for it, and fail unless all of its I/O was well.
writer_ends() {
	retry 120 lab_gone "$WRITER" || fail "the writer does not end"
	wait "$WRITER" || fail "the writer: $(cat writer.out)"
}

# writer_stop: end it in the middle, and fail unless all of its I/O was well so far.
writer_stop() {
	local status=0
	kill -TERM "$WRITER" || fail "the writer has ended too soon: $(cat writer.out)"
	retry 120 lab_gone "$WRITER" || fail "the writer does not end"
	wait "$WRITER" || status=$?
	expect 143 "$status" "the writer: $(cat writer.out)"
}

# promises_kept DEVICE-OR-FILE: what the writer's log says was durable is there.
promises_kept() {
	/lab/bin/wlog verify "$1" "$PWD/writer.log" >verified 2>&1 || fail "$1: $(cat verified)"
	cat verified
	grep -q ' 0 promises broken' verified || fail "$1: $(cat verified)"
	# At least some were durable, or nothing was shown.
	[[ $(awk '{ print $6 }' verified) -gt 50 ]] || fail "$1: hardly anything was durable"
}
