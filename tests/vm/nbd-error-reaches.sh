#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# An NBD server's error reaches the application: EIO, ENOSPC and EPERM for each
# operation, as the kernel hands them on, which makes EIO of an errno that it has
# no word for. No connection is lost for it, and the device stays live.
. /lab/lib.sh disks nbd

declare -A heard=(
	[EIO]='Input/output error'
	[ENOSPC]='No space left on device'
	[EPERM]='Input/output error'
)

# failing OPERATION COMMAND...: fails while the server does, and not before or after;
# ends with the server's errno counted.
failing() {
	local before
	"${@:2}" || fail "$1: fails while the server is well: ${*:2}"
	before=$(counted "error.$code")
	: >"$1.fails"
	fails_with "${heard[$code]}" "${@:2}"
	rm "$1.fails"
	(($(counted "error.$code") > before)) || fail "$1: no $code was counted: $(counted)"
	"${@:2}" || fail "$1: fails when the server is well again: ${*:2}"
}

random_file full 64K
for code in EIO ENOSPC EPERM; do
	arguments=(--filter=error memory 16M)
	for op in pread pwrite trim zero; do
		arguments+=("error-$op=$code" "error-$op-rate=100%" "error-$op-file=$PWD/$op.fails")
	done
	nbdkit_start bad unix "${arguments[@]}"
	ublk_start disk "$URI"
	failing pread dd if="$DEV" of=/dev/null bs=64k count=1 iflag=direct status=none
	failing pwrite dd if=full of="$DEV" bs=64k count=1 oflag=direct status=none
	failing trim blkdiscard -o 1M -l 1M "$DEV"
	failing zero fallocate -z -o 2M -l 1M "$DEV"
	holds "$DEV" full
	expect 0 "$(gauge reconnects)" "$code: reconnects"
	ublk_stop disk
	server_stop bad
done

# A flush: a new device for each, for one failed flush may be remembered.
truncate -s 1M image
for code in EIO ENOSPC EPERM; do
	nbdkit_start bad unix eval get_size='echo 1M' \
		pread="dd if='$PWD/image' bs=64k iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
		pwrite="dd of='$PWD/image' bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none" \
		flush="[ ! -e '$PWD/flush.fails' ] || { echo $code >&2; exit 1; }"
	ublk_start disk "$URI"
	dd if=full of="$DEV" bs=4k count=1 oflag=direct status=none
	sync "$DEV" || fail "$code: a flush fails while the server is well"
	dd if=full of="$DEV" bs=4k count=1 oflag=direct status=none
	: >flush.fails
	# fsync knows of a device's error, and not which.
	fails sync "$DEV"
	rm flush.fails
	(($(counted "error.$code") >= 1)) || fail "flush: no $code was counted: $(counted)"
	ublk_stop disk
	server_stop bad
done
