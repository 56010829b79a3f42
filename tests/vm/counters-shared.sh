#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Another program maps a server's counters while it is at work, sees them grow, and
# in the end they and the JSON summary say what was done.
. /lab/lib.sh disks

ublkctl run --json --queues 2 memory:32M >json.out 2>disk.err &
PID=$!
defer "kill $PID 2>/dev/null"
retry 60 grep -q '"live"' json.out || fail "no device: $(cat disk.err)"
DEV=$(jq -r 'select(.event == "live") | .device' json.out)
expect 2 "$(counted queues)" "queues"
expect 0 "$(counted write.completed)" "writes at first"

fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=4k \
	--time_based --runtime=60 --size=16M --minimal --name=a >fio.out 2>&1 &
load=$!
grown() { (($(counted write.completed) > $1)); }
for more in 0 100 300; do
	retry 30 grown "$more" || fail "not more than $more writes: $(counted write.completed)"
done
kill "$load"
wait "$load" || true
# Each queue has something to do, on however busy a machine.
for cpu in 0 1; do
	taskset --cpu-list $cpu dd if="$DEV" of=/dev/null bs=4k count=1 iflag=direct status=none
done

writes=$(counted write.completed) bytes=$(counted write.bytes)
dd if=/dev/zero of="$DEV" bs=64k count=10 oflag=direct status=none
blkdiscard -o 16M -l 1M "$DEV"
blkdiscard -z -o 17M -l 1M "$DEV"
expect $((writes + 10)) "$(counted write.completed)" "writes"
expect $((bytes + (640 << 10))) "$(counted write.bytes)" "bytes written"
expect 1 "$(counted discard.completed)" "discards"
expect 1 "$(counted write-zeroes.completed)" "write-zeroes"
for op in read write discard write-zeroes; do
	expect "$(counted $op.completed)" "$(counted $op.measured)" "$op: requests in the histogram"
	expect 0 "$(counted $op.failed)" "$op: failed"
done
(($(counted write.latency-ns) > 0)) || fail "writes that took no time"
started=0 completed=0
for queue in queue0 queue1; do
	started=$((started + $(counted $queue.started)))
	completed=$((completed + $(counted $queue.completed)))
	(($(counted $queue.rounds) > 0)) || fail "$queue: no rounds"
done
expect "$started" "$completed" "requests started and completed, on an idle device"
wanted=$(for op in discard flush read write write-zeroes; do
	echo "$op $(counted $op.completed) $(counted $op.bytes) 0"
done)
wanted+=$'\n'"allocated $(counted gauge.allocated-bytes)"
kill "$PID"
wait "$PID" || fail "exit status $?"
expect "$wanted" "$(jq -r 'select(.event == "end") | (.operations | sort_by(.name)[] |
	"\(.name) \(.completed) \(.bytes) \(.failed)"),
	"allocated \(.facts."allocated-bytes")"' json.out)" "the summary"
