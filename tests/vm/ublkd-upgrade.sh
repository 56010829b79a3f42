#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=420 shortened
#
# New workers under eight live exports at once: every one gets one, no I/O fails, and
# none waits long. Where the new program is no good the old worker serves on.
. /lab/lib.sh disks nbd ublkd

good=$(ublkd --help | sed -n 's/.*(default: \(.*ublkd-worker\)).*/\1/p')
ln -s "$good" worker

scratch_fs 512M
truncate -s 64M over-unix over-tcp
nbdkit_start one unix file over-unix
unix_uri=$URI
nbdkit_start two 10810 file over-tcp
tcp_uri=$URI
ublkd_options=(--worker "$PWD/worker")
ublkd_start

export_start file1 "$SCRATCH/image1" --create 64M
export_start file2 "$SCRATCH/image2" --create 64M --queues 2 --io-path copy
export_start file3 "$SCRATCH/image3" --create 64M -o direct=off --io-path user-copy
export_start memory1 memory:64M
export_start memory2 memory:64M --queues 2
export_start memory3 memory:64M --io-path copy
export_start nbd1 "$unix_uri"
export_start nbd2 "$tcp_uri" -o connections=2 --queues 2
names=(file1 file2 file3 memory1 memory2 memory3 nbd1 nbd2)

# workers_changed: since workers.before.
workers_changed() {
	workers >workers.now
	! paste workers.before workers.now | awk '$1 != $3 || $2 == $4' | grep .
}
workers() { ublkctl list --json | jq -r '.[] | "\(.name) \(.pid)"' | sort; }

for name in "${names[@]}"; do
	case $name in
	file2 | nbd2) load_start "$name" --threads 2 --pause 100 ;;
	*) load_start_writer "$name" --threads 2 --pause 100 ;;
	esac
done
for ((round = $(rounds 2 1); round > 0; round--)); do
	for name in "${names[@]}"; do load_goes_on "$name" 20 60; done
	workers >workers.before
	echo "at $SECONDS s: upgrade"
	timeout -k 5 120 ublkctl upgrade --all || fail "the upgrade"
	echo "at $SECONDS s: upgraded"
	workers_changed || fail "not all have a new worker: $(paste workers.before workers.now)"
	for name in "${names[@]}"; do state_is "$name" live || fail "$name: $(state_of "$name")"; done
done

echo "at $SECONDS s: a program that does not run"
for name in "${names[@]}"; do load_goes_on "$name" 20 60; done
workers >workers.before
printf '%s\n' '#!/bin/sh' 'exit 1' >broken
chmod 755 broken
ln -sf "$PWD/broken" worker
refuses_upgrade() { ! timeout -k 5 120 ublkctl upgrade file1 >upgrade.out 2>&1; }
refuses_upgrade || fail "the upgrade to a program that does not run: $(cat upgrade.out)"
grep -qF 'the previous worker keeps serving' upgrade.out || fail "$(cat upgrade.out)"
workers >workers.now
cmp workers.before workers.now || fail "not the workers that were there"
ln -sf "$good" worker

for name in "${names[@]}"; do
	load_goes_on "$name" 20 60
	expect 0 "$(recoveries_of "$name")" "$name: recoveries"
	load_stop "$name"
	[[ $name == file2 || $name == nbd2 ]] || continue
	# The longest write of fio's, in microseconds.
	longest=$(sed -n 's/^3;//p' "$name.fio" | cut -d';' -f79)
	echo "$name: the longest write took $longest us"
	((${longest%.*} < 10000000)) || fail "$name: a write took $longest us"
done
ublkd_stop
promise_kept file1 "$SCRATCH/image1"
promise_kept nbd2 over-tcp
