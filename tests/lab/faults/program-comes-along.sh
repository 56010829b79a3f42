#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: ok
# vm: programs=tac
. /lab/lib.sh

expect ba "$(printf 'a\nb\n' | tac | tr -d '\n')"
