#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
# vm: system=trixie boots=3
. /lab/lib.sh system

# What was written is there after a reboot, and after a power cut if it was flushed.
case $LAB_BOOT in
1)
	echo reboot >/srv/said
	reboot_machine
	;;
2)
	expect reboot "$(</srv/said)"
	echo cut >/srv/said
	sync
	cut_machine
	;;
esac
expect cut "$(</srv/said)"
