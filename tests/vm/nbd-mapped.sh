#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# What an NBD server says that it is and can do is what sysfs shows of the device,
# and trims, zeroes, flushes and FUA writes arrive at the server as they were sent.
. /lab/lib.sh disks nbd

# mapped ARGUMENTS...: a device of a new nbdkit with these arguments; what follows is about it.
mapped() {
	nbdkit_start map unix "$@"
	asked "$URI"
	asked_for="$*"
}

# offers ATTRIBUTE: a number above 0.
offers() { (($(sysfs_of "$DEV" "$1") > 0)) || fail "$asked_for: $1 is 0"; }

over() {
	ublk_stop disk
	server_stop map
}

# arrived PATTERN [TIMES]: the server's log has it, so many times.
arrived() {
	local found
	found=$(grep -cE -e " $1" server.log) || true
	expect "${2:-1}" "$found" "requests like '$1' ($(tail -n 20 server.log))"
}

mapped memory $(((3 << 20) + 512))
shows size $(((6 << 10) + 1)) ro 0 queue/logical_block_size 512 queue/rotational 0 \
	queue/write_cache 'write back' queue/fua 1
offers queue/discard_max_bytes
offers queue/write_zeroes_max_bytes
over

# Blocks are counted down: what is no whole one is not there.
mapped memory $(((1 << 20) + 100))
shows size 2048
over

mapped -r memory 1M
shows ro 1 queue/discard_max_bytes 0 queue/write_zeroes_max_bytes 0
fails dd if=/dev/zero of="$DEV" bs=4k count=1 oflag=direct
over

nbdkit_start map unix memory 1M
ublk_start disk --read-only "$URI"
asked_for='--read-only'
shows ro 1
over

mapped --filter=blocksize-policy memory 16M blocksize-minimum=4096 blocksize-preferred=64K \
	blocksize-maximum=256K blocksize-error-policy=error
shows queue/logical_block_size 4096 queue/minimum_io_size 65536 queue/max_hw_sectors_kb 256
random_file full 16M
fill "$DEV" full
holds "$DEV" full
over

# The engine serves blocks of up to 4096 bytes.
nbdkit_start map unix --filter=blocksize-policy memory 16M blocksize-minimum=8192 \
	blocksize-preferred=64K
refuses 1 'block' run "$URI"
server_stop map

mapped --filter=fua memory 1M
shows queue/write_cache 'write back' queue/fua 0
over

mapped --filter=nozero memory 1M
shows queue/write_zeroes_max_bytes 0
offers queue/discard_max_bytes
over

# Plugins of a few lines: all of it in a file.
truncate -s 4M plain
read_it="dd if='$PWD/plain' bs=64k iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none"
write_it="dd of='$PWD/plain' bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none"

mapped eval get_size='echo 4M' pread="$read_it" pwrite="$write_it" flush='exit 0' \
	is_rotational='exit 0'
shows queue/rotational 1 queue/write_cache 'write back' queue/discard_max_bytes 0
over

# No flush: no cache that the kernel could have flushed, and it is said.
mapped eval get_size='echo 4M' pread="$read_it" pwrite="$write_it"
shows queue/write_cache 'write through' queue/fua 0 queue/rotational 0
expect 1 "$(grep -c 'warning: .*flush' disk.err)" "warnings of a server without flush"
random_file one 64K
fill "$DEV" one
sync "$DEV"
holds "$DEV" one
cmp -n 65536 one plain || fail "not what was written"
over

# What arrives. The kernel keeps blocks where it says so: no hole.
MiB=$((1 << 20))
random_file full 8M
cp full image
nbdkit_start map unix --filter=log file image logfile="$PWD/server.log" logappend=true
ublk_start disk "$URI"
cp full want
blkdiscard -o $MiB -l $MiB "$DEV"
arrived 'Trim id=[0-9]* offset=0x100000 count=0x100000 '
blkdiscard -z -o $((2 * MiB)) -l $MiB "$DEV"
zero_in want $((2 * MiB)) $MiB
arrived 'Zero id=[0-9]* offset=0x200000 count=0x100000 trim=0'
fallocate -p -o $((4 * MiB)) -l $MiB "$DEV"
zero_in want $((4 * MiB)) $MiB
arrived 'Zero id=[0-9]* offset=0x400000 count=0x100000 trim=1'
dd if=full of="$DEV" bs=4k count=1 oflag=direct,dsync status=none
arrived 'Write id=[0-9]* offset=0x0 count=0x1000 fua=1'
dd if=full of="$DEV" bs=4k count=1 skip=4 seek=4 oflag=direct status=none
arrived 'Write id=[0-9]* offset=0x4000 count=0x1000 fua=0'
before=$(grep -c ' Flush id=' server.log) || true
sync "$DEV"
(($(grep -c ' Flush id=' server.log) > before)) || fail "no flush has arrived"
# Of what is trimmed nothing is promised; the file plugin makes it zeroes.
zero_in want $MiB $MiB
holds "$DEV" want "after trims and zeroes"
over
cmp image want || fail "the server's file is not what the device was"
