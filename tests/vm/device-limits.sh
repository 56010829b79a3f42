#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What was asked for is what sysfs shows: size, blocks, requests, queues.
. /lab/lib.sh disks

nr_queues() { find "$(sysfs_of "$DEV")/mq" -mindepth 1 -maxdepth 1 -type d | wc -l; }

asked null:1G
shows size $((1 << 21)) ro 0 queue/logical_block_size 512 queue/physical_block_size 4096 \
	queue/max_hw_sectors_kb 1024 queue/max_sectors_kb 1024 queue/nr_requests 128 \
	queue/scheduler '[none] ' queue/rotational 0 queue/write_cache 'write through' \
	queue/fua 0 queue/discard_max_bytes $((1 << 30)) \
	queue/write_zeroes_max_bytes $((1 << 30)) queue/discard_granularity 4096
expect "$(nproc)" "$(nr_queues)" "$asked_for: queues"
ublk_stop disk

# One queue would get mq-deadline from the kernel.
asked --queues 1 --depth 17 --max-io 64K null:1G
shows queue/nr_requests 17 queue/max_hw_sectors_kb 64 queue/max_sectors_kb 64 \
	queue/scheduler '[none] '
expect 1 "$(nr_queues)" "$asked_for: queues"
ublk_stop disk

asked --queues 2 --depth 1 --max-io 4096 --block-size 4096 null:1G
shows size $((1 << 21)) queue/logical_block_size 4096 queue/physical_block_size 4096 \
	queue/nr_requests 1 queue/max_hw_sectors_kb 4 queue/discard_granularity 4096
expect 2 "$(nr_queues)" "$asked_for: queues"
dd if="$DEV" of=/dev/null bs=1M count=2 iflag=direct status=none
ublk_stop disk

# More queues than processors there are not.
asked --queues 4096 --depth 4096 --max-io 32M --block-size 1K null:7E
shows size $((7 << 51)) queue/nr_requests 4096 queue/max_hw_sectors_kb 32768 \
	queue/logical_block_size 1024 queue/physical_block_size 4096
expect "$(nproc)" "$(nr_queues)" "$asked_for: queues"
ublk_stop disk

asked null:9223372036854775296
shows size $(((1 << 54) - 1))
ublk_stop disk

asked --read-only null:1G
shows ro 1 queue/discard_max_bytes 0 queue/write_zeroes_max_bytes 0
ublk_stop disk

asked --block-size 4096 memory:999424
shows size $((244 * 8)) queue/logical_block_size 4096 queue/physical_block_size 4096
ublk_stop disk

asked memory:1000448
shows size $((1000448 / 512)) ro 0 queue/logical_block_size 512 queue/physical_block_size 4096 \
	queue/write_cache 'write through' queue/fua 0 queue/rotational 0 \
	queue/discard_max_bytes $((1 << 30)) queue/write_zeroes_max_bytes $((1 << 30)) \
	queue/discard_granularity 4096
ublk_stop disk

asked --id 37 null:1M
expect /dev/ublkb37 "$DEV" "$asked_for: device"
ublk_stop disk

# What the JSON says is what it is.
: >disk.out
ublkctl run --json --id 3 --queues 2 --depth 32 memory:3M >json.out 2>disk.err &
pid=$!
defer "kill $pid 2>/dev/null"
retry 30 grep -q '"event":"live"' json.out || fail "no JSON line: $(cat json.out)"
expect "/dev/ublkb3 3 memory $((3 << 20)) 512 2 32 false $pid" "$(jq -r 'select(.event == "live") |
	"\(.device) \(.id) \(.backend) \(.size) \(.logicalBlock) \(.nrQueues) \(.depth) \(.readOnly) \(.pid)"' \
	json.out)" "the JSON"
kill "$pid"
wait "$pid" || fail "--json: exit status $?"
