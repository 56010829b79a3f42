#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL not ended after 4 s.*no good for another test
# vm: timeout=4
. /lab/lib.sh

# Nothing ends a process that waits for a frozen file system.
scratch_fs 64M
fsfreeze --freeze "$SCRATCH"
echo >"$SCRATCH/file"
