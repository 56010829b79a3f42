#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest timeout=300
#
# What ublkctl prints with --json matches the installed schemas, and has no property that they
# do not describe: with and without ublkd, for file, memory and NBD exports, healthy and in
# trouble, for devices of other programs, and for wrong declarations.
. /lab/lib.sh disks nbd ublkd

schemas=/usr/local/share/ublkd/schemas
declare -A checked=()

# matches VERB FILE: the output in FILE.
matches() {
	/lab/bin/json-schema "$schemas/$1.json" "$2" >nr ||
		fail "$1: the output does not match: $(<"$2")"
	checked[$1]=yes
}

# prints STATUS VERB ARGUMENTS...: the output matches; it stays in VERB.json.
prints() {
	local wanted=$1 verb=$2 status=0
	timeout -k 5 60 ublkctl "$verb" --json "${@:3}" >"$verb.json" || status=$?
	expect "$wanted" "$status" "the status of ublkctl $verb --json ${*:3}"
	matches "$verb" "$verb.json"
}

# has VERB FILTER: the last output of VERB is of the case that is to be checked.
has() { jq -e "$2" "$1.json" >/dev/null || fail "$1: not so: $2: $(<"$1.json")"; }

# lists FILTER: whether the list is such by now.
lists() { prints 0 list && jq -e "$1" list.json >/dev/null; }

# about_each NAME...: all that is printed of exports.
about_each() {
	local name
	prints 0 list
	for name; do
		prints 0 show "$name"
		prints 0 stats "$name"
	done
}

# is_line_by_line VERB FILE: each line is a document.
is_line_by_line() {
	matches "$1" "$2"
	expect "$(wc -l <"$2")" "$(<nr)" "$1: documents, for as many lines"
}

# run_json ARGUMENTS...: ublkctl run --json, until it is live; sets DEV and PID.
run_json() {
	: >run.json # "live" of an earlier device must not be taken for that of this one
	ublkctl run --json "$@" >run.json 2>run.err &
	PID=$!
	defer "kill $PID 2>/dev/null; retry 20 lab_gone $PID"
	retry 60 grep -q '"live"' run.json || fail "run $*: not live"
	DEV=$(jq -r .device run.json)
	dd if="$DEV" of=/dev/null bs=64k count=4 iflag=direct status=none
}

run_end() {
	kill -TERM "$PID"
	wait "$PID" || fail "run ended with status $?"
	is_line_by_line run run.json
	expect 'live end' "$(jq -s -r 'map(.event) | join(" ")' run.json)" "run: the events"
	jq -e -s '.[1].operations[0].completed >= 4' run.json >/dev/null || fail "run: no reads"
}

can_resize() {
	ublkctl features --json |
		jq -e '.features | any(.name == "update-size" and .available)' >/dev/null
}

is_health() { [[ $(about "$1" .export.health) == "$2" ]]; }

scratch_fs 256M
here=$PWD
truncate -s 16M remote
nbdkit_start main unix file remote
remote=$URI

echo "at $SECONDS s: without ublkd"
prints 0 features
prints 0 backends
prints 0 nbd-list "$remote"
prints 0 list
has list 'length == 0'
run_json "$SCRATCH/alone" --create 16M
run_end
run_json "$remote" --queues 2
run_end
run_json memory:16M
kill -KILL "$PID"
wait "$PID" 2>/dev/null || true
defer "timeout -k 5 60 ublkctl remove $DEV"
# The kernel notices after a moment.
retry 30 lists '.[0].reason' || fail "list: no reason for $DEV"
prints 0 show "$DEV"
timeout -k 5 60 ublkctl remove "$DEV"
run_json memory:16M
foreign=$DEV
prints 0 list
has list '.[0] | .origin == "foreign" and .program == "ublkctl"'
prints 0 show "$foreign"
! can_resize || prints 0 resize "$foreign"

echo "at $SECONDS s: with ublkd"
mkdir -p config/exports.d
defer ublkd_clean
printf '%s\n' "uri = $here/absent" >config/exports.d/absent.conf
printf '%s\n' 'uri = null:1M' 'frob = 1' >config/exports.d/wrong.conf
printf '%s\n' 'uri = null:1M' >'config/exports.d/no name.conf'
prints 1 check-config config
has check-config '.errors | any(.line and .export) and any(.export | not)'
ublkd_start
ublkctl monitor --json >monitor.json 2>monitor.err &
monitor=$!
defer "kill $monitor 2>/dev/null"
prints 0 export "file=$SCRATCH/image" --create 64M --queues 2
prints 0 export memory=memory:16M -o limit=4M
prints 0 export "remote=$remote" -o connections=2
for name in file memory remote; do
	dd if=/dev/zero of="/dev/ublk/$name" bs=64k count=4 oflag=direct,dsync status=none
done
about_each file memory remote
prints 0 show wrong
has show '.export | .state == "failed" and .cause == "configuration"'
prints 0 show absent
has show '.export.health == "waiting"'
prints 0 show "$foreign"
has show '.export.state == "foreign"'
! can_resize || { prints 0 resize file 96M && has resize ".size == $((96 << 20))"; }

echo "at $SECONDS s: with users"
mkfs.ext4 -q /dev/ublk/file
mkdir mounted
mount /dev/ublk/file mounted
defer "umount '$here/mounted' 2>/dev/null"
sleep 600 9</dev/ublk/remote &
user=$!
defer "kill $user 2>/dev/null"
prints 0 show file
has show '.holders | any(.kind == "mount" and .path)'
prints 0 show remote
has show '.holders | any(.kind == "process" and .command)'

echo "at $SECONDS s: in trouble"
dd if=/dev/urandom of=/dev/ublk/memory bs=1M count=8 oflag=direct status=none 2>/dev/null || true
retry 30 is_health memory failing || fail "memory has room"
prints 0 stats memory
has stats '.errors.ENOSPC > 0'
server_kill main
retry 30 is_health remote waiting || fail "the server is not missed"
about_each memory remote
has list 'any(.name == "remote" and .cause == "server-away" and .cure)'
prints 1 upgrade remote
has upgrade '.[0] | .message and (.done | not)'
server_start main
retry 30 is_health remote ok || fail "the server is back: $(reason_of remote)"
timeout -k 5 60 ublkctl suspend file
prints 0 show file
has show '.export.state == "suspended"'
timeout -k 5 60 ublkctl resume file
worker_kill memory
prints 0 show memory
has show '.recoveries == 1'
prints 0 upgrade --all
has upgrade 'length == 3 and all(.done)'
printf '%s\n' 'uri = null:1M' >config/exports.d/added.conf
prints 1 reload
has reload 'any(.done) and any(.done | not)'
kill "$monitor"
is_line_by_line monitor monitor.json

echo "at $SECONDS s: without ublkd again"
worker=$(worker_of memory)
ublkd_kill
prints 0 list
has list 'any(.name == "remote" and .uri and .pid and .state == "live")'
prints 0 show remote
kill -KILL "$worker"
retry 30 lists 'any(.state == "recovering")' || fail "the dead worker is not missed"
prints 0 show memory
# Nobody had the content: the export is given up.
ublkd_start
retry 90 is_health memory refused || fail "memory is not given up: $(reason_of memory)"
about_each memory file

echo "at $SECONDS s: the end"
prints 1 shutdown --remove
has shutdown 'any(.done | not) and any(.message)'
kill "$user"
wait "$user" 2>/dev/null || true
umount mounted
prints 0 shutdown --remove
retry 30 lab_gone "$UBLKD" || fail "ublkd has not ended"
kill "$PID"
rm config/exports.d/*
ublkd_start
prints 0 shutdown
has shutdown 'length == 0'

for schema in "$schemas"/*.json; do
	schema=${schema##*/}
	verb=${schema%.json}
	[[ $verb == io.ublkd || ${checked[$verb]:-} == yes ]] ||
		{ [[ $verb == resize ]] && ! can_resize; } || fail "$verb was not checked"
done
