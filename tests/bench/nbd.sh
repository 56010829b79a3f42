# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# nbd.sh: clients of an NBD server, named CLIENT@WAY. Sourced by competitors.sh.
#
#   CLIENT   ublkd    ublkctl run
#            ublkd-structured  the same with structured=on; counted where named
#            ublkd-N  with connections=N (a number, or auto) and queues=auto
#            ublkd-tls, ublkd-ktls  the same with TLS, by libnbd and by the kernel; counted
#                     where named, over tcp
#            kernel   the nbd driver, set up by nbd-client
#            kernel-N the same, with N connections
#            qemu     qemu-img bench, which is QEMU's client and nothing else
#            bare     libnbd alone, by fio's own engine: no block device
#   WAY      unix, tcp (the loopback), unix4, tcp4: with four connections; the server is
#            nbdkit's memory plugin
#            single-unix, single-tcp       the same server without multi-conn
#            qemu-unix, qemu-tcp, nbdserver-tcp   qemu-nbd and nbd-server, of a file in
#            memory, with multi-conn
#
# A server is started for each of the ways, unix4 and tcp4 aside, and filled. All clients of
# a way have the same one.
#
# For TLS the server is another one. Its half is done by its library in either case, with the
# same cipher, AES-128-GCM.
#
# With four connections ublkd has four queues, and libnbd alone is four handles, one
# in each of fio's jobs.
#
# Beside rates it prints the CPU time that processes took for the I/Os of a rate:
#   cpu ROUND JOB COMPETITOR IOS CLIENT_NS SERVER_NS
# IOS are those of the block device, of the job's size. CLIENT_NS is that of ublkd's process, 0
# for the kernel's driver, whose work is in other processes.

# nbd_server WAY: the one of that way. Sets URI.
declare -A nbd_uris=()
nbd_server() {
	local name=${1%4} where=unix
	if [[ -z ${nbd_uris[$name]:-} ]]; then
		declare -F nbdkit_start >/dev/null || \
			fail "nbdkit is not on the machine that packed this one"
		case $name in
		tcp) where=10809 ;;
		single-tcp) where=10810 ;;
		qemu-tcp) where=10811 ;;
		nbdserver-tcp) where=10812 ;;
		esac
		nbd_server_of "$name" "$where"
		nbd_uris[$name]=$URI
		fio --name=fill --ioengine=nbd --uri="$URI" --rw=write --bs=1M --iodepth=4 \
			--size="$SIZE" --output=fill.log || fail "the server is not filled"
	fi
	URI=${nbd_uris[$name]}
}

# nbd_server_of NAME WHERE
nbd_server_of() {
	local name=$1 where=$2 program=nbdkit
	case $name in
	single-*)
		nbdkit_start "$name" "$where" --filter=multi-conn memory "$SIZE" multi-conn-mode=disable ;;
	qemu-*)
		program=qemu-nbd
		truncate -s "$SIZE" "$name.image"
		qemu_nbd_start "$name" "$where" --shared=64 --format=raw "$name.image" ;;
	nbdserver-*)
		program=nbd-server
		truncate -s "$SIZE" "$name.image"
		nbd_server_start "$name" "$where" "$PWD/$name.image" 'flush = true'
		nbd_server_greets "$where" ;;
	*)
		nbdkit_start "$name" "$where" memory "$SIZE" ;;
	esac
	echo "fact server-$name $("$program" --version 2>&1 | head -n 1)"
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
		nbdkit_start tls 10813 --tls=require --tls-psk="$PWD/keys.psk" memory "$SIZE"
		nbd_uris[tls]=nbds://bench@127.0.0.1:10813
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
	local name=${1%4} connections=$2 device to options=()
	for device in /dev/nbd*; do
		if [[ $device =~ nbd[0-9]+$ && ! -e $(sysfs_of "$device")/pid ]]; then break; fi
	done
	case $name in
	*unix) to=(-unix "$PWD/$name.sock") ;;
	*tcp) to=(127.0.0.1 "${server_where[$name]}") ;;
	esac
	[[ $name != nbdserver-* ]] || options=(-N "$name")
	timeout 60 nbd-client "${to[@]}" "$device" "${options[@]}" -C "$connections" >nbd-client.log 2>&1 ||
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
		ublk_start "$(nbd_id "$1")" "$URI" --queues "$connections" -o connections="$connections" \
			-o structured="$structured"
		nbd_connected $((before + connections)) "$way"
		TARGET=(--filename="$DEV") ;;
	ublkd-*)
		ublk_start "$(nbd_id "$1")" "$URI" --queues auto -o connections="${client#*-}"
		nbd_fact_connections "$1" "$before"
		TARGET=(--filename="$DEV") ;;
	kernel | kernel-*)
		[[ $client == kernel ]] || connections=${client#*-}
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

# nbd_id NAME: ublk_start's name for it.
nbd_id() { echo "${1//[@-]/_}"; }

# nbd_fact_connections NAME BEFORE: how many connections and queues it has.
nbd_fact_connections() {
	local dir
	dir=$(sysfs_of "$DEV")
	echo "fact $1 connections=$(($(server_connections "${1#*@}") - $2))" \
		"queues=$(find "$dir/mq" -mindepth 1 -maxdepth 1 | wc -l)"
}

# nbd_rate NAME FIO...: with one_rate's variables prefix and runtime, TARGET being NAME's.
nbd_rate() {
	local name=$1 device=${TARGET[0]#--filename=} bs client server sectors
	# shellcheck disable=SC2034 # for fio_rate
	local count=1 args=(--name="$1" "${TARGET[@]}")
	shift
	case $name in
	qemu@*)
		nbd_qemu "$prefix $name" "${TARGET[0]}" "$runtime" "$@"
		return ;;
	bare@*)
		fio_rate "$@"
		return ;;
	esac
	nbd_usage "$name" "$device"
	client=$CLIENT server=$SERVED sectors=$SECTORS
	fio_rate "$@"
	nbd_usage "$name" "$device"
	bs=$(printf '%s\n' "$@" | sed -n 's/^--bs=//p')
	bs=$(numfmt --from=iec "${bs^^}")
	echo "cpu $prefix $name $(((SECTORS - sectors) / (bs / 512))) $((CLIENT - client))" \
		"$((SERVED - server))"
}

# nbd_server_usage PID: nbd-server has a process for each connection. Sets SERVED.
nbd_server_usage() {
	local pid
	SERVED=0
	# shellcheck disable=SC2013 # words are meant
	for pid in "$1" $(cat /proc/"$1"/task/*/children); do
		cpu_of "$pid"
		SERVED=$((SERVED + CPU))
	done
}

# nbd_server_name NAME: what nbd.sh of the lab knows the client's server by.
nbd_server_name() {
	local way=${1#*@}
	echo "${way%4}"
}

# nbd_usage NAME DEVICE: sets CLIENT and SERVED, nanoseconds of CPU time of both processes so
# far, and SECTORS, those that the device has read and written.
nbd_usage() {
	local name=$1 stat
	CLIENT=0
	if [[ $name == ublkd* ]]; then
		cpu_of "$(ublk_pid "$(nbd_id "$name")")"
		CLIENT=$CPU
	fi
	nbd_server_usage "$(server_pid "$(nbd_server_name "$name")")"
	read -ra stat <"$(sysfs_of "$2")/stat"
	SECTORS=$((stat[2] + stat[6]))
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
	echo "rate $prefix $((ios * 1000 / ms)) $((ios * 1000 * (bs / 1024) / ms))"
}

# nbd_qemu_once IOS: with nbd_qemu's variables. Sets ms.
nbd_qemu_once() {
	timeout 120 qemu-img bench "${options[@]}" -c "$1" "$uri" >qemu-img.log 2>&1 ||
		fail "qemu-img: $(<qemu-img.log)"
	ms=$(awk '/^Run completed in/ { print int($4 * 1000) + 1 }' qemu-img.log)
	[[ -n $ms ]] || fail "qemu-img: $(<qemu-img.log)"
}
