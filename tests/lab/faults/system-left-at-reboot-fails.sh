#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL .*when the machine was ended: left behind: /dev/ublk
# vm: system=trixie boots=2
. /lab/lib.sh system

# Its server dies without a chance to remove the device.
modprobe ublk_drv
systemd-run --property=KillSignal=SIGKILL ublkctl run null:1G
retry 30 test -e /dev/ublkb0
reboot_machine
