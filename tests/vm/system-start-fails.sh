#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie own-boot timeout=500 once=newest
#
# An ublkd that cannot start, here without its user, is not restarted for ever: the unit
# fails, where `systemctl --failed` shows it, and the journal has the cause. It starts
# again when the cause is gone. A kill now and then is no such thing.
. /lab/lib.sh disks system

service_start
for _ in 1 2 3 4 5; do
	old=$(service_pid)
	kill -KILL "$old"
	retry 30 service_is_back "$old" || fail "ublkd does not come back after a kill"
done
systemctl stop ublkd.socket ublkd.service

cp /etc/passwd passwd.before
sed -i '/^ublkd:/d' /etc/passwd
systemctl reset-failed ublkd.service
# With Type=notify, what is waited for is the first attempt.
systemctl start ublkd.service || true
has_failed() { systemctl is-failed --quiet ublkd.service; }
retry 350 has_failed || fail "it is still restarted: $(systemctl status --no-pager ublkd.service)"
[[ $(systemctl --failed --plain --no-legend) == *ublkd.service* ]] || fail "--failed does not list it"
[[ $(journalctl --boot --unit=ublkd.service --output=cat) == *"no user 'ublkd'"* ]] ||
	fail "the journal does not have the cause"

cp passwd.before /etc/passwd
systemctl reset-failed ublkd.service ublkd.socket
systemctl start ublkd.socket ublkd.service || fail "it does not start again"
ublkctl export ram=memory:16M
