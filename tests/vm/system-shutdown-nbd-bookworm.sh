#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=bookworm boots=2 disk=512M once=6.12 timeout=300
#
# The same with systemd 252, which spares no worker at the end: the file systems that its
# manager unmounts are not touched by that.
# shellcheck source=system-shutdown-nbd.sh
. /lab/tests/system-shutdown-nbd.sh
