#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A memory disk with a limit: a write beyond it fails with ENOSPC, what is there
# stays and can be written over, and what is discarded can be used again.
. /lab/lib.sh disks

random_file full 4M
for path in $(io_paths); do
	serve "$path" -o limit=4M -o shard=64K memory:1T
	expect $((4 << 20)) "$(counted gauge.limit-bytes)" "the limit, as counted"
	fill "$DEV" full
	fails_with 'No space left on device' \
		dd if=full of="$DEV" bs=64k count=1 seek=1000000 oflag=direct
	(($(counted error.ENOSPC) > 0)) || fail "no error was counted as ENOSPC"
	expect $((4 << 20)) "$(counted gauge.allocated-bytes)" "bytes allocated at the limit"
	holds "$DEV" full "$path: at the limit"
	dd if="$DEV" bs=64k count=1 skip=1000000 iflag=direct status=none |
		cmp - <(head -c 64k /dev/zero) || fail "$path: a refused write left something"

	fill "$DEV" full
	holds "$DEV" full "$path: written over at the limit"
	blkdiscard -o 0 -l 64k "$DEV"
	dd if=full of="$DEV" bs=64k count=1 seek=1000000 oflag=direct status=none ||
		fail "$path: no write once something was discarded"
	dd if="$DEV" bs=64k count=1 skip=1000000 iflag=direct status=none |
		cmp - <(head -c 64k full) || fail "$path: what was written then"
	fails_with 'No space left on device' dd if=full of="$DEV" bs=64k count=1 oflag=direct
	ublk_stop disk
done
