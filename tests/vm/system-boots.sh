#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
. /lab/lib.sh

# The guest with systemd is up, with nothing that failed, and has the driver and what
# is built here.
expect running "$(systemctl is-system-running --wait)" "$(systemctl --failed)"
modprobe ublk_drv
[[ -c /dev/ublk-control ]] || fail "the driver has no device"
ublkctl --version
[[ $(ldd "$(command -v ublkctl)") != *'not found'* ]] || fail "a library is missing"
