#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL the kernel said: UBSAN
. /lab/lib.sh

echo "UBSAN: array-index-out-of-bounds in io_uring/rsrc.c:1070:31" >/dev/kmsg
