#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 once=newest shortened
#
# A file that is made shorter under load: what is beyond its end fails, the rest is
# served on by the same worker, and another export does not notice.
. /lab/lib.sh disks ublkd

scratch_fs 512M
ublkd_start
export_start other "$SCRATCH/other" --create 64M
load_start other
for path in $(io_paths); do
	for direct in on off; do
		# The page cache once: file-truncated has all combinations.
		[[ $direct == on || $path == copy ]] || continue
		# In a quick run one path, by direct I/O and not.
		[[ $path == copy ]] || (($(rounds 1 0))) || continue
		name=$path-$direct
		export_start "$name" "$SCRATCH/$name" --create 64M --io-path "$path" -o direct=$direct
		dev=$DEV
		load_start "$name"
		load_goes_on "$name"
		# Requests to both sides of where the end will be, until one fails.
		while dd if="$dev" of=/dev/null bs=64k skip=630 count=20 iflag=direct status=none \
			2>beyond; do :; done &
		beyond=$!
		defer "kill $beyond 2>/dev/null"
		pid=$(worker_of "$name")
		truncate -s $(((40 << 20) + 8192 + 100)) "$SCRATCH/$name"
		retry 40 lab_gone "$beyond" || fail "$name: no request fails"
		grep -q 'Input/output error' beyond || fail "$name: $(cat beyond)"
		has_errors "$name" || fail "$name: no error was counted"
		fails_with 'Input/output error' \
			dd if="$dev" of=/dev/null bs=64k skip=960 count=1 iflag=direct
		load_goes_on "$name"
		load_goes_on other
		load_stop "$name" "$SCRATCH/$name"
		expect "live $pid 0" "$(about "$name" '"\(.export.state) \(.export.pid) \(.recoveries)"')" \
			"$name: state, worker, recoveries"
		ublkctl remove "$name"
		rm "$SCRATCH/$name"
	done
done
load_stop other "$SCRATCH/other"
ublkd_stop
