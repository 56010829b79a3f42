#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Many exports: a hundred idle ones and more, each within 8 MiB of memory, worker and ublkd's
# share, and without a wake-up; listed quickly; then I/O on 128 of them at once.
# vm: own-boot timeout=500 mem=6144 once=none
. /lab/lib.sh disks ublkd orderly

many=${MANY:-128}
[[ $(</sys/module/ublk_drv/parameters/ublks_max) -ge $many ]] ||
	echo "$many" >/sys/module/ublk_drv/parameters/ublks_max

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
free_kib() { awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo; }

# They are declared: one start makes them all.
mkdir -p config/exports.d
for ((i = 0; i < many; i++)); do
	if ((i % 2)); then uri=memory:8M; else uri=null:1G; fi
	printf 'uri = %s\n' "$uri" >"config/exports.d/e$i.conf"
done
defer ublkd_clean
before=$(free_kib)
began=$(now_ms)
ublkd_options=()
ublkd --config "$PWD/config" 2>>ublkd.err &
UBLKD=$!
all_live() { [[ $(nr_live) == "$many" ]]; }
retry 400 all_live || fail "$(nr_live) of $many are live: $(tail -n 5 ublkd.err)"
echo "$many exports live after $(($(now_ms) - began)) ms"
sleep 5

began=$(now_ms)
ublkctl list >list.out
took=$(($(now_ms) - began))
expect $((many + 1)) "$(wc -l <list.out)" "lines of the list"
echo "list: $took ms"
# On a machine that is emulated.
((took < 5000)) || fail "the list took $took ms"

# kib FIELD: the sum over all workers and ublkd.
workers >pids
kib() {
	local pid
	while read -r pid; do
		cat "/proc/$pid/smaps_rollup"
	done < <(cat pids && echo "$UBLKD") | awk -v field="$1:" '$1 == field { n += $2 } END { print n }'
}
pss=$(kib Pss) rss=$(kib Rss) ublkd=$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$UBLKD/status")
echo "an idle export: $((pss / many)) KiB proportional, $((rss / many)) KiB resident, of which ublkd" \
	"$((ublkd / many)); of the machine's memory $(((before - $(free_kib)) / many)) KiB, kernel included"
((rss / many < 8192)) || fail "an idle export takes $((rss / many)) KiB"

# switches PID...: times that threads of these have given up a processor by themselves.
switches() {
	local pid
	for pid; do cat "/proc/$pid"/task/*/status; done |
		awk '/^voluntary/ { n += $2 } END { print n + 0 }'
}
mapfile -t worker_pids <pids
worker_wakeups() {
	local count
	count=$(switches "${worker_pids[@]}")
	sleep 10
	echo $(($(switches "${worker_pids[@]}") - count))
}
no_wakeups() { [[ $(worker_wakeups) == 0 ]]; }
retry 60 no_wakeups || fail "idle workers wake up: $(worker_wakeups) times in 10 s"
count=$(switches "$UBLKD")
sleep 10
count=$(($(switches "$UBLKD") - count))
echo "in 10 s idle workers woke up 0 times, ublkd $count times"
((count <= 10)) || fail "ublkd wakes up $count times in 10 s"

# I/O on 128 of them at once.
io=$((many < 128 ? many : 128))
jobs=()
for ((i = 0; i < io; i++)); do
	jobs+=(--name="j$i" --filename="/dev/ublk/e$((i * 2 % many + i * 2 / many))")
done
began=$(now_ms)
fio --direct=1 --ioengine=libaio --iodepth=4 --rw=randread --bs=4k --size=8M --number_ios=200 --minimal \
	--thread "${jobs[@]}" >fio.out 2>&1 || fail "fio: $(head -c 500 fio.out)"
echo "$io at once: $((io * 200)) requests in $(($(now_ms) - began)) ms"
expect "$io" "$(grep -c '^3;' fio.out)" "jobs of fio"
jobs=()
for ((i = 0; i < 32; i++)); do jobs+=(--name="v$i" --filename="/dev/ublk/e$((i * 2 + 1))"); done
fio --direct=1 --ioengine=libaio --iodepth=4 --rw=randwrite --bs=4k --size=4M --verify=crc32c \
	--verify_fatal=1 --number_ios=200 --minimal --thread "${jobs[@]}" >fio.out 2>&1 ||
	fail "fio: $(head -c 500 fio.out)"

began=$(now_ms)
ublkd_kill
ublkd_start
retry 60 all_live || fail "after a crash $(nr_live) of $many are live"
workers >pids.after
cmp pids pids.after || fail "other workers after a crash of ublkd"
echo "ublkd killed, all adopted after $(($(now_ms) - began)) ms"
began=$(now_ms)
timeout -k 5 300 ublkctl shutdown --remove >removed || fail "not all could be removed: $(grep -v removed removed | head -n 3)"
retry 30 lab_gone "$UBLKD" || fail "ublkd has not ended"
echo "all removed after $(($(now_ms) - began)) ms"
find_files /run/ublkd/exports/* /run/ublkd/workers/* /dev/ublk/*
expect '' "${found[*]}$(workers)" "left"
