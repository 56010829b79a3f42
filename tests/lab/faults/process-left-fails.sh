#!/bin/bash
# SPDX-License-Identifier: MIT
# expect: FAIL left behind: process [0-9]+ ublk-left
. /lab/lib.sh

cp "$(type -P bash)" ublk-left
./ublk-left -c 'while :; do read -r -t 10 || :; done' <> <(:) &
retry 10 pgrep ublk-left
