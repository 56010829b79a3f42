#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# What a server says of itself, names, descriptions, error messages, does not
# reach the terminal as it is: control characters are escaped.
. /lab/lib.sh disks nbd

# clean FILE: nothing but printable ASCII and line ends.
clean() { [[ -z $(tr -d '\040-\176\n' <"$1") ]] || fail "control characters in $1: $(od -c "$1")"; }

# The last of it is CSI as one character.
evil=$'evil\e[31m\e]0;title\a\xc2\x9b31m'
nbdkit_start main unix --filter=exportname memory 1M "exportname=$evil" \
	exportname-list=explicit "exportdesc=fixed:$evil"$'\ntwo lines' exportname-strict=true
ublkctl nbd-list "$URI" >list.txt 2>list.err || true
cat -v list.txt list.err
grep -q evil list.txt || fail "the export is not listed"
clean list.txt
clean list.err
expect 0 "$(grep -c '^two lines' list.txt)" "lines that the server has made up"
ublkctl nbd-list --json "$URI" >list.json 2>list.err
clean list.json
clean list.err
jq -e --arg name "$evil" 'any(.name == $name)' list.json >/dev/null ||
	fail "the JSON has not the name: $(cat list.json)"
server_stop main

# The server refuses with words of its own; the URI has them, too.
nbdkit_start main unix eval get_size='echo 1M' \
	open="printf 'EIO \033[31mred\033[0m\a' >&2; exit 1" pread='exit 1'
uri="nbd+unix:///name%1b%5b31m?socket=$PWD/main.sock"
refuses 1 '' run "$uri"
cat -v refused.err
clean refused.err
uri="nbd+unix:///"$'name\e[31m'"?socket=$PWD/main.sock"
refuses 2 '' run "$uri"
cat -v refused.err
clean refused.err
