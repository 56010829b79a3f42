#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: skip this machine has no nonesuch
# vm: programs=nonesuch
. /lab/lib.sh

nonesuch
