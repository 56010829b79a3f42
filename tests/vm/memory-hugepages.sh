#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: own-boot append=hugepages=8 once=newest
#
# A memory disk of huge pages: they are taken as it is written and given back when
# it is discarded; when the machine has no more, writes fail with ENOSPC, nobody
# dies, and what is there stays.
. /lab/lib.sh disks

pages_free() { awk '$1 == "HugePages_Free:" { print $2 }' /proc/meminfo; }

# Since the start: later, memory must be moved for them, which takes long in a machine
# that is emulated.
defer "echo 0 >/proc/sys/vm/nr_hugepages"
expect 8 "$(pages_free)" "huge pages of this machine"
random_file full 16M
for path in $(io_paths); do
	serve "$path" -o hugepages=2M memory:24M
	expect 8 "$(pages_free)" "free pages of an empty disk"
	dd if="$DEV" bs=1M iflag=direct status=none | cmp -n $((24 << 20)) - /dev/zero
	expect 8 "$(pages_free)" "free pages after reading only"
	fill "$DEV" full
	expect 0 "$(pages_free)" "free pages of a full disk"
	expect $((16 << 20)) "$(counted gauge.allocated-bytes)" "bytes allocated"
	fails_with 'No space left on device' dd if=full of="$DEV" bs=1M seek=20 count=1 oflag=direct
	(($(counted error.ENOSPC) > 0)) || fail "no error was counted as ENOSPC"
	expect $((16 << 20)) "$(counted gauge.allocated-bytes)" "bytes allocated"
	holds "$DEV" full "$path: when there are no more pages"
	dd if="$DEV" bs=1M skip=20 count=1 iflag=direct status=none | cmp -n $((1 << 20)) - /dev/zero

	# Pieces are zeroed in place, whole pages go.
	blkdiscard -o $((3 << 20)) -l $((6 << 20)) "$DEV"
	zero_in full $((3 << 20)) $((6 << 20))
	holds "$DEV" full "$path: discarded"
	expect 2 "$(pages_free)" "free pages after a discard"
	blkdiscard -z -o $(((10 << 20) + 512)) -l 1M "$DEV"
	zero_in full $(((10 << 20) + 512)) $((1 << 20))
	dd if=full of="$DEV" bs=1M seek=20 count=1 oflag=direct status=none
	holds "$DEV" full "$path: zeroed"
	ublk_stop disk
	expect 8 "$(pages_free)" "free pages once it is gone"
done

# None at all.
echo 0 >/proc/sys/vm/nr_hugepages
refuses 1 nr_hugepages run -o hugepages=2M memory:16M
