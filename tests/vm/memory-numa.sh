#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Where the memory of a memory disk comes from can be said, on a machine with one
# node too, and with every size of shard.
. /lab/lib.sh disks

random_file full 4M
for options in '-onuma=interleave -oshard=4096' '-onuma=local -oshard=64K' '-onuma=default -oshard=1G' \
	'-oshard=8M'; do
	# shellcheck disable=SC2086 # several words are meant
	serve auto $options memory:8M
	! grep -q 'no effect' disk.err || fail "$options: $(cat disk.err)"
	fill "$DEV" full
	holds "$DEV" full "$options"
	blkdiscard -o 1M -l 2M "$DEV"
	cp full want
	zero_in want $((1 << 20)) $((2 << 20))
	holds "$DEV" want "$options: discarded"
	ublk_stop disk
done
