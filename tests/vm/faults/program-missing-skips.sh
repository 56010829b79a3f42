#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: skip this machine has no nonesuch
# vm: programs=nonesuch
# shellcheck source=../lib.sh
. /lab/lib.sh

nonesuch
