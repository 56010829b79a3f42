#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: skip there is no such thing here
. /lab/lib.sh

skip "there is no such thing here"
