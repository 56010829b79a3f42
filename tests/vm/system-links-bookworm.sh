#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=bookworm once=6.12
#
# The same with systemd 252, whose udev does not know ublk devices by itself.
# shellcheck source=system-links.sh
. /lab/tests/system-links.sh
