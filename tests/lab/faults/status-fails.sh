#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL exit status 1
. /lab/lib.sh

false
exit 0
