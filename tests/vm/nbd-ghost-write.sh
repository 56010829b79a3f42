#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# A server sits on a write while its connection is given up. The write is sent again
# on a new one, and the block written anew; then the first write comes to its end
# at last. The newer data survives, or the newer write was refused.
# shellcheck source=lib.sh
. /lab/lib.sh
# shellcheck source=guest/disks.sh
. /lab/disks.sh
# shellcheck source=guest/nbd.sh
. /lab/nbd.sh

# The first write that comes while "hold" is there waits until "release" is there.
truncate -s 1M image
nbdkit_start main unix eval get_size='echo 1M' flush='exit 0' can_multi_conn='exit 0' \
	pread="dd if='$PWD/image' bs=64k iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none" \
	pwrite="cd '$PWD'
		cat >data.\$\$
		if rm hold 2>/dev/null; then
			: >held
			for i in \$(seq 600); do
				[ ! -e release ] || break
				sleep 0.1
			done
			dd if=data.\$\$ of=image bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none
			: >landed
		else
			dd if=data.\$\$ of=image bs=64k oflag=seek_bytes seek=\$4 conv=notrunc status=none
		fi
		rm data.\$\$"

random_file older 4K
random_file newer 4K
ublk_start disk -o request-timeout=2 "$URI"
: >hold
fill "$DEV" older 2>older.err &
older=$!
retry 20 test -e held || fail "the first write did not arrive"
says 'is lost'
# Sent again and acknowledged while the first is still about, or kept back for as
# long as that is so. (Time decides only which of the two is seen.)
newer_status=waits
if retry 10 lab_gone $older; then
	wait $older || fail "the first write: $(cat older.err)"
	newer_status=well
	timeout -k 5 10 dd if=newer of="$DEV" bs=4k oflag=direct status=none 2>newer.err ||
		newer_status=refused
fi
: >release
retry 30 test -e landed || fail "the first write did not land"
if [[ $newer_status == waits ]]; then
	retry 40 lab_gone $older || fail "the first write never ends"
	wait $older || fail "the first write: $(cat older.err)"
	fill "$DEV" newer
	newer_status=well
fi
echo "the newer write: $newer_status"
if [[ $newer_status == well ]]; then
	holds "$DEV" newer "an older write has come over the newer one"
	cmp -n 4096 newer image || fail "an older write has come over the newer one, in the file"
fi
