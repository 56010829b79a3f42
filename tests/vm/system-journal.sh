#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
. /lab/lib.sh disks system

# What happens to an export is found in the journal by its name, its device, its kind and
# its priority, whichever process tells it; a worker's unit says which export it serves.
service_start

# has WORDS FIELD=VALUE...: a line with these words is in the journal of this boot, by these.
has() {
	local words=$1
	shift
	journalctl --boot --output=cat --no-pager "$@" >lines
	grep -qF -- "$words" lines
}
finds() { retry 20 has "$@" || fail "not in the journal by ${*:2}: '$1': $(tail -n 20 lines)"; }


began=$(date +%s)
ublkctl export one=memory:64M
device=$(export_says one device)
worker=$(export_says one pid)
finds "$device is live" UBLKD_EXPORT=one "UBLKD_DEVICE=$device" _SYSTEMD_UNIT=ublkd.service PRIORITY=6
finds "asks to export" UBLKD_EXPORT=one MESSAGE_ID=e7bc58d356d346d0a7a3616a882c51f8
unit=$(ps -o unit= -p "$worker")
systemctl status --no-pager "$unit" >said
grep -q 'Status: "serves the export one"' said || fail "the unit does not say what it serves: $(cat said)"

# A worker that dies is a warning; nothing before it was one.
journalctl --boot --since="@$began" -p warning --output=cat --no-pager UBLKD_EXPORT=one >lines
[[ ! -s lines ]] || fail "warnings without trouble: $(cat lines)"
kill -KILL "$worker"
finds "one: " UBLKD_EXPORT=one "UBLKD_DEVICE=$device" PRIORITY=4
export_lives one

ublkctl suspend one
finds "suspended: I/O is blocked" UBLKD_EXPORT=one MESSAGE_ID=a2de7b490a66458e94ff6f0308be7af5
ublkctl resume one
ublkctl remove one
finds "removed" UBLKD_EXPORT=one MESSAGE_ID=a2de7b490a66458e94ff6f0308be7af5
systemctl stop ublkd.socket ublkd.service
finds "ublkd stops" _SYSTEMD_UNIT=ublkd.service
# The program's name stands once.
journalctl --boot --output=short --no-pager -u ublkd.service >lines
if grep -E 'ublkd\[[0-9]+\]: ublkd: ' lines; then fail "the program's name is doubled"; fi
# What this systemd does not know is not in its units.
journalctl --boot --output=cat --no-pager | grep -i 'unknown key' | grep -i ublkd >lines || true
[[ ! -s lines ]] || fail "systemd does not know a key of a unit: $(cat lines)"
