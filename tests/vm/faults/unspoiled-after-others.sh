#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
# shellcheck source=../lib.sh
. /lab/lib.sh

[[ ! -e ${PWD%/*}/stuck-spoils-machine ]]
