#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# TLS: with the right key or certificate a device is served; a wrong key, an expired
# certificate, one of another name and a server without TLS are refused within
# seconds, with the cause, without a device and without plaintext. Also when the
# server comes back without TLS.
. /lab/lib.sh disks nbd

for program in certtool psktool; do
	type -P $program >/dev/null || skip "$program is not on the machine that packed this one"
done

# certificate DIRECTORY NAME DAYS: a server's, signed by the lab's own authority.
certificate() {
	mkdir -p "$1"
	certtool --generate-privkey --key-type ecdsa --outfile "$1/server-key.pem" 2>certtool.log
	printf '%s\n' "cn = $2" "dns_name = $2" tls_www_server signing_key \
		'activation_date = "2020-01-01 00:00:00 UTC"' "expiration_date = \"$3-01-01 00:00:00 UTC\"" \
		>server.cfg
	certtool --generate-certificate --load-ca-certificate ca/ca-cert.pem \
		--load-ca-privkey ca/ca-key.pem --load-privkey "$1/server-key.pem" \
		--template server.cfg --outfile "$1/server-cert.pem" 2>certtool.log ||
		fail "certtool: $(cat certtool.log)"
	cp ca/ca-cert.pem "$1/"
}

# refused_soon WORDS ARGUMENTS...: ublkctl run with these arguments; a REFUSED_WITH
# before it is the exit status.
refused_soon() {
	local began=$SECONDS words=$1
	shift
	refuses "${REFUSED_WITH:-1}" "$words" run "$@"
	((SECONDS - began <= 10)) || fail "$*: refused only after $((SECONDS - began)) s"
	sed 's/^/as it should: /' refused.err
	expect '[]' "$(ublkctl list --json | tr -d ' \n')" "devices of '$*'"
}

# served_well ARGUMENTS...
random_file full 4M
served_well() {
	ublk_start disk "$@"
	fill "$DEV" full
	sync "$DEV"
	holds "$DEV" full
}

mkdir ca
certtool --generate-privkey --key-type ecdsa --outfile ca/ca-key.pem 2>certtool.log
printf '%s\n' 'cn = lab' ca cert_signing_key 'activation_date = "2020-01-01 00:00:00 UTC"' \
	'expiration_date = "2090-01-01 00:00:00 UTC"' >ca.cfg
certtool --generate-self-signed --load-privkey ca/ca-key.pem --template ca.cfg \
	--outfile ca/ca-cert.pem 2>certtool.log || fail "certtool: $(cat certtool.log)"
mkdir client
cp ca/ca-cert.pem client/
certificate good localhost 2090
certificate old localhost 2021
certificate other other.example 2090
psktool -u lab -p right.psk >/dev/null 2>&1
psktool -u lab -p wrong.psk >/dev/null 2>&1
psktool -u nobody -p unknown.psk >/dev/null 2>&1

# --- a key that both know ---
nbdkit_start psk 10810 --tls=require --tls-psk="$PWD/right.psk" memory 16M
URI=nbds://lab@localhost:10810
served_well -o tls-psk-file="$PWD/right.psk" "$URI"
ublk_stop disk
served_well -o tls-psk-file="$PWD/right.psk" -o structured=on "$URI"
ublk_stop disk
served_well --queues 2 -o tls=require -o tls-username=lab -o tls-psk-file="$PWD/right.psk" \
	nbd://localhost:10810
writer_start --blocks 2000 --threads 4 --ops 100 --flush 3 --fua 3
writer_ends
promises_kept "$DEV"
ublk_stop disk
refused_soon 'TLS handshake' -o tls-psk-file="$PWD/wrong.psk" "$URI"
refused_soon 'TLS handshake' -o tls-psk-file="$PWD/unknown.psk" nbds://nobody@localhost:10810
# A server that insists, and a client without.
refused_soon 'write nbds://' nbd://localhost:10810
server_stop psk

# --- a certificate ---
by_certificate=(-o tls-certificates="$PWD/client" -o tls-allow-unfixed=on)
URI=nbds://localhost:10811
nbdkit_start good 10811 --tls=require --tls-certificates="$PWD/good" memory 16M
URI=nbds://localhost:10811
served_well "${by_certificate[@]}" "$URI"
ublk_stop disk
# That is not even tried.
REFUSED_WITH=2 refused_soon 'CVE-2024-7383' -o tls-certificates="$PWD/client" "$URI"
# The same server by an address that its certificate does not have.
refused_soon 'certificate of' "${by_certificate[@]}" nbds://127.0.0.1:10811
server_stop good

nbdkit_start old 10812 --tls=require --tls-certificates="$PWD/old" memory 16M
refused_soon 'certificate of' "${by_certificate[@]}" nbds://localhost:10812
server_stop old

nbdkit_start other 10813 --tls=require --tls-certificates="$PWD/other" memory 16M
refused_soon 'certificate of' "${by_certificate[@]}" nbds://localhost:10813
server_stop other

# --- a server without TLS ---
nbdkit_start plain 10814 --filter=log memory 16M logfile="$PWD/plain.log"
refused_soon 'offers no TLS' -o tls-psk-file="$PWD/right.psk" nbds://lab@localhost:10814
refused_soon 'offers no TLS' "${by_certificate[@]}" nbds://localhost:10814
refused_soon 'offers no TLS' -o tls=require -o tls-psk-file="$PWD/right.psk" nbd://lab@localhost:10814
# tls=on takes TLS where it is offered.
served_well -o tls=on -o tls-psk-file="$PWD/right.psk" nbd://lab@localhost:10814
ublk_stop disk
server_stop plain

# --- a server that comes back without ---
truncate -s 16M image
nbdkit_start main 10815 --tls=require --tls-psk="$PWD/right.psk" file image
URI=nbds://lab@localhost:10815
served_well -o tls-psk-file="$PWD/right.psk" "$URI"
random_file data 64K
server_kill main
cp image plain
nbdkit_set main 10815 --filter=log file plain logfile="$PWD/again.log"
server_start main
fill "$DEV" data 2>waiting.err &
waiting=$!
# Some attempts of it: each hears that the server has no TLS, and none goes on.
retry 20 grep -q TLS disk.err || fail "that the server has no TLS is not said"
sleep 2
kill -0 $waiting || fail "a write has ended without TLS: $(cat waiting.err)"
if grep ' Connect ' again.log; then fail "it goes on without TLS"; fi
server_kill main
cmp image plain || fail "it has written without TLS"
nbdkit_set main 10815 --tls=require --tls-psk="$PWD/right.psk" file image
server_start main
retry 30 lab_gone $waiting || fail "the write still waits with TLS back"
wait $waiting || fail "the write that waited: $(cat waiting.err)"
holds "$DEV" data
