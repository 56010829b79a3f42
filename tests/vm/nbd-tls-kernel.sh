#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: timeout=240
#
# TLS by the kernel: the queue's ring has the socket, as without TLS. What is written is what is
# read back, with full sockets and over restarts of the server; a record that is no data ends the
# connection, with the reason in the log. Where the kernel sends alone, libnbd goes on. GnuTLS
# gives the kernel the keys; ktls.so does that for a GnuTLS that was built without.
. /lab/lib.sh disks nbd ublkd

type -P psktool >/dev/null || skip "psktool is not on the machine that packed this one"
modprobe tls || skip "this kernel has no module tls"

# A cipher that both kernels of the lab have modules for.
printf '%s\n' '[overrides]' 'tls-disabled-cipher = CHACHA20-POLY1305' >gnutls.conf
export GNUTLS_SYSTEM_PRIORITY_FILE=$PWD/gnutls.conf
psktool -u lab -p keys.psk >/dev/null 2>&1
by_key=(-o tls-psk-file="$PWD/keys.psk")
random_file full 8M

# kernel_served SETTING ARGUMENTS...: ublkctl run, its TLS by ktls.so.
kernel_served() {
	local setting=$1
	shift
	KTLS=$setting LD_PRELOAD=/lab/bin/ktls.so ublk_start disk "${by_key[@]}" "$@"
}

# sockets KIND: of the kernel's counters of TLS.
sockets() { awk -v name="$1" '$1 == name { print $2 }' /proc/net/tls_stat; }

# by_kernel N: so many connections were begun with TLS by the kernel, in both directions.
began_tx=0 began_rx=0
by_kernel() {
	expect "$1" $(($(sockets TlsTxSw) - began_tx)) "connections that the kernel encrypts"
	expect "$1" $(($(sockets TlsRxSw) - began_rx)) "connections that the kernel decrypts"
	began_tx=$(sockets TlsTxSw) began_rx=$(sockets TlsRxSw)
}

truncate -s 64M image
nbdkit_start main 10810 --tls=require --tls-psk="$PWD/keys.psk" file image
uri=nbds://lab@localhost:10810

echo "at $SECONDS s"
# --- content ---
kernel_served '' --queues 2 "$uri"
says 'connection 0 is up, with TLS by the kernel'
says 'connection 1 is up, with TLS by the kernel'
by_kernel 2
# No more than a try: where sending fails, each connection is lost in turn.
timeout -k 5 60 dd if=full of="$DEV" bs=1M oflag=direct status=none ||
	fail "nothing can be written: $(tail -n 1 disk.err)"
sync "$DEV"
holds "$DEV" full
cmp -n 8M image full || fail "the server has not got what was written"
fio_verify "$DEV"
expect 0 "$(gauge reconnects)" "reconnects"

echo "at $SECONDS s"
# --- the server is killed, again and again, under a writer ---
writer_start --blocks 2048 --threads 8 --ops 100000 --flush 3 --fua 3 --zero 3
for ((i = 0; i < 3; i++)); do
	writer_goes_on 100
	server_kill main
	server_start main
	retry 40 gauge_is connected 2 || fail "not connected again"
done
writer_goes_on 100
writer_stop
promises_kept "$DEV"
by_kernel 6
says 'at 127.0.0.1:10810, with TLS by the kernel'
ublk_stop disk

echo "at $SECONDS s"
# --- sockets that take little at a time ---
read -r wmem </proc/sys/net/ipv4/tcp_wmem
echo 4096 8192 8192 >/proc/sys/net/ipv4/tcp_wmem
defer "echo '$wmem' >/proc/sys/net/ipv4/tcp_wmem"
random_file part 2M
kernel_served '' --queues 1 "$uri"
fill "$DEV" part
holds "$DEV" part
by_kernel 1
expect 0 "$(gauge reconnects)" "reconnects"
ublk_stop disk
echo "$wmem" >/proc/sys/net/ipv4/tcp_wmem

echo "at $SECONDS s"
# --- the kernel sends, and libnbd receives ---
kernel_served tx --queues 1 "$uri"
says 'connection 0 is up, with TLS by libnbd'
expect 1 $(($(sockets TlsTxSw) - began_tx)) "connections that the kernel encrypts"
expect 0 $(($(sockets TlsRxSw) - began_rx)) "connections that the kernel decrypts"
fill "$DEV" full
holds "$DEV" full
expect 0 "$(gauge reconnects)" "reconnects"
ublk_stop disk
server_stop main

echo "at $SECONDS s"
# --- records that are no data ---
# broken_by RECORD WORDS: the server sends it before its next data.
broken_by() {
	local before
	before=$(gauge reconnects)
	printf '%b' "$1" >say.new
	mv say.new say
	# Overlapping I/O waits for the end of the connection that had this write.
	dd if=full of="$DEV" bs=4k count=1 oflag=direct status=none
	[[ ! -e say ]] || fail "the server has not sent a record: $2"
	says "connection 0 to the server is lost: $2: I/O waits"
	retry 20 gauge_is reconnects $((before + 1)) || fail "not connected again after: $2"
	holds "$DEV" full
}
server_set told 10811 env KTLS=say="$PWD/say" LD_PRELOAD=/lab/bin/ktls.so \
	nbdkit --foreground --ipaddr 127.0.0.1 --port 10811 \
	--tls=require --tls-psk="$PWD/keys.psk" file image
server_start told
kernel_served '' --queues 1 nbds://lab@localhost:10811
holds "$DEV" full
broken_by '\x15\x01\x00' 'the server ended TLS'
broken_by '\x15\x02\x50' 'the server ended TLS with alert 80'
expect 0 "$(lines 'not on the old connection')" "old connections whose end was not seen"
broken_by '\x16\x18\x00\x00\x01\x00' 'the server has changed its TLS key'
broken_by '\x16\x04\x00\x00\x01\x00' 'the server sent a TLS record of type 22'
ublk_stop disk

echo "at $SECONDS s"
# --- in the sandbox of a worker ---
began_rx=$(sockets TlsRxSw)
LD_PRELOAD=/lab/bin/ktls.so ublkd_start
export_start secure nbds://lab@localhost:10811 "${by_key[@]}" --queues 1
# This server's half is the kernel's, too.
expect 2 $(($(sockets TlsRxSw) - began_rx)) "connections that the kernel decrypts"
holds "$DEV" full
fio_verify "$DEV"
