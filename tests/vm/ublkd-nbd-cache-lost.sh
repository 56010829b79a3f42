#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=180 once=newest shortened
#
# What an NBD server acknowledged and has not written back yet outlives the worker that
# wrote it, whatever becomes of the server afterwards: after a worker's death the next
# one has it flushed before it serves, and while the server is away a worker that keeps
# some of it is not replaced by an upgrade.
. /lab/lib.sh disks nbd ublkd

# written LETTER: the first blocks of it, acknowledged, and in the server's memory only.
written() {
	head -c 65536 /dev/zero | tr '\0' "$1" >wanted
	dd if=wanted of="$DEV" bs=64k oflag=direct status=none
	expect '' "$(head -c 65536 image | tr -d -c "$1" | head -c 8)" "in the file already"
}

# The server forgets.
restart_server() {
	server_kill main
	server_start main
}

content_is() {
	dd if="$DEV" bs=64k count=1 iflag=direct status=none of=found
	cmp found wanted || fail "$1: not what was written, but $(head -c 8 found)"
}

truncate -s 64M image
nbdkit_start main unix --filter=cache file image cache=writeback
ublkd_start
for options in '--queues 1' '--queues 2 -o connections=2' '-o retain=0'; do
	echo "at $SECONDS s: $options"
	# shellcheck disable=SC2086 # several words are meant
	export_start remote "$URI" $options
	written A
	worker_kill remote
	restart_server
	content_is "$options: after the worker's death"
	sync "$DEV" || fail "$options: a flush fails"
	timeout -k 5 60 ublkctl remove remote
	truncate -s 0 image
	truncate -s 64M image
done

echo "at $SECONDS s: upgrades"
export_start remote "$URI"
written B
timeout -k 5 60 ublkctl upgrade remote || fail "the upgrade"
restart_server
content_is "after an upgrade"
written C
server_kill main
pid=$(worker_of remote)
fails_with 'no connection to the server' timeout -k 5 60 ublkctl upgrade remote
fails_with 'no connection to the server' timeout -k 5 60 ublkctl suspend remote
expect "$pid" "$(worker_of remote)" "the worker"
server_start main
content_is "after an upgrade that was refused"
sync "$DEV" || fail "a flush fails"
timeout -k 5 60 ublkctl upgrade remote || fail "the upgrade once the server is back"
content_is "after it"
timeout -k 5 60 ublkctl remove remote
cmp -n 65536 wanted image || fail "the file has something else"

echo "at $SECONDS s: flushes of its own that take long"
nbdkit_start slow unix eval thread_model='echo parallel' get_size='echo 64M' can_write='exit 0' \
	can_flush='exit 0' flush='sleep 1' pread="head -c \$3 /dev/zero" pwrite='cat >/dev/null'
for options in '--queues 1' '--queues 2 -o connections=2'; do
	# shellcheck disable=SC2086 # several words are meant
	export_start slow "$URI" -o retain=256K $options
	(while dd if=/dev/zero of="$DEV" bs=16k count=64 oflag=direct status=none 2>/dev/null; do :; done) &
	writes=$!
	defer "kill $writes 2>/dev/null"
	load_device[slow]=$DEV
	for ((i = $(rounds 2 1); i > 0; i--)); do
		retry 30 has_done slow $(($(done_by slow) + 30)) || fail "nothing is written"
		timeout -k 5 60 ublkctl upgrade slow || fail "$options: the upgrade"
	done
	kill "$writes"
	wait "$writes" || true
	sync "$DEV" || fail "$options: a flush fails, and nothing was lost"
	timeout -k 5 60 ublkctl remove slow --wait
done
ublkd_stop
