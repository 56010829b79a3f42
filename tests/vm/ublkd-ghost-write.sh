#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=newest
#
# A write that a killed worker had sent, and that its NBD server holds back, does not
# land after a newer one of the same block: the next worker serves once the server has
# ended the old connection.
# shellcheck source=lib.sh
. /lab/lib.sh
# shellcheck source=guest/disks.sh
. /lab/disks.sh
# shellcheck source=guest/nbd.sh
. /lab/nbd.sh
# shellcheck source=guest/ublkd.sh
. /lab/ublkd.sh

put() { # LETTER: a block of it, directly
	head -c 4096 /dev/zero | tr '\0' "$1" | dd of="$device" bs=4096 count=1 oflag=direct status=none
}

truncate -s 64M back
ublkd_start
# The first write of all waits, those after it do not.
nbdkit_start main unix eval thread_model='echo parallel' get_size='echo 64M' can_write='exit 0' \
	can_flush='exit 0' flush='exit 0' \
	pread="dd if='$PWD/back' bs=4096 iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
	pwrite="if mkdir '$PWD/held'; then sleep 4; fi 2>/dev/null
		dd of='$PWD/back' conv=notrunc oflag=seek_bytes seek=\$4 status=none"
ublkctl export remote="$URI" --queues 1 >device
device=$(<device)
{ put A && put B; } &
writer=$!
retry 30 test -d held || fail "the server has not been asked to write"
worker_kill remote
wait "$writer" || fail "a write has failed"
sleep 6
expect B "$(head -c 1 back)" "what the server has in the end"
ublkd_stop
