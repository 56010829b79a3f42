#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL left behind: /dev/ublkb77
. /lab/lib.sh

mknod /dev/ublkb77 b 1 0
