#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
. /lab/lib.sh

scratch_fs 64M
echo fine >"$SCRATCH/file"
