#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Where a setting of the kernel forbids io_uring to workers, that setting is named: when
# ublkd starts, to whoever exports, and for a device whose worker has died meanwhile.
. /lab/lib.sh ublkd

disabled() { echo "$1" >/proc/sys/kernel/io_uring_disabled; }
defer disabled 0

# refused_for WORDS: an export.
refused_for() {
	if timeout -k 5 30 ublkctl export no=memory:16M >export.out 2>&1; then
		fail "exported where io_uring is forbidden"
	fi
	grep -qF -e "$1" export.out || fail "not '$1': $(cat export.out)"
}

disabled 1
ublkd_start
ublkd_says 'kernel.io_uring_disabled is 1' 10
refused_for 'kernel.io_uring_group='
group=$(sed -n 's/.*sysctl kernel.io_uring_group=\([0-9]*\).*/\1/p' export.out | head -n 1)
echo "$group" >/proc/sys/kernel/io_uring_group
export_start ok memory:16M
echo -1 >/proc/sys/kernel/io_uring_group

disabled 2
kill -KILL "$(worker_of ok)"
retry 20 reason_says ok 'kernel.io_uring_disabled is 2' || fail "reason: $(reason_of ok)"
disabled 0
becomes ok live 20
ublkd_stop

disabled 2
! timeout -k 5 30 ublkctl run memory:16M >run.out 2>&1 || fail "served where io_uring is forbidden"
grep -qF 'kernel.io_uring_disabled is 2' run.out || fail "$(cat run.out)"
