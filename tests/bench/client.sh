#!/bin/bash
# SPDX-License-Identifier: MIT
#
# client.sh: CPU time that an NBD client takes for an I/O, on this machine.
#
#   client.sh BUILD ROUNDS <PLAN      lines: JOB COMPETITOR,COMPETITOR... KIND BLOCK DEPTH IOS
#
# A competitor is CLIENT@WAY. CLIENT is one of nbd-loop.c, or ublkd with an option:
# ublkd-structured has structured=on, ublkd-trust retain=trust. WAY is [SERVER-]SOCKET: SOCKET unix or tcp (the loopback), SERVER nbdkit's
# memory plugin, or null (its null plugin), qemu (qemu-nbd) or nbdserver (nbd-server).
#
# A round runs every job; a job runs all its competitors in turn, and each round begins with
# another of them. It prints lines:
#   fact NAME WORDS
#   client ROUND JOB COMPETITOR IOS CPU_NS USER_NS SYSTEM_NS OTHER_NS WALL_NS WAITS
# Before the rounds each server's content is written by one client and compared by the other.

set -euo pipefail

loop=$1/tests/bench/nbd-loop rounds=$2
size=$((128 << 20))
work=$(mktemp -d "${TMPDIR:-/tmp}/client.XXXXXX")
pids=()

die() { echo "client.sh: $*" >&2; exit 1; }

# Those that were started here, by their ids.
end_servers() {
	local pid
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap end_servers EXIT

# listens SOCKET PATH_OR_PORT
listens() {
	if [[ $1 == unix ]]; then
		awk -v path="$2" '$8 == path { found = 1 } END { exit !found }' /proc/net/unix
	else
		awk -v port=":$(printf %04X "$2")" \
			'substr($2, 9) == port && $4 == "0A" { found = 1 } END { exit !found }' /proc/net/tcp
	fi
}

# free_port: sets PORT. Nobody can keep it for the server, which fails if it is taken.
free_port() {
	local i
	for ((i = 0; i < 100; i++)); do
		PORT=$((20000 + RANDOM % 10000))
		listens tcp "$PORT" || return 0
	done
	die "no port is free"
}

# server_command SERVER SOCKET WHERE: sets COMMAND, and EXPORT, the export's name.
server_command() {
	local server=$1 socket=$2 where=$3 to=()
	EXPORT=
	case $server in
	nbdkit | null)
		to=(--unix "$where")
		[[ $socket == unix ]] || to=(--ipaddr 127.0.0.1 --port "$where")
		COMMAND=(nbdkit --foreground "${to[@]}")
		if [[ $server == null ]]; then COMMAND+=(null "$size"); else COMMAND+=(memory "$size"); fi ;;
	qemu)
		to=(--socket="$where")
		[[ $socket == unix ]] || to=(--bind=127.0.0.1 --port="$where")
		truncate -s "$size" "$work/qemu-$socket.image"
		COMMAND=(qemu-nbd --persistent --shared=8 --format=raw "${to[@]}" "$work/qemu-$socket.image") ;;
	nbdserver)
		to=("unixsock = $where")
		[[ $socket == unix ]] || to=("port = $where" 'listenaddr = 127.0.0.1')
		truncate -s "$size" "$work/nbdserver-$socket.image"
		EXPORT=main
		printf '%s\n' '[generic]' "${to[@]}" 'allowlist = true' '[main]' \
			"exportname = $work/nbdserver-$socket.image" 'flush = true' >"$work/$socket.conf"
		COMMAND=(nbd-server -C "$work/$socket.conf" -p "$work/$socket.pid") ;;
	*)
		die "no server $server" ;;
	esac
}

# server_of WAY: starts the server if that has not been done. Sets URI.
declare -A uris=()
server_of() {
	local way=$1 server=nbdkit socket=${1##*-} where i
	URI=${uris[$way]:-}
	[[ -z $URI ]] || return 0
	[[ $way != *-* ]] || server=${way%-*}
	where=$work/$way.sock
	if [[ $socket == tcp ]]; then
		free_port
		where=$PORT
	fi
	server_command "$server" "$socket" "$where"
	type -P "${COMMAND[0]}" >/dev/null || die "${COMMAND[0]} is not installed"
	"${COMMAND[@]}" >"$work/$way.log" 2>&1 &
	pids+=($!)
	for ((i = 0; i < 100; i++)); do
		listens "$socket" "$where" && break
		sleep 0.1
	done
	# nbd-server makes a daemon of itself.
	if [[ $server == nbdserver && -s $work/$socket.pid ]]; then pids+=("$(<"$work/$socket.pid")"); fi
	listens "$socket" "$where" || die "${COMMAND[*]}: $(<"$work/$way.log")"
	URI=nbd://127.0.0.1:$where/$EXPORT
	[[ $socket == tcp ]] || URI="nbd+unix:///$EXPORT?socket=$where"
	uris[$way]=$URI
	verify "$server"
	echo "fact $way $("${COMMAND[0]}" --version 2>&1 | head -n 1)"
}

# verify SERVER: with URI; leaves its blocks written, so that reads find data.
verify() {
	local pair
	for pair in 'ublkd libnbd 4096' 'libnbd ublkd 1048576'; do
		# shellcheck disable=SC2086 # words are meant
		set -- "$1" $pair
		run_loop "$2" fill "$4" 16 $((size / $4)) >/dev/null
		[[ $1 == null ]] || run_loop "$3" check "$4" 16 $((size / $4)) >/dev/null
	done
}

# run_loop CLIENT KIND BLOCK DEPTH IOS: with URI.
run_loop() {
	local client=$1 options=()
	shift
	case $client in
	ublkd-structured) options=(-o structured=on) client=ublkd ;;
	ublkd-trust) options=(-o retain=trust) client=ublkd ;;
	esac
	timeout 60 "$loop" "${options[@]}" "$client" "$URI" "$@" || die "$client: $* failed"
}

# one_job ROUND JOB NAME... -- KIND BLOCK DEPTH IOS
one_job() {
	local round=$1 job=$2 names=() name figures
	shift 2
	while [[ $1 != -- ]]; do
		names+=("$1")
		shift
	done
	shift
	for name in "${names[@]}"; do
		server_of "${name#*@}"
		figures=$(run_loop "${name%@*}" "$@")
		echo "client $round $job $name $figures"
	done
}

mapfile -t plan
echo "fact kernel $(uname -r)"
echo "fact cpu $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
for ((round = 1; round <= rounds; round++)); do
	for line in "${plan[@]}"; do
		read -r job names words <<<"$line"
		read -ra names <<<"${names//,/ }"
		i=$((round % ${#names[@]}))
		# shellcheck disable=SC2086 # words are meant
		one_job "$round" "$job" "${names[@]:i}" "${names[@]:0:i}" -- $words
	done
done
