#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL the machine died
# shellcheck source=../lib.sh
. /lab/lib.sh

echo c >/proc/sysrq-trigger
