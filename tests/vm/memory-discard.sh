#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A memory disk takes memory when it is written, gives it back on discard and
# write-zeroes, keeps it where it is told to, and nothing beside the range changes.
. /lab/lib.sh disks

# The pages that the disk's memory really has, in bytes.
memory_used() {
	local fd
	for fd in /proc/"$PID"/fd/*; do
		case $(readlink "$fd") in
		/memfd:ublkd-memory*) echo $(($(stat -L -c '%b * %B' "$fd"))) ;;
		esac
	done
}

# uses BYTES WORDS: by the disk's own account, and no more than that in truth.
uses() {
	expect "$1" "$(counted gauge.allocated-bytes)" "$2: bytes allocated"
	(($(memory_used) <= $1)) || fail "$2: $(memory_used) bytes in use, not $1"
}

# A sixteenth of the disk; two are a shard.
P=$((256 << 10))
random_file full 4M
for path in $(io_paths); do
	serve "$path" -o shard=512K memory:4M
	head -c 4M /dev/zero >want
	holds "$DEV" want "never written"
	uses 0 "after reading only"

	cp full want
	fill "$DEV" want
	holds "$DEV" want "written"
	uses $((16 * P)) "written whole"
	expect $((16 * P)) "$(memory_used)" "written whole, in truth"

	blkdiscard -o $((4 * P)) -l $((4 * P)) "$DEV"
	zero_in want $((4 * P)) $((4 * P))
	holds "$DEV" want "two shards discarded"
	uses $((12 * P)) "two shards discarded"

	# Pieces of shards, at odd sectors.
	blkdiscard -o $((P + 512)) -l $((3 * 4096 + 1024)) "$DEV"
	zero_in want $((P + 512)) $((3 * 4096 + 1024))
	blkdiscard -o $((15 * P - 512)) -l 512 "$DEV"
	zero_in want $((15 * P - 512)) 512
	holds "$DEV" want "pieces of shards discarded"
	uses $((12 * P)) "pieces of shards discarded"

	# A whole shard and pieces on both sides.
	blkdiscard -o $((10 * P - 512)) -l $((2 * P + 1024)) "$DEV"
	zero_in want $((10 * P - 512)) $((2 * P + 1024))
	holds "$DEV" want "a shard and its edges discarded"
	uses $((10 * P)) "a shard and its edges discarded"

	# Zeroes that must stay allocated: of a shard, and of pieces.
	fallocate -z -o $((12 * P)) -l $((2 * P)) "$DEV"
	zero_in want $((12 * P)) $((2 * P))
	blkdiscard -z -o $((8 * P + 1536)) -l $((P + 512)) "$DEV"
	zero_in want $((8 * P + 1536)) $((P + 512))
	holds "$DEV" want "zeroed, kept"
	uses $((10 * P)) "zeroed, kept"

	# Zeroes that need not.
	fallocate -p -o $((12 * P)) -l $((2 * P)) "$DEV"
	holds "$DEV" want "zeroed, given back"
	uses $((8 * P)) "zeroed, given back"

	# What was given back and is written again has nothing of the old.
	dd if=full of="$DEV" bs=4096 count=1 skip=7 seek=$((12 * P / 4096 + 3)) oflag=direct status=none
	dd if=full of=want bs=4096 count=1 skip=7 seek=$((12 * P / 4096 + 3)) conv=notrunc status=none
	holds "$DEV" want "written again"
	uses $((10 * P)) "written again"

	blkdiscard "$DEV"
	zero_in want 0 $((16 * P))
	holds "$DEV" want "discarded whole"
	uses 0 "discarded whole"
	expect 0 "$(counted discard.failed)" "failed discards"
	expect 0 "$(counted write-zeroes.failed)" "failed write-zeroes"
	ublk_stop disk
done
