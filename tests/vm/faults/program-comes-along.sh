#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
# vm: programs=tac
# shellcheck source=../lib.sh
. /lab/lib.sh

expect ba "$(printf 'a\nb\n' | tac | tr -d '\n')"
