#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-nbd-loop.sh BUILD SOURCE
#
# tests/bench/nbd-loop: the nbd backend on the kernel's own io_uring and a server's sockets, without
# ublk. Data that one client writes, the other reads; and what tests/bench/run --client makes of
# it. Skipped where nbdkit is missing.
set -euo pipefail
build=$1
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

type -P nbdkit >/dev/null || { echo "nbdkit is not installed"; exit 77; }
export loop=$build/tests/bench/nbd-loop out=$tmp/out
: >"$out"

fail() { echo "$*"; exit 1; }

# For nbdkit's captive mode, which sets $uri and ends with them.
# shellcheck disable=SC2016 # the shell that nbdkit starts expands them
commands='
	set -e
	for options in structured=off structured=on retain=0; do
		"$loop" -o $options ublkd "$uri" fill 4096 64 1000
		"$loop" libnbd "$uri" check 4096 64 1000
		"$loop" libnbd-lean "$uri" fill 131072 16 32
		"$loop" -o $options ublkd "$uri" check 131072 16 32
		"$loop" -o $options ublkd "$uri" randwrite 4096 1 100
		"$loop" -o $options ublkd "$uri" randread 4096 1 100
	done
	# Some other pattern is there.
	for client in ublkd libnbd; do
		if "$loop" $client "$uri" check 8192 1 1 2>"$out"; then exit 1; fi
		grep -q "wrong data at byte" "$out"
	done
'
nbdkit -U - memory 4M --run "$commands" >"$tmp/figures" || fail "nbd-loop failed: $(cat "$out")"
[[ $(wc -l <"$tmp/figures") == 18 ]] || fail "$(wc -l <"$tmp/figures") lines and not 18"
grep -qEvx '[1-9][0-9]*( [0-9]+){3} -?[0-9]+( [0-9]+){2}' "$tmp/figures" &&
	fail "no figures: $(<"$tmp/figures")"

names=ublkd@unix,libnbd@unix,libnbd-lean@unix,ublkd-structured@unix,ublkd@tcp,libnbd@tcp
{
	"$source/tests/bench/client.sh" "$build" 2 <<<"randread-64 $names randread 4096 4 200"
	echo end
} 2>&1 | python3 "$source/tests/bench/tabulate" --json "$tmp/json" >"$tmp/tables" 2>"$tmp/lines" ||
	fail "$(cat "$tmp/lines")"
[[ $(grep -c '^client [12] randread-64 ' "$tmp/lines") == 12 ]] || fail "$(cat "$tmp/lines")"
grep -qE '^randread-64 tcp +[0-9]' "$tmp/tables" || fail "$(cat "$tmp/tables")"
