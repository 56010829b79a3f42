#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Commands to the driver that never return, five kinds of them at once: each request
# that needs one fails by the command's deadline and says so; meanwhile other exports
# are made, served and removed, "list" answers, and ublkd's watchdog is content. Once
# the kernel answers again all of them can be removed.
# vm: timeout=400 once=6.12
. /lab/lib.sh disks ublkd orderly

export STUCK_COMMAND=$PWD/stuck-command
# Ten seconds without a sign, and a service manager would kill it.
export WATCHDOG_USEC=10000000
LD_PRELOAD=/lab/bin/stuck-command.so ublkd_start
unset WATCHDOG_USEC
defer ': >stuck-command'

# stuck NAME ARGUMENTS...: ublkctl with these, in the background: NAME.out, NAME.status
# and how long it took.
stuck() {
	local name=$1
	shift
	(
		began=$SECONDS status=0
		timeout -k 5 150 ublkctl "$@" >"$name.out" 2>&1 || status=$?
		echo "$status $((SECONDS - began))" >"$name.status"
	) &
	waiting+=($!)
}
waiting=()

export_start neighbour memory:64M
load_start neighbour
export_start stop null:1M --id 13
export_start delete null:1M --id 14
truncate -s 16M image
export_start recover "$PWD/image" --id 15

cat >stuck-command <<'END'
START_DEV 11
ADD_DEV 12
TRY_STOP_DEV 13
STOP_DEV 13
DEL_DEV 14
START_USER_RECOVERY 15
END
stuck start export --id 11 start=null:1M
stuck add export --id 12 add=null:1M
stuck stop remove stop
stuck delete remove delete
kill -KILL "$(worker_of recover)"

# Others notice nothing, for as long as the commands are waited for.
nr=0 slowest=0
while kill -0 "${waiting[@]}" 2>/dev/null && ((nr < 500)); do
	timeout -k 5 30 ublkctl export "other$((nr % 7))=memory:1M" >/dev/null || fail "no other can be made"
	dd if=/dev/zero of="/dev/ublk/other$((nr % 7))" bs=64K count=4 oflag=direct status=none
	began=${EPOCHREALTIME/./}
	timeout -k 5 30 ublkctl list >list.out || fail "list does not answer"
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	((took <= slowest)) || slowest=$took
	timeout -k 5 30 ublkctl remove "other$((nr % 7))" || fail "the other one cannot be removed"
	nr=$((nr + 1))
done
load_goes_on neighbour
echo "$nr others made, served and removed meanwhile; the slowest list took $slowest ms"
cat list.out
((nr > 10)) || fail "only $nr others meanwhile"
((slowest < 5000)) || fail "a list took $slowest ms"
for name in start add stop delete; do
	read -r status took <"$name.status"
	echo "$name: status $status after $took s: $(cat "$name.out")"
	((took < 120)) || fail "$name: it took $took s"
done
for name in start add stop delete; do
	expect 1 "$(cut -d' ' -f1 "$name.status")" "$name: exit status"
	grep -q 'the kernel has not answered within' "$name.out" || fail "$name: $(cat "$name.out")"
done
is_told() { [[ $(reason_of recover) == *START_USER_RECOVERY*'the kernel has not answered within'* ]]; }
retry 60 is_told || fail "recover: $(state_of recover) ($(reason_of recover))"
beats=$(awk '/WATCHDOG=1/ { if (last && $1 - last > most) most = $1 - last; last = $1; n++ }
	END { print n + 0, most + 0 }' stuck-command.notify)
echo "watchdog: ${beats% *} signs of life, the longest wait ${beats#* } s"
((${beats% *} >= 3 && ${beats#* } < 10)) || fail "the watchdog would have killed it"

: >stuck-command
becomes recover live 60
for name in start add stop delete; do
	# Those that could not be created are gone.
	timeout -k 5 60 ublkctl remove --force "$name" 2>removed || grep -q "no export '$name'" removed ||
		fail "$name cannot be removed now: $(cat removed)"
done
load_stop neighbour
ublkd_end
LD_PRELOAD='' ublkd_start
orderly "all is over"
ublkd_stop
