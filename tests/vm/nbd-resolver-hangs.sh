#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# A server and the name servers that know it go away together: a worker that waits for a
# name is not taken for hung and replaced, so the acknowledged writes that it keeps for the
# server survive; and an export whose lookup hangs can be removed.
. /lab/lib.sh disks nbd ublkd

keep_etc hosts resolv.conf nsswitch.conf
defer "ip route del 10.9.9.0/24 dev lo 2>/dev/null"
# What is sent there comes in again, is for nobody, and vanishes.
ip route add 10.9.9.0/24 dev lo
echo 'hosts: files dns' >/etc/nsswitch.conf
printf 'nameserver 10.9.9.53\noptions timeout:28 attempts:1\n' >/etc/resolv.conf

known() {
	echo '127.0.0.1 storage' >/etc/hosts.new
	mv /etc/hosts.new /etc/hosts
}

worker_is_another() { [[ $(worker_of remote) != "$worker" ]]; }

truncate -s 8M image
nbdkit_start main 10809 --filter=cache file image cache=writeback
known
ublkd_start
export_start remote nbd://storage/ --queues 1
worker=$(worker_of remote)
head -c 64K /dev/zero | tr '\0' A >data
fill "$DEV" data
rm /etc/hosts
server_kill main
dd if="$DEV" of=read bs=64k count=1 iflag=direct status=none &
reader=$!
# Longer than it takes ublkd to find a queue that stands still.
if retry 27 worker_is_another; then fail "the worker was replaced"; fi
known
server_start main
retry 60 lab_gone "$reader" || fail "the server and its name are back, and I/O waits"
wait "$reader" || fail "a read fails"
cmp read data
sync "$DEV" || fail "a flush fails, and nothing was lost"
expect "$worker" "$(worker_of remote)" "the worker"
expect 0 "$(recoveries_of remote)" "recoveries"

# While a lookup hangs it can be removed.
rm /etc/hosts
server_kill main
ublkd_says 'cannot resolve'
timeout -k 5 60 ublkctl remove remote --force || fail "not removed while a lookup hangs"
ublkd_stop
