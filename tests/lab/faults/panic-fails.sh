#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL the machine died
. /lab/lib.sh

echo c >/proc/sysrq-trigger
