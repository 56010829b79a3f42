#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every I/O path that this kernel has, with every backend; one that it has not is
# refused by name. Null gives zeroes whatever was written, and whatever was in the
# buffers before.
# vm: shortened
. /lab/lib.sh disks

scratch_fs 32M
random_file full 1M
head -c 1M /dev/zero >zeroes
truncate -s 4M "$SCRATCH/image"
for path in $(io_paths); do
	serve "$path" --queues 1 --depth 2 null:4M
	for ((round = $(rounds 3 1); round > 0; round--)); do
		holds "$DEV" zeroes "$path, round $round: null"
		fill "$DEV" full
		taskset 1 dd if="$DEV" bs=4k count=1 iflag=direct status=none |
			cmp - <(head -c 4096 zeroes) || fail "$path, round $round: null is not zero"
		blkdiscard "$DEV"
		blkdiscard -z "$DEV"
	done
	expect 0 "$(counted error.EIO)" "errors of null"
	ublk_stop disk
	for uri in memory:4M "$SCRATCH/image" /dev/ram1; do
		for arguments in '--queues 1 --depth 1 --max-io 4096' '--depth 4096 --max-io 4M --block-size 4096' \
			'--read-only'; do
			# shellcheck disable=SC2086 # several words are meant
			serve "$path" $arguments "$uri"
			if [[ $arguments != --read-only ]]; then
				random_file full 1M
				fill "$DEV" full
				holds "$DEV" full "$path $arguments $uri"
			fi
			dd if="$DEV" of=/dev/null bs=1M iflag=direct status=none
			ublk_stop disk
		done
	done
done
has_zero_copy || refuses 1 zero-copy run --io-path zero-copy null:1M
for uri in null:4M memory:4M "$SCRATCH/image" /dev/ram1; do
	serve auto "$uri"
	expect 1 "$(grep -c ': I/O path ' disk.err)" "$uri: lines on the path that was chosen"
	ublk_stop disk
done
