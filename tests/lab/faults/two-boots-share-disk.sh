#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
# vm: boots=2 disk=64M smp=3
. /lab/lib.sh

# The first boot ends without a word, as if power failed.
expect 3 "$(nproc)"
if ((LAB_BOOT == 1)); then
	echo written | dd of=/dev/vda bs=4096 conv=sync oflag=direct status=none
	poweroff -f
	sleep 100
fi
expect written "$(head -c 7 /dev/vda)"
