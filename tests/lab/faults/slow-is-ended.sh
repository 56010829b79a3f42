#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL not ended after 4 s
# vm: timeout=4
. /lab/lib.sh

sleep 1000
