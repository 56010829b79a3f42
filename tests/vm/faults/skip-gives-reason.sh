#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: skip there is no such thing here
# shellcheck source=../lib.sh
. /lab/lib.sh

skip "there is no such thing here"
