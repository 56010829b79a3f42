#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL the kernel said: WARNING: CPU: 1 PID: 12 at fs/nowhere
. /lab/lib.sh

echo "WARNING: CPU: 1 PID: 12 at fs/nowhere" >/dev/kmsg
