#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest programs=getent
#
# A server's name has two addresses, and the server is at the second: the first one is
# silent, or accepts connections and does not negotiate. It is reached at the start and
# after a loss, and the log tells where.
. /lab/lib.sh disks nbd

keep_etc hosts gai.conf host.conf nsswitch.conf
defer "ip route del 10.9.9.0/24 dev lo 2>/dev/null"
# What is sent there comes in again, is for nobody, and vanishes.
ip route add 10.9.9.0/24 dev lo
echo 'hosts: files' >/etc/nsswitch.conf
echo 'multi on' >/etc/host.conf

# first ADDRESS: it comes before the server's.
first() {
	printf '%s storage\n127.0.0.1 storage\n' "$1" >/etc/hosts.new
	mv /etc/hosts.new /etc/hosts
	echo "precedence ::ffff:$1/128 100" >/etc/gai.conf
	expect "$1" "$(getent ahosts storage | head -n 1 | cut -d' ' -f1)" "the first address"
}

truncate -s 8M image
nbdkit_start main 10809 file image
# It is stopped: its kernel accepts, and it says nothing.
server_set mute 10809 nbdkit --foreground --ipaddr 127.0.0.9 --port 10809 memory 8M
server_start mute
server_freeze mute

for address in 10.9.9.77 127.0.0.9; do
	first "$address"
	ublk_start disk --queues 1 nbd://storage/
	random_file data 64K
	fill "$DEV" data
	server_kill main
	dd if="$DEV" of=read bs=64k count=1 iflag=direct status=none &
	reader=$!
	says 'is lost'
	server_start main
	retry 30 lab_gone "$reader" || fail "$address: the server is back, and I/O waits"
	wait "$reader" || fail "$address: a read fails"
	cmp read data
	says 'at 127.0.0.1:10809'
	ublk_stop disk
done
