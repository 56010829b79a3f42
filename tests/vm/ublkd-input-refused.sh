#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What is asked of ublkd and makes no sense, or cannot be, is refused: with exit status
# 2 (it was asked for wrongly) or 1 (it failed), one line that names the thing, nothing
# on stdout and no device; the exports that there are never notice.
# vm: timeout=300 once=newest
. /lab/lib.sh disks ublkd orderly

echo precious >exists
head -c 511 /lab/lib.sh >tiny
mkdir directory
mkfifo fifo
# shellcheck disable=SC2034 # the table uses it
long=$(printf 'x%.0s' {1..300})
ublkd_start
export_start taken null:1M --id 5
export_start asleep null:1M
ublkctl suspend asleep
neighbour=$(worker_of taken)
devices=$(echo /dev/ublk[bc]*)

nr=0 wrong=0
while IFS='|' read -r status words arguments; do
	[[ -n $status && $status != \#* ]] || continue
	eval "set -- $arguments"
	read -r words <<<"$words"
	(refuses "$((status))" "$words" "$@") || wrong=$((wrong + 1))
	expect "$devices" "$(echo /dev/ublk[bc]*)" "devices after 'ublkctl $*'"
	nr=$((nr + 1))
done <<'TABLE'
# export: names; what is none is the path of a file
2 | the URI is missing    | export
2 | the URI is missing    | export --persist
2 | the URI is empty      | export ''
2 | not a valid name      | export '../x=null:1M'
2 | not a valid name      | export 'a/b=null:1M'
2 | name                  | export '.=null:1M'
2 | name                  | export '..=null:1M'
2 | name                  | export '.a=null:1M'
2 | unknown option '-a'   | export '-a=null:1M'
2 | name                  | export 'ublkb0=null:1M'
2 | name                  | export 'ublkc7=null:1M'
2 | name                  | export 'a-part1=null:1M'
2 | not a valid name      | export 'a b=null:1M'
2 | not a valid name      | export $'a\nb=null:1M'
2 | not a valid name      | export $'a\tb=null:1M'
2 | not a valid name      | export 'a*=null:1M'
2 | not a valid name      | export 'é=null:1M'
2 | name                  | export "$long=null:1M"
1 | another URI           | export taken=null:2M
1 | other options         | export --depth 7 taken=null:1M
# export: URIs
2 | scheme 'floppy:'      | export a=floppy:1M
2 | scheme 'http:'        | export a=http://example/disk
2 | expected one URI      | export a=null:1M b=null:1M
2 | null:0                | export a=null:0
2 | null:-1               | export a=null:-1
2 | null:1X               | export a=null:1X
2 | null:8E               | export a=null:8E
2 | memory:               | export a=memory:
2 | host is missing       | export a=nbd://
2 | socket is missing     | export a=nbd+unix:///export
2 | has no TLS            | export -o tls-psk-file=keys a=nbd://localhost
# export: options
2 | unknown option        | export --frob a=null:1M
2 | needs a value         | export a=null:1M --queues
2 | depth                 | export --depth 0 a=null:1M
2 | depth                 | export --depth many a=null:1M
2 | queues                | export --queues 0 a=null:1M
2 | block-size            | export --block-size 513 a=null:1M
2 | max-io                | export --max-io 5000 a=null:1M
2 | 'a b' is not a valid  | export 'a b=memory:1M'
2 | 'a/b' is not a valid  | export a/b=memory:1M
2 | number of a device    | export 1=memory:1M
2 | multiple             | export odd=memory:1000
1 | no export 'TYPO'     | remove TYPO
1 | no export '/dev/ublkb77' | remove /dev/ublkb77
2 | +X                   | resize taken +X
2 | io-path               | export --io-path teleport a=null:1M
2 | id                    | export --id -1 a=null:1M
2 | cpus                  | export --cpus x a=null:1M
2 | partitions            | export --partitions maybe a=null:1M
2 | frob                  | export -o frob=1 a=null:1M
2 | limit                 | export -o limit=much a=memory:1M
2 | create                | export --create 1M a=memory:1M
1 | 5                     | export --id 5 a=null:1M
# export: storage
1 | no such file          | export a=/nothing
1 | fd/77                 | export a=/proc/self/fd/77
1 | directory             | export "a=$PWD/directory"
1 | /dev/zero             | export a=/dev/zero
1 | fifo                  | export "a=$PWD/fifo"
2 | smaller than          | export "a=$PWD/tiny"
1 | exists                | export --create 1M "a=$PWD/exists"
1 | directory/none           | export --create 1M "a=$PWD/directory/none/new"
1 | is the port right     | export a=nbd://127.0.0.1:9/
1 | no such socket        | export "a=nbd+unix:///?socket=$PWD/nothing"
# the verbs that name an export
2 | expected one          | remove
2 | expected one          | remove a b
2 | unknown option        | remove --frob taken
1 | none                  | show none
2 | expected one          | show
2 | expected one          | show a b
2 | unknown option        | show --frob taken
1 | none                  | stats none
2 | expected one          | stats
1 | none                  | suspend none
2 | expected one          | suspend
2 | unknown option        | suspend --frob taken
1 | none                  | resume none
2 | expected one          | resume
1 | none                  | upgrade none
2 | all                   | upgrade
2 | all                   | upgrade --all taken
1 | suspended             | upgrade asleep
1 | none                  | resize none 1M
2 | 1X                    | resize taken 1X
2 | -1                    | resize taken -- -1
2 |                       | resize taken 0
2 | expected one          | resize
1 | suspended             | resize asleep 2M
1 | ../taken              | show ../taken
1 | /dev/ublkb77          | show /dev/ublkb77
1 | x                     | show "$long"
# those that name none
2 | everything            | list everything
2 | unknown option        | list --frob
2 | please                | reload please
2 | unknown option        | reload --frob
2 | please                | shutdown please
2 | unknown option        | shutdown --frob
2 | please                | monitor please
1 | nothing               | check-config nothing
1 | exists                | check-config exists
2 | expected one          | wait
2 | timeout               | wait --timeout soon taken
1 | none                  | wait --timeout 1s none
# where nobody answers
1 | not running           | list --socket /nothing --json
1 | not running           | show --socket /nothing taken
1 | not running           | export --socket /nothing a=null:1M
1 | exists                | show --socket exists taken
1 | long                  | show --socket "/$long" taken
TABLE
((wrong == 0)) || fail "$wrong of $nr cases"
((nr >= 80)) || fail "only $nr cases"
expect precious "$(cat exists)" "a file that was refused"

# Names that ublkctl would take for something else.
for name in '' . .. ../x a/b 'a b' 'a\nb' 'a\u0000' 'a*' é -a .a ublkb0 ublkc0 ublk-control a-part1 "$long"; do
	printf '{"method":"io.ublkd.Export","parameters":{"name":"%s","uri":"null:1M"}}\0' "$name" |
		/lab/bin/unix-talk --wait 30000 --replies 1 /run/ublkd/io.ublkd | tr -d '\0' >answer
	jq -e '.error | test("Invalid")' answer >/dev/null || fail "the name '$name': $(cat answer)"
done
expect "$devices" "$(echo /dev/ublk[bc]*)" "devices after names that are none"

# ublkd's own command line, and what it stands on.
program_refuses 2 "unknown option '--frob'" ublkd --frob
program_refuses 2 "unknown option '-x'" ublkd -x
program_refuses 2 'needs a value' ublkd --config
program_refuses 2 'takes options only' ublkd please
program_refuses 2 'verbose' ublkd --verbose=maybe
program_refuses 1 "another ublkd is running (process $UBLKD" ublkd
program_refuses 1 '/nothing/state' ublkd --state /nothing/state
program_refuses 1 'run ublkd as root' setpriv --reuid=65534 --regid=65534 --clear-groups \
	"$(type -P ublkd)" --state /run/other
program_refuses 1 'exists' ublkd --state "$PWD/exists"
mkdir other
printf '%s\n' '[ublkd]' 'worker-user = nosuchuser' >other/ublkd.conf
program_refuses 1 "there is no user 'nosuchuser'" ublkd --config "$PWD/other" --state "$PWD/state"
printf '%s\n' '[ublkd]' 'worker-user = root' >other/ublkd.conf
program_refuses 1 'without privilege' ublkd --config "$PWD/other" --state "$PWD/state"

expect "$neighbour" "$(worker_of taken)" "the worker of another"
expect live "$(state_of taken)" "the state of another"
ublkctl resume asleep
orderly "after $nr refusals"
ublkd_stop
