#!/bin/bash
# SPDX-License-Identifier: MIT
#
# 200 devices made and removed, several at a time: ids are used again, and no
# device, process, open file or much memory is left.
# vm: timeout=240 shortened
. /lab/lib.sh

memory_free() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo
}

# Objects in use by the whole machine, of caches that a device takes from.
files_open() { cut -f1 /proc/sys/fs/file-nr; }

# cycles NAME COUNT ARGUMENTS...
cycles() {
	local name=$1 count=$2 i pid dev
	shift 2
	for ((i = 0; i < count; i++)); do
		: >"$name.out"
		ublkctl run "$@" >"$name.out" 2>"$name.err" &
		pid=$!
		retry 60 grep -q ublkb "$name.out" || fail "$name: cycle $i: no device: $(cat "$name.err")"
		dev=$(cat "$name.out")
		# The first four ids are enough for four at a time.
		[[ $dev =~ ^/dev/ublkb[0-3]$ ]] || fail "$name: cycle $i: $dev: ids are not used again"
		dd if="$dev" of=/dev/null bs=64k count=2 iflag=direct status=none
		kill -TERM "$pid"
		wait "$pid" || fail "$name: cycle $i: exit status $?: $(cat "$name.err")"
	done
}

truncate -s 8M image
jobs=() many=$(rounds 50 15)
(cycles warm 2 memory:8M) || exit 1
before=$(memory_free) files=$(files_open)
(cycles null "$many" --queues 1 null:1G) & jobs+=($!)
(cycles memory "$many" memory:8M) & jobs+=($!)
(cycles file "$many" --depth 16 "$PWD/image") & jobs+=($!)
(cycles other "$many" --queues 1 --depth 1 --io-path user-copy memory:64K) & jobs+=($!)
for job in "${jobs[@]}"; do
	wait "$job" || fail "a cycle failed"
done
left=(/dev/ublk[bc]*)
expect '/dev/ublk[bc]*' "${left[*]}" "devices left"
expect '[]' "$(ublkctl list --json | tr -d ' \n')" "devices listed"
if pgrep -x ublkctl; then fail "servers left"; fi
lost=$((before - $(memory_free)))
((lost < 24 << 10)) || fail "$lost KiB of memory less than before"
more=$(($(files_open) - files))
((more < 100)) || fail "$more more open files than before"
