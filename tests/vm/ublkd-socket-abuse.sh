#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The control socket, abused: users without permission, idle clients by the hundred,
# frames of 100 MB, cut ones, garbage, wrong types, clients that do not read. All of it
# is refused or cut off, others are served meanwhile, an export under load never
# notices, and ublkd is none the bigger afterwards.
# vm: timeout=400 once=newest shortened
. /lab/lib.sh disks ublkd orderly

socket=/run/ublkd/io.ublkd

# talk OPTION...: what is on the standard input, to ublkd.
talk() { timeout -k 1 60 /lab/bin/unix-talk "$@" "$socket"; }

# user UID GROUP COMMAND...
user() { setpriv --reuid="$1" --regid="$2" --clear-groups "${@:3}"; }

# method NAME [PARAMETERS]: a frame.
method() { printf '{"method":"%s"%s}\0' "$1" "${2:+,\"parameters\":$2}"; }

memory_of() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$UBLKD/status"; }
files_of() { find "/proc/$UBLKD/fd" -mindepth 1 | wc -l; }
has_files() { (($(files_of) <= $1)); }

printf '%s\n' readers:x:950: changers:x:951: >>/etc/group
defer "sed -i '/^readers:/d; /^changers:/d' /etc/group"
mkdir -p config/exports.d
printf '%s\n' '[ublkd]' 'read-group = readers' 'control-group = changers' >config/ublkd.conf
defer ublkd_clean
ublkd_start
export_start disk memory:64M
worker=$(worker_of disk)
load_start disk
files=$(files_of)

# Others are served while this is so: the slowest "list" is kept.
(
	trap 'exit 0' TERM
	while :; do
		began=${EPOCHREALTIME/./}
		timeout -k 1 30 ublkctl list >list.out 2>&1 || echo "failed: $? $(cat list.out)"
		echo $(((${EPOCHREALTIME/./} - began) / 1000))
		sleep 0.1
	done
) >>lists &
lists=$!
defer "kill $lists 2>/dev/null"

step() {
	echo "at $SECONDS s: $1; the slowest list took $(sort -n lists | tail -n 1) ms, ublkd has $(memory_of) KiB"
	if grep -q failed lists; then fail "$1: others were not served: $(grep -v '^[0-9]*$' lists)"; fi
	: >lists
	load_is_well disk
}
step "nothing"

# Who may.
user 1000 1000 ublkctl list >out 2>&1 && fail "nobody in particular may look"
grep -q -e 'Permission denied' -e 'not permitted: only root' out || fail "nobody in particular: $(cat out)"
user 1000 950 ublkctl list >out 2>&1 || fail "a reader may not look: $(cat out)"
grep -q '^disk ' out || fail "a reader sees not all: $(cat out)"
user 1000 950 ublkctl show disk >/dev/null || fail "a reader may not look closely"
for request in 'export a=null:1M' 'remove disk' 'remove --force disk' 'resize disk' 'suspend disk' \
	'resume disk' 'upgrade disk' 'upgrade --all' reload shutdown 'shutdown --remove --force'; do
	status=0
	# shellcheck disable=SC2086 # words are meant
	user 1000 950 timeout -k 1 30 ublkctl $request >out 2>&1 || status=$?
	expect 1 "$status" "a reader's '$request' ($(cat out))"
	expect 1 "$(wc -l <out)" "lines of a reader's '$request'"
	grep -q 'not permitted: only root' out || fail "a reader's '$request': $(cat out)"
done
expect live "$(state_of disk)" "the state after a reader's requests"
user 1000 951 ublkctl export own=null:1M >out 2>&1 || fail "a changer may not change: $(cat out)"
user 1000 951 ublkctl remove own >out 2>&1 || fail "a changer may not remove: $(cat out)"
step "users without permission"

# Idle ones: one user's are bounded, and so are all others' together.
idle=()
for uid in 1000 1001 1002 1003 1004 1005; do
	setpriv --reuid=$uid --regid=950 --clear-groups timeout -k 1 60 \
		/lab/bin/unix-talk --connections 100 --wait -1 $socket </dev/null >/dev/null 2>&1 &
	idle+=($!)
	defer "kill $! 2>/dev/null"
done
sleep 2
(($(files_of) - files <= 260)) || fail "$(files_of) files are open"
(($(files_of) - files >= 60)) || fail "there are no idle clients"
step "idle clients"
user 1006 950 ublkctl list >out 2>&1 || echo "another reader meanwhile: $(cat out)"
kill "${idle[@]}" 2>/dev/null || true
retry 20 has_files $((files + 2)) || fail "files of clients that are gone stay open: $(files_of), not $files"

# Too large, cut, and no JSON at all.
before=$(memory_of)
{ printf '{"method":"io.ublkd.Show","parameters":{"name":"'; head -c 100M /dev/zero | tr '\0' x; } >large
for who in 'user 1000 950' ''; do
	status=0
	$who timeout -k 1 60 /lab/bin/unix-talk "$socket" <large >out || status=$?
	expect 3 "$status" "100 MB in one frame: it is not cut off ($(head -c 200 out | tr -d '\0'))"
done
rm large
step "100 MB"
more=$(($(memory_of) - before))
((more < 16 << 10)) || fail "$more KiB more after frames of 100 MB"
method io.ublkd.Show '{"name":"disk"}' >whole
for ((n = 0; n < $(stat -c %s whole); n += $(rounds 5 20))); do
	head -c $n whole | talk --wait 1 >out || true
	[[ ! -s out ]] || fail "$n bytes of a frame are answered: $(cat out)"
done
step "cut frames"
status=0
head -c 20 whole | talk --wait 25000 || status=$?
expect 3 "$status" "a frame that does not end: it is not cut off"
step "a frame that does not end"
for ((n = 0; n < 20; n += $(rounds 1 4))); do
	head -c $((n * n * 80 + 1)) /dev/urandom | talk --wait 100 >out || true
done
step "garbage"
for text in '' ' ' '{' '}' 'null' '[]' '[1]' '"method"' '{}' '{"method":1}' '{"method":""}' \
	'{"method":"List"}' '{"method":"io.ublkd"}' '{"method":"io.ublkd."}' '{"method":"io.ublkd.Lis"}' \
	'{"method":"io.ublkd.List","parameters":[]}' '{"method":"io.ublkd.List","parameters":{"a":1}}' \
	'{"method":"io.ublkd.Show"}' '{"method":"io.ublkd.Show","parameters":{"name":1}}' \
	'{"method":"io.ublkd.Show","parameters":{"name":"none"}}' \
	'{"method":"io.ublkd.Show","parameters":{"name":"a","name":"b"}}' \
	'{"method":"io.ublkd.Monitor"}' '{"method":"io.ublkd.Export","parameters":{"uri":[]}}' \
	'{"method":"io.ublkd.Export","parameters":{"uri":"null:1M","options":{"depth":1}}}' \
	'{"method":"io.ublkd.Resize","parameters":{"name":"disk","size":"1"}}' \
	'{"method":"io.ublkd.Resize","parameters":{"name":"disk","size":1e99}}' \
	'{"method":"io.ublkd.Remove","parameters":{"name":"disk","force":"yes"}}' \
	'{"method":"io.ublkd.List","upgrade":true}' '{"method":"io.ublkd.List"}x' \
	$'{"method":"io.ublkd.Show","parameters":{"name":"\xff\xfe"}}' \
	'{"method":"io.ublkd.Show","parameters":{"name":"\u0000"}}' \
	"$(printf '[%.0s' {1..20000})" "$(printf '{"a":%.0s' {1..20000})"; do
	printf '%s\0' "$text" | talk --wait 500 >out || true
	tr -d '\0' <out >answer
	[[ ! -s answer ]] || jq -e .error answer >/dev/null || fail "'${text:0:80}': $(head -c 300 answer)"
done
step "requests that are none"

# A value that its type allows and the method does not: the answer says what is expected.
for size in 0 -1; do
	printf '{"method":"io.ublkd.Resize","parameters":{"name":"disk","size":%s}}\0' "$size" |
		talk --wait 5000 --replies 1 | tr -d '\0' >answer || true
	expect io.ublkd.Invalid "$(jq -r .error answer)" "a size of $size"
	expect 'size must be a positive number of bytes' "$(jq -r .parameters.message answer)" \
		"a size of $size"
done

# Who does not read: calls one after the other, and a monitor while much happens.
for ((n = 0; n < $(rounds 3000 1000); n++)); do method io.ublkd.List; done >many
talk --deaf 5000 --wait 500 <many >out || true
step "one who does not read"
printf '{"method":"io.ublkd.Monitor","more":true}\0' | talk --deaf 15000 --wait 500 >monitored &
for ((n = 0; n < 8; n++)); do
	ublkctl export b=null:1M >/dev/null
	ublkctl remove b
done
wait $! || true
grep -aq '"b"' monitored || fail "the monitor was not told"
step "a monitor that does not read"

kill "$lists"
retry 20 has_files $((files + 2)) || fail "$(files_of) files are open, not $files"
more=$(($(memory_of) - before))
((more < 24 << 10)) || fail "$more KiB more than before"
expect "$worker" "$(worker_of disk)" "the worker"
load_stop disk
orderly "after all"
ublkd_stop
