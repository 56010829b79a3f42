#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL .*the machine died
# vm: system=trixie boots=2
. /lab/lib.sh

# Another boot is wanted in order only, or when it was said before.
echo b >/proc/sysrq-trigger
sleep infinity
