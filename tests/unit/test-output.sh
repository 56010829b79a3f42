#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-output.sh BUILD SOURCE
#
# A verb whose output cannot be written fails, and says so in one line; one whose reader has
# gone does not.
set -euo pipefail
ublkctl=$1/ublkctl
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for words in backends 'backends --json' --help 'run --help' --version; do
	status=0
	# shellcheck disable=SC2086 # words are meant
	"$ublkctl" $words >/dev/full 2>"$tmp/err" || status=$?
	[[ $status == 1 ]] || { echo "$words >/dev/full: status $status"; exit 1; }
	[[ $(<"$tmp/err") == 'ublkctl: error: writing the output'* && $(wc -l <"$tmp/err") == 1 ]] ||
		{ echo "$words >/dev/full: $(<"$tmp/err")"; exit 1; }
done
# The reader of a FIFO that is opened and closed has surely gone when the verb writes.
mkfifo "$tmp/fifo"
for words in backends 'backends --json' --help; do
	# shellcheck disable=SC2094 # that is how the end that reads goes away
	exec 4<>"$tmp/fifo" 5>"$tmp/fifo" 4>&-
	status=0
	# shellcheck disable=SC2086 # words are meant
	"$ublkctl" $words >&5 2>"$tmp/err" || status=$?
	exec 5>&-
	[[ $status == 0 && ! -s $tmp/err ]] ||
		{ echo "$words, whose reader has gone: status $status, $(<"$tmp/err")"; exit 1; }
done
