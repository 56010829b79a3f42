#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
. /lab/lib.sh

[[ ! -e ${PWD%/*}/stuck-spoils-machine ]]
