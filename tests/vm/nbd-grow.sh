#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=newest
#
# Storage that grows under a writer: on "ublkctl resize" and, an NBD export, when its
# server is back, the device grows with it and has what is there; the writer hears
# nothing. A kernel that cannot resize a live device says so once and leaves it.
. /lab/lib.sh disks nbd

can_grow() {
	ublkctl features --json |
		jq -e '.features | any(.name == "update-size" and .available)' >/dev/null
}

size_is() { [[ $(blockdev --getsize64 "$DEV") == "$1" ]]; }

# append FILE SIZE: it grows to this size, with something at its new end.
append() {
	random_file "end.$2" 64K
	truncate -s "$2" "$1"
	dd if="end.$2" of="$1" bs=64k oflag=seek_bytes conv=notrunc status=none \
		seek=$(($(numfmt --from=iec "$2") - 65536))
}

# follows FILE OLD NEW: the device, storage that has grown.
follows() {
	local old new words
	old=$(numfmt --from=iec "$2") new=$(numfmt --from=iec "$3")
	if ! can_grow; then
		words="the storage has grown to $3, the device stays at $2"
		says "$words" 20
		expect 1 "$(lines "$words")" "warnings"
		size_is "$old" || fail "the device is $(blockdev --getsize64 "$DEV") bytes"
		return
	fi
	retry 20 size_is "$new" || fail "the device is $(blockdev --getsize64 "$DEV") bytes"
	dd if="$DEV" of=found bs=64k iflag=direct,skip_bytes count=1 skip=$((new - 65536)) status=none
	cmp found "end.$3" || fail "$3: not what the storage has at its new end"
	# One that crosses the old end.
	dd if="end.$3" of="$DEV" bs=64k oflag=direct,seek_bytes seek=$((old - 32768)) status=none
	sync "$DEV"
	cmp -n 65536 "end.$3" "$1" 0 $((old - 32768)) || fail "$3: not written to the storage"
	expect 0 "$(lines 'the device stays at')" "refusals to grow"
}

# resized FILE OLD NEW: ublkctl resize, and what comes of it.
resized() {
	local words='this kernel cannot resize a live device' status=0
	timeout -k 5 40 ublkctl resize "$DEV" >resize.out 2>&1 || status=$?
	cat resize.out
	if can_grow; then
		expect 0 "$status" "ublkctl resize's status"
		follows "$@"
	else
		expect 1 "$status" "ublkctl resize's status"
		grep -q "$words" resize.out || fail "resize.out: not '$words'"
		size_is "$(numfmt --from=iec "$2")" || fail "it has another size"
	fi
}

start=64M
if can_grow; then now=96M; else now=$start; fi

truncate -s $start image
nbdkit_start main unix file image
ublk_start disk --queues 2 "$URI"
# Its blocks end before the old end's last 32K.
writer_start --blocks 2000 --threads 8 --ops 1000000 --flush 2 --fua 2 --zero 2
writer_goes_on 100
append image 96M
resized image $start 96M
writer_goes_on 100
server_kill main
append image 128M
server_start main
follows image $now 128M
writer_goes_on 100
writer_stop
expect 0 "$(counted write.failed)" "failed writes"
expect 0 "$(counted flush.failed)" "failed flushes"
promises_kept "$DEV"
ublk_stop disk
server_stop main
promises_kept image
rm image

scratch_fs 256M
truncate -s $start "$SCRATCH/image"
ublk_start disk "$SCRATCH/image"
append "$SCRATCH/image" 96M
resized "$SCRATCH/image" $start 96M
ublk_stop disk
