#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=newest
#
# What answers on the server's address when it is back is another export: smaller,
# read-only, without flush, of larger blocks. It is refused, this is said, nothing
# is written to it, and I/O waits until the right one is there again. One that has
# only grown is taken.
. /lab/lib.sh disks nbd

random_file wrong 32M
cp wrong wrong.before
truncate -s 64M image
right=(file image)

nbdkit_set main unix "${right[@]}"
server_start main
ublk_start disk "$URI"

# changed WORDS ARGUMENTS...: the server comes back with these.
changed() {
	local words=$1 said waiting
	shift
	random_file data 64K
	fill "$DEV" data # not flushed: it will want to be sent again
	said=$(lines 'suspended')
	server_kill main
	random_file data 64K
	fill "$DEV" data 2>waiting.err &
	waiting=$!
	nbdkit_set main unix "$@"
	server_start main
	retry 40 gauge_is suspended 1 || fail "$words: not suspended"
	(($(lines 'suspended') > said)) || fail "$words: not said"
	kill -0 $waiting || fail "$words: a write has ended: $(cat waiting.err)"
	server_kill main
	cmp wrong wrong.before || fail "$words: the wrong export was written to"
	nbdkit_set main unix "${right[@]}"
	server_start main
	retry 40 lab_gone $waiting || fail "$words: the write still waits with the right server back"
	wait $waiting || fail "$words: $(cat waiting.err)"
	retry 20 gauge_is suspended 0 || fail "$words: still suspended"
	sync "$DEV"
	holds "$DEV" data "$words"
	echo "well: $words"
}

changed smaller file wrong
truncate -s 64M wrong wrong.before
changed read-only -r file wrong
changed 'without flush' eval get_size='echo 64M' \
	pread="dd if='$PWD/wrong' bs=64k iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
	pwrite="dd of='$PWD/wrong' bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none"
changed 'larger blocks' --filter=blocksize-policy file wrong blocksize-minimum=4096 \
	blocksize-preferred=64K

# Grown: what the device makes of it is another test's matter.
random_file data 64K
server_kill main
truncate -s 128M image
server_start main
fill "$DEV" data
holds "$DEV" data
expect 0 "$(gauge suspended)" "suspended by an export that has grown"
ublk_stop disk
server_stop main
cmp -n 65536 data image || fail "the server's file has not what was written"
cmp wrong wrong.before || fail "the wrong export was written to"
