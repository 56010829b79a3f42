#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL exit status 1
# shellcheck source=../lib.sh
. /lab/lib.sh

false
exit 0
