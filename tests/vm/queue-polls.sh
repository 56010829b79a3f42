#!/bin/bash
# SPDX-License-Identifier: MIT
#
# With --poll-us a queue's thread spins before it sleeps, served by ublkctl run or by a worker, and
# says how often; the data is right; without requests it sleeps, and without the option it never
# spins. An upgrade keeps the option.
. /lab/lib.sh disks ublkd

spins() { about "$1" '[.queues[].polls // 0] | add'; }

# nap PROCESS: over three seconds its threads take next to no CPU time.
nap() {
	local before
	before=$(ticks_of "$1")
	sleep 3
	(($(ticks_of "$1") - before <= 30)) ||
		fail "$1 took $(($(ticks_of "$1") - before)) ticks of 300 without a request"
}
ticks_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

write_and_compare() {
	head -c 4M /dev/urandom >written
	dd if=written of="$1" bs=4k oflag=direct status=none
	dd if="$1" bs=4k count=1024 iflag=direct status=none | cmp - written
}

(($(nproc) >= 2)) || fail "one CPU"
ublk_start standalone --poll-us auto memory:64M
write_and_compare "$DEV"
nap "$PID"

ublkd_start
export_start spins memory:64M --poll-us auto
device=$DEV
export_start sleeps memory:64M
write_and_compare "$DEV"
expect 0 "$(spins sleeps)" "spins without the option"
write_and_compare "$device"
(($(spins spins) > 0)) || fail "it never spun"
nap "$(worker_of spins)"
ublkctl show spins | tee shown
grep -Eq '^  polling +[0-9]+ spins, [0-9]+ of which a request ended; [0-9.]+ s of CPU time$' shown ||
	fail "show does not have it"
timeout -k 5 90 ublkctl upgrade spins
before=$(spins spins)
write_and_compare "$device"
(($(spins spins) > before)) || fail "it does not spin after an upgrade"
refuses 2 'poll-us' export bad=memory:1M --poll-us never
ublkd_stop
