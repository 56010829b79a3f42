#!/bin/bash
# SPDX-License-Identifier: MIT
#
# "remove" leaves a device alone that a process has open, whoever serves it: a server of
# ublkctl run, with and without ublkd there, and an export. It names the process, and the
# process's I/O goes on.
. /lab/lib.sh disks ublkd

# is_refused NAME: a reader of $DEV has it open, and reads on.
is_refused() {
	local reader
	# Reads when it is told to, and says so.
	mkfifo orders answers
	bash -c 'exec 5<"$1"; while read -r _; do
		dd bs=4096 count=1 status=none <&5 | wc -c; done <orders >answers' reader "$DEV" &
	reader=$!
	exec 6>orders 7<answers
	refuses 1 "process $reader (bash)" remove "$1"
	echo go >&6
	read -r -t 30 -u 7 bytes || fail "$1: the reader has no answer"
	expect 4096 "$bytes" "bytes that were read after the refusal"
	exec 6>&- 7<&-
	retry 30 lab_gone "$reader" || fail "the reader does not end"
	rm orders answers
}

ublk_start disk memory:8M
is_refused "$DEV"
timeout -k 5 60 ublkctl remove "$DEV" || fail "remove of a device that is not in use"
retry 40 lab_gone "$PID" || fail "the server of a removed device does not end"
lab_forget disk

ublkd_start
ublk_start disk memory:8M
is_refused "$DEV"
ublk_stop disk
export_start data memory:8M
is_refused data
timeout -k 5 60 ublkctl remove data || fail "remove of an export that is not in use"
ublkd_stop
