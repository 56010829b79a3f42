#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
. /lab/lib.sh system

# What an installation brings is right: users, directories, units, the udev rule; and the
# service may do little, a worker nothing.
getent passwd ublkd || fail "there is no user ublkd"
systemd-analyze verify --man=no ublkd.service ublkd.socket ublk@data.service ||
	fail "systemd-analyze verify"
systemd-analyze security --no-pager --threshold=23 ublkd.service ||
	fail "exposed by more than 2.3"

service_start
expect running "$(systemctl is-system-running)" "$(systemctl --failed)"
[[ -d /sys/module/ublk_drv ]] || fail "the driver is not loaded"

DEV=$(realpath "$(ublkctl export 'sec.ure=memory:64M')")
udevadm settle --timeout=60
[[ " $(udevadm info --query=symlink "$DEV") " == *" ublk/sec.ure "* ]] ||
	fail "udev knows the device by $(udevadm info --query=symlink "$DEV")"
expect "$DEV" "$(realpath /dev/ublk/sec.ure)"

# No other user reaches the control socket or the state.
refused setpriv --reuid=nobody --regid=nogroup --clear-groups ublkctl list
refused setpriv --reuid=nobody --regid=nogroup --clear-groups ls /run/ublkd/exports
refused setpriv --reuid=ublkd --regid=nogroup --clear-groups ls /run/ublkd/exports

pid=$(export_says sec.ure pid)
uid=$(id -u ublkd)
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
expect "$uid" "$(status Uid)"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
	expect 0000000000000000 "$(status $set)" "$set of a worker:"
done
expect 1 "$(status NoNewPrivs)"
expect 2 "$(status Seccomp)"
[[ $(readlink "/proc/$pid/ns/mnt") != "$(readlink "/proc/$(service_pid)/ns/mnt")" ]] ||
	fail "the worker sees ublkd's mounts"
