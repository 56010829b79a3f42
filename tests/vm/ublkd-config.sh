#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Declared exports: they come up when ublkd starts, each on its own; what is wrong with
# one is said with file and line and holds no other; one whose file is missing comes
# when the file does; reload adds and removes; what is persistent is there again.
# vm: timeout=240 once=6.12
. /lab/lib.sh disks ublkd orderly

here=$PWD
mkdir -p config/exports.d
defer ublkd_clean
truncate -s 16M data
declare_export() { printf '%s\n' "${@:2}" >"config/exports.d/$1.conf"; }

declare_export data "uri = $here/data" 'queues = 1'
declare_export scratch '[export]' 'uri = memory:16M'
declare_export fresh "uri = $here/fresh" 'create = 8M'
declare_export late "uri = $here/late"
declare_export wrong 'uri = null:1M' 'frob = 1'
declare_export noscheme 'uri = floppy:1'
declare_export twice 'uri = null:1M'
cat >config/ublkd.conf <<'END'
[ublkd]
max-jobs = 4
[export main]
uri = null:32M
[export twice]
uri = null:2M
END
printf 'uri = null:1M\n' >'config/exports.d/no name.conf'

# check-config says all of it, one line each.
status=0
ublkctl check-config config >checked 2>&1 || status=$?
expect 1 "$status" "check-config's status"
cat checked
for words in 'wrong.conf:2: .*frob' 'noscheme.conf:1: .*floppy' "twice.*declared in .*ublkd.conf" 'not a valid name' \
	"late.conf:1: .*there is no $here/late" '^config: 6 exports, 5 errors$'; do
	grep -q "$words" checked || fail "check-config does not say '$words'"
done
expect 6 "$(wc -l <checked)" "check-config's lines"

ublkd_start
for name in data scratch fresh main twice; do
	timeout -k 5 60 ublkctl wait --timeout 50s "$name" || fail "$name is not there: $(reason_of "$name")"
	[[ -b /dev/ublk/$name ]] || fail "$name: no link"
done
expect $((2 << 20)) "$(blockdev --getsize64 /dev/ublk/twice)" "twice: the first one stands"
expect $((8 << 20)) "$(blockdev --getsize64 /dev/ublk/fresh)" "fresh"
expect 1 "$(about data '.queues | length')" "data's queues"
expect declared "$(about data .export.origin)" "data's origin"
ublkd_says 'wrong.conf:2'
ublkd_says 'noscheme.conf:1'
for name in wrong noscheme; do
	expect 'failed refused configuration null' \
		"$(about "$name" '.export | "\(.state) \(.health) \(.cause) \(.device)"')" "$name"
done

# It says why, is tried again, and comes by itself.
retry 20 grep -q "late: .*no such file" ublkd.err || fail "not said why 'late' is missing"
[[ $(reason_of late) == *'no such file'* ]] || fail "late's reason: $(reason_of late)"
sleep 3
expect 1 "$(grep -c "late: .*no such file" ublkd.err)" "times that this was said"
truncate -s 4M late
becomes late live 70

# Reload adds and removes; what is in use stays; what was written is not lost.
random_file content 1M
fill /dev/ublk/data content
kept=$(worker_of data)
declare_export added 'uri = memory:4M'
rm config/exports.d/scratch.conf config/exports.d/wrong.conf config/exports.d/noscheme.conf \
	config/exports.d/twice.conf config/exports.d/'no name.conf' config/exports.d/late.conf
exec 5</dev/ublk/late
timeout -k 5 60 ublkctl reload >reloaded || fail "reload: $(cat reloaded)"
cat reloaded
timeout -k 5 60 ublkctl wait --timeout 50s added || fail "added is not there"
gone() { ! names | grep -x "$1" >/dev/null; }
retry 30 gone scratch || fail "scratch is there still"
sleep 1
expect live "$(state_of late)" "one that is no longer declared and in use"
exec 5<&-
timeout -k 5 60 ublkctl remove late || fail "late cannot be removed"
expect "$kept" "$(worker_of data)" "data's worker after reload"
expect "config: 5 exports, no error" "$(ublkctl check-config config)" "check-config when all is right"

# A reload with a mistake removes nothing of what was right before.
declare_export added 'uri = memory:4M' 'depth = none'
timeout -k 5 60 ublkctl reload >reloaded 2>&1 || true
grep -q depth reloaded || fail "reload does not say what is wrong: $(cat reloaded)"
sleep 1
expect 'live degraded declaration' "$(about added '.export | "\(.state) \(.health) \(.cause)"')" \
	"one that is declared wrongly now"
grep -q 'added.conf:2: .*depth' reloaded || fail "reload does not say where: $(cat reloaded)"
grep -q '^data: unchanged$' reloaded || fail "reload does not say what it left alone: $(cat reloaded)"
declare_export new 'uri = tape:4M'
declare_export added 'uri = memory:8M'
timeout -k 5 60 ublkctl reload >reloaded 2>&1 || true
grep -q 'added.conf:1 .*the URI is memory:4M, not memory:8M' reloaded ||
	fail "reload does not say what differs: $(cat reloaded)"
ublkctl list >listed
grep -Eq '^new +- +failed +refused ' listed || fail "a wrong declaration is not listed: $(cat listed)"
grep -q '^new: refused since .*new.conf:1: ' listed || fail "its error is not listed: $(cat listed)"
refuses 1 'new.conf:1: ' wait new
ublkctl show new >shown
grep -q 'new.conf:1: ' shown || fail "its error is not shown: $(cat shown)"
rm config/exports.d/new.conf
declare_export added 'uri = memory:4M'
timeout -k 5 60 ublkctl reload >reloaded || fail "reload: $(cat reloaded)"
expect ok "$(about added .export.health)" "one that is declared rightly again"
refuses 1 "no export 'new'" show new

# Persistent, and requested.
export_start stays "$here/stays" --persist --create 4M
export_start goes null:1M
[[ -e config/exports.d/stays.conf ]] || fail "stays is not declared"
[[ ! -e config/exports.d/goes.conf ]] || fail "goes is declared"
expect persistent "$(about stays .export.origin)" "stays' origin"
random_file other 1M
fill /dev/ublk/stays other

# A restart of ublkd changes nothing.
names >before
pids=$(jq -c '[.[] | [.name, .pid]] | sort' listed)
ublkd_end
ublkd_start
names >after
cmp before after || fail "other exports after a restart: $(diff before after)"
expect "$pids" "$(jq -c '[.[] | [.name, .pid]] | sort' listed)" "workers after a restart"
holds /dev/ublk/data content
holds /dev/ublk/stays other

# As when the machine had been down: nothing but the configuration.
timeout -k 5 60 ublkctl shutdown --remove || fail "shutdown"
retry 30 lab_gone "$UBLKD" || fail "ublkd has not ended"
find_files /run/ublkd/exports/*
expect '' "${found[*]}" "records left"
ublkd_start
for name in data stays main fresh added twice; do
	timeout -k 5 60 ublkctl wait --timeout 50s "$name" || fail "$name does not come back: $(reason_of "$name")"
done
if names | grep -x goes; then fail "goes has come back"; fi
holds /dev/ublk/data content
holds /dev/ublk/stays other
timeout -k 5 60 ublkctl remove stays || fail "stays cannot be removed"
[[ ! -e config/exports.d/stays.conf ]] || fail "stays is declared still"

# Removed by hand and declared by a file: reload brings it back.
timeout -k 5 60 ublkctl remove main || fail "main cannot be removed"
timeout -k 5 60 ublkctl reload >/dev/null || fail "reload"
timeout -k 5 60 ublkctl wait --timeout 50s main || fail "main does not come back"
orderly "at last"
ublkd_stop
