#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A file that is made shorter under its device: reads beyond its end fail with EIO,
# what is left is served on, under load, without a crash.
. /lab/lib.sh disks

at_work() { (($(counted read.completed) > 300)); }
some_failed() { (($(counted read.failed) > 0)); }

scratch_fs 64M
image=$SCRATCH/image
random_file full 8M
for path in $(io_paths); do
	for direct in on off; do
		cp full "$image"
		sync "$image"
		serve "$path" -o direct=$direct "$image"
		fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=32 --rw=randread --bs=16k \
			--time_based --runtime=30 --size=8M --minimal --continue_on_error=all \
			--name=a >fio.out 2>&1 &
		load=$!
		retry 30 at_work || fail "no load"
		truncate -s $(((4 << 20) + 8192 + 100)) "$image"
		retry 20 some_failed || fail "$path direct=$direct: no read fails"
		kill "$load"
		wait "$load" || true
		fails_with 'Input/output error' \
			dd if="$DEV" of=/dev/null bs=64k skip=96 count=1 iflag=direct
		# Where the end is: what is there is right, what is not is an error.
		fails_with 'Input/output error' \
			dd if="$DEV" of=/dev/null bs=64k skip=64 count=1 iflag=direct
		head -c 4M full >want
		holds "$DEV" want "$path direct=$direct: what is left"
		(($(counted error.EIO) > 0)) || fail "no EIO was counted"
		ublk_stop disk
	done
done
