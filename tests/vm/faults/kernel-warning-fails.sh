#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL the kernel said: WARNING: CPU: 1 PID: 12 at fs/nowhere
# shellcheck source=../lib.sh
. /lab/lib.sh

echo "WARNING: CPU: 1 PID: 12 at fs/nowhere" >/dev/kmsg
