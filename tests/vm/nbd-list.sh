#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# nbd-list tells a server's exports and what each can do; as JSON, too.
. /lab/lib.sh disks nbd

# Of one export: NAME KEY.
of() { jq -r --arg name "$1" --arg key "$2" '.[] | select(.name == $name) | .[$key]' list.json; }

# can NAME ABILITY: true or false.
can() {
	jq --arg name "$1" --arg what "$2" \
		'.[] | select(.name == $name) | .abilities | any(. == $what)' list.json
}

mkdir exports
truncate -s 1M exports/small
truncate -s 3G exports/large
nbdkit_start main unix file dir="$PWD/exports"
ublkctl nbd-list "$URI" >list.txt
cat list.txt
grep -q small list.txt || fail "small is not listed"
grep -q large list.txt || fail "large is not listed"
ublkctl nbd-list --json "$URI" >list.json
jq . list.json
expect 1048576 "$(of small size)" "small: size"
expect $((3 << 30)) "$(of large size)" "large: size"
expect false "$(can large read-only)" "large: read-only"
expect true "$(can large flush)" "large: flush"
ublk_start disk "nbd+unix:///small?socket=$PWD/main.sock"
expect 2048 "$(sysfs_of "$DEV" size)" "the size of small"
ublk_stop disk
server_stop main

nbdkit_start main unix -r memory 1M
ublkctl nbd-list --json "$URI" >list.json
expect true "$(can "" read-only)" "read-only"
server_stop main

refuses 1 main.sock nbd-list "$URI"
