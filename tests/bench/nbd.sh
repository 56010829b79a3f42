# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# nbd.sh: clients of one NBD server, named CLIENT@WAY. Sourced by competitors.sh.
#
#   CLIENT   ublkd    ublkctl run
#            ublkd-structured  the same with structured=on; counted where named
#            ublkd-tls, ublkd-ktls  the same with TLS, by libnbd and by the kernel; counted
#                     where named, over tcp
#            kernel   the nbd driver, set up by nbd-client
#            qemu     qemu-img bench, which is QEMU's client and nothing else
#            bare     libnbd alone, by fio's own engine: no block device
#   WAY      unix, tcp (the loopback), unix4, tcp4: with four connections
#
# A server, nbdkit's memory plugin, is started for each of the two sockets, and
# filled. All clients of a socket have the same one.
#
# For TLS the server is another one. Its half is done by its library in either case, with the
# same cipher, AES-128-GCM.
#
# With four connections ublkd has four queues, and libnbd alone is four handles, one
# in each of fio's jobs.

# nbd_server WAY: the one of that way's socket. Sets URI.
declare -A nbd_uris=()
nbd_server() {
	local socket=${1%4} where=10809
	if [[ -z ${nbd_uris[$socket]:-} ]]; then
		declare -F nbdkit_start >/dev/null || \
			fail "nbdkit is not on the machine that packed this one"
		[[ $socket == tcp ]] || where=unix
		nbdkit_start "$socket" "$where" memory "$SIZE"
		nbd_uris[$socket]=$URI
		fio --name=fill --ioengine=nbd --uri="$URI" --rw=write --bs=1M --iodepth=4 \
			--size="$SIZE" --output=fill.log || fail "the server is not filled"
		echo "fact server $(nbdkit --version)"
	fi
	URI=${nbd_uris[$socket]}
}

# nbd_tls_server: as nbd_server, but not filled. Sets URI and the options to reach it.
nbd_tls_server() {
	if [[ -z ${nbd_uris[tls]:-} ]]; then
		modprobe tls || fail "this kernel has no module tls"
		type -P psktool >/dev/null || fail "psktool is not on the machine that packed this one"
		psktool -u bench -p "$PWD/keys.psk" >/dev/null 2>&1
		# A key would choose it, and the kernel does it without vector instructions.
		printf '%s\n' '[overrides]' 'tls-disabled-cipher = CHACHA20-POLY1305' >gnutls.conf
		export GNUTLS_SYSTEM_PRIORITY_FILE=$PWD/gnutls.conf
		nbdkit_start tls 10810 --tls=require --tls-psk="$PWD/keys.psk" memory "$SIZE"
		nbd_uris[tls]=nbds://bench@127.0.0.1:10810
	fi
	URI=${nbd_uris[tls]}
}

# nbd_tls NAME: a device with TLS.
nbd_tls() {
	local preload='' by=libnbd
	nbd_tls_server
	[[ $1 != ublkd-ktls@* ]] || preload=/lab/bin/ktls.so by='the kernel'
	LD_PRELOAD=$preload ublk_start "${1//[@-]/_}" "$URI" --queues 1 -o connections=1 \
		-o tls-psk-file="$PWD/keys.psk"
	grep -q "with TLS by $by" "${1//[@-]/_}.err" || fail "$1: TLS is not done by $by"
	fill "$DEV"
}

# nbd_kernel WAY CONNECTIONS: a device of the nbd driver for it. Sets DEV.
nbd_kernel() {
	local way=$1 connections=$2 device to
	for device in /dev/nbd*; do
		if [[ $device =~ nbd[0-9]+$ && ! -e $(sysfs_of "$device")/pid ]]; then break; fi
	done
	case $way in
	unix*) to=(-unix "$PWD/unix.sock") ;;
	tcp*) to=(127.0.0.1 10809) ;;
	esac
	timeout 60 nbd-client "${to[@]}" "$device" -C "$connections" >nbd-client.log 2>&1 ||
		fail "nbd-client: $(<nbd-client.log)"
	defer "timeout 60 nbd-client -d $device >/dev/null"
	retry 30 nbd_has_size "$device" || fail "$device has not got its size"
	DEV=$device
}

nbd_has_size() { [[ $(blockdev --getsize64 "$1") == "$SIZE" ]]; }

# nbd_connected N WAY: fail unless the server has so many connections.
nbd_connected() { expect "$1" "$(server_connections "${2%4}")" "connections of $2"; }

# nbd_competitor NAME: as competitor; qemu's TARGET is for nbd_qemu.
nbd_competitor() {
	local client=${1%@*} way=${1#*@} connections=1 structured=off before
	if [[ $client == ublkd-tls || $client == ublkd-ktls ]]; then
		nbd_tls "$1"
		TARGET=(--filename="$DEV")
		return
	fi
	[[ $way != *4 ]] || connections=4
	nbd_server "$way"
	before=$(server_connections "${way%4}")
	case $client in
	ublkd | ublkd-structured)
		[[ $client == ublkd ]] || structured=on
		ublk_start "${1//[@-]/_}" "$URI" --queues "$connections" -o connections="$connections" \
			-o structured="$structured"
		nbd_connected $((before + connections)) "$way"
		TARGET=(--filename="$DEV") ;;
	kernel)
		nbd_kernel "$way" "$connections"
		nbd_connected $((before + connections)) "$way"
		TARGET=(--filename="$DEV") ;;
	bare)
		TARGET=(--ioengine=nbd --uri="$URI") ;;
	qemu)
		# shellcheck disable=SC2034 # it is for the caller
		TARGET=("$URI") ;;
	*)
		fail "no such client: $client" ;;
	esac
}

# nbd_qemu PREFIX URI RUNTIME_MS FIO...: the same I/O by qemu-img bench. It has no
# random offsets: a step of a prime number of blocks stands for them. It is told a
# number and not a time, which the first call for a job finds out.
declare -A nbd_qemu_ios=()
nbd_qemu() {
	local prefix=$1 uri=$2 runtime=$3 key word bs=4096 step depth=1 options=() ms ios
	shift 3
	key="$uri $*"
	for word; do
		case $word in
		--bs=*)
			word=${word#*=}
			bs=$(numfmt --from=iec "${word^^}") ;;
		--iodepth=*) depth=${word#*=} ;;
		--rw=*write) options=(-w) ;;
		esac
	done
	step=$bs
	[[ $* != *=rand* ]] || step=$((bs * 257))
	options+=(-f raw -t none -d "$depth" -s "$bs" -S "$step")
	if [[ -z ${nbd_qemu_ios[$key]:-} ]]; then
		nbd_qemu_once 500
		nbd_qemu_ios[$key]=$((500 * runtime / ms + 1))
	fi
	ios=${nbd_qemu_ios[$key]}
	nbd_qemu_once "$ios"
	echo "$prefix $((ios * 1000 / ms)) $((ios * 1000 * (bs / 1024) / ms))"
}

# nbd_qemu_once IOS: with nbd_qemu's variables. Sets ms.
nbd_qemu_once() {
	timeout 120 qemu-img bench "${options[@]}" -c "$1" "$uri" >qemu-img.log 2>&1 ||
		fail "qemu-img: $(<qemu-img.log)"
	ms=$(awk '/^Run completed in/ { print int($4 * 1000) + 1 }' qemu-img.log)
	[[ -n $ms ]] || fail "qemu-img: $(<qemu-img.log)"
}
