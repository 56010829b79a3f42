#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=300 shortened
#
# A worker dies (SIGKILL) again and again under writers: no application hears of it,
# another one serves within ten seconds, and nothing is lost. So with a file, memory
# and NBD, on each I/O path, with every tag in use, and with nothing to do.
. /lab/lib.sh disks nbd ublkd

# killed_often NAME URI [OPTION...]: under load, at moments by chance.
killed_often() {
	local name=$1 i often
	often=$(rounds 3 1)
	echo "at $SECONDS s: $*"
	export_start "$@"
	load_start "$name"
	for ((i = 0; i < often; i++)); do
		load_goes_on "$name" $((RANDOM % 150))
		worker_kill "$name"
	done
	load_goes_on "$name"
	expect "$often" "$(recoveries_of "$name")" "$name: recoveries"
	load_stop "$name"
}

# all_in_flight: more requests than the device has tags, when its worker dies.
all_in_flight() {
	local pid fio
	echo "at $SECONDS s: all tags"
	export_start tags "$SCRATCH/tags" --create 64M --depth 4 --queues 1
	nice -n 19 fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=64 --rw=randwrite --bs=16k \
		--size=32M --loops=100000 --minimal --name=tags >tags.fio 2>&1 &
	fio=$!
	defer "kill $fio 2>/dev/null"
	load_device[tags]=$DEV
	retry 20 has_done tags 100 || fail "no load"
	pid=$(worker_of tags)
	kill -STOP "$pid"
	retry 10 all_waiting || fail "not all tags are in use: $(cat "$(sysfs_of "$DEV")/inflight")"
	kill -KILL "$pid"
	has_other_worker tags "$pid"
	kill "$fio"
	retry 30 lab_gone "$fio" || fail "fio does not end"
	expect 0 "$(sed -n 's/^3;//p' tags.fio | cut -d';' -f4)" "fio: $(cat tags.fio)"
	fio_verify "$DEV"
}

all_waiting() { (($(awk '{ print $1 + $2 }' "$(sysfs_of "$DEV")/inflight") >= 4)); }

scratch_fs 512M
truncate -s 64M over-unix over-tcp
nbdkit_start one unix --threads 1 file over-unix
unix_uri=$URI
nbdkit_start two 10810 --threads 1 file over-tcp
tcp_uri=$URI
ublkd_start

killed_often file "$SCRATCH/image" --create 64M
killed_often file-copy "$SCRATCH/image-copy" --create 64M --io-path copy
killed_often memory memory:64M
killed_often memory-copy memory:64M --io-path copy
killed_often nbd-unix "$unix_uri" --queues 2
killed_often nbd-tcp "$tcp_uri" -o connections=2 --queues 2
all_in_flight

echo "at $SECONDS s: idle"
for name in file memory nbd-unix; do
	worker_kill "$name"
	promise_kept "$name" "$(device_of "$name")"
done

ublkd_stop
promise_kept file "$SCRATCH/image"
promise_kept file-copy "$SCRATCH/image-copy"
promise_kept nbd-unix over-unix
promise_kept nbd-tcp over-tcp
echo "at $SECONDS s: done"
