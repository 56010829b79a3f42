#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest shortened
#
# A discard punches a hole into the file, write-zeroes zeroes it and keeps the
# blocks where it is told to, and nothing beside the range changes. Holes that are
# only read stay holes, and a write makes no more than its own blocks.
. /lab/lib.sh disks

MiB=$((1 << 20))
SLACK=65536 # of bytes_used
random_file full 8M
for type in ext4 xfs; do
	scratch_fs 384M "$type"
	image=$SCRATCH/image
	for path in $(io_paths); do
		# In a quick run each path once.
		[[ $type == ext4 || $path == copy ]] || (($(rounds 1 0))) || continue
		rm -f "$image"
		truncate -s $((8 * MiB + 100)) "$image"
		serve "$path" "$image"
		head -c 8M /dev/zero >want
		holds "$DEV" want "a hole"
		expect 0 "$(bytes_used "$image")" "$type: bytes used by a hole that was read"
		dd if=full of="$DEV" bs=64K count=1 seek=16 oflag=direct status=none
		dd if=full of=want bs=64K count=1 seek=16 conv=notrunc status=none
		holds "$DEV" want "a hole with one write in it"
		(($(bytes_used "$image") >= 65536 && $(bytes_used "$image") <= 4 * 65536)) ||
			fail "$type: 64 KiB written into a hole use $(bytes_used "$image") bytes"
		ublk_stop disk

		# The tail is not the device's, and no discard may reach it.
		rm "$image"
		{ cat full; head -c 100 full; } >"$image"
		sync "$image"
		serve "$path" "$image"
		cp full want
		before=$(bytes_used "$image")
		(($(bytes_used "$image") >= 8 * MiB)) || fail "$type: a full file uses $before bytes"

		blkdiscard -o $((2 * MiB)) -l $((2 * MiB)) "$DEV"
		zero_in want $((2 * MiB)) $((2 * MiB))
		blkdiscard -o $((MiB + 512)) -l $((3 * 4096 + 1024)) "$DEV"
		zero_in want $((MiB + 512)) $((3 * 4096 + 1024))
		blkdiscard -o $((7 * MiB - 512)) -l 512 "$DEV"
		zero_in want $((7 * MiB - 512)) 512
		holds "$DEV" want "$type: discarded"
		(($(bytes_used "$image") <= before - 2 * MiB + SLACK)) || fail "$type: $(bytes_used "$image") bytes used after a discard"

		before=$(bytes_used "$image")
		fallocate -z -o $((4 * MiB)) -l $MiB "$DEV"
		zero_in want $((4 * MiB)) $MiB
		blkdiscard -z -o $((5 * MiB + 512)) -l $((MiB / 2)) "$DEV"
		zero_in want $((5 * MiB + 512)) $((MiB / 2))
		holds "$DEV" want "$type: zeroed, kept"
		(($(bytes_used "$image") >= before && $(bytes_used "$image") <= before + SLACK)) ||
			fail "$type: zeroes that should keep their blocks: $before, now $(bytes_used "$image")"

		fallocate -p -o $((4 * MiB)) -l $MiB "$DEV"
		holds "$DEV" want "$type: zeroed, given back"
		(($(bytes_used "$image") <= before - MiB + SLACK)) || fail "$type: $(bytes_used "$image") bytes used after write-zeroes"
		(($(counted write-zeroes.completed) > 0)) || fail "no write-zeroes arrived"
		expect 0 "$(counted write-zeroes.failed)" "failed write-zeroes"

		blkdiscard "$DEV"
		zero_in want 0 $((8 * MiB))
		holds "$DEV" want "$type: discarded whole"
		expect 0 "$(counted discard.failed)" "failed discards"
		ublk_stop disk
		expect $((8 * MiB + 100)) "$(stat -c %s "$image")" "$type: the file's size"
		(($(bytes_used "$image") <= SLACK)) || fail "$type: discarded whole, it uses $(bytes_used "$image") bytes"
		cmp <(tail -c 100 "$image") <(head -c 100 full) || fail "$type: the tail changed"
	done
	umount "$SCRATCH"
done
