# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# nbd.sh: NBD servers for tests.
#
#   . /lab/lib.sh nbd
#
#   nbdkit_start main unix memory 64M
#   ublk_start disk "$URI"
#   server_kill main
#   server_start main
#
# A server is known by the name that it got, and stays on its socket through kill
# and start. WHERE is "unix", for a socket in the test's directory, or a port of the
# loopback. All of them end with the test, after its devices.

# shellcheck source=tests/lab/guest/writer.sh
. /lab/writer.sh

type -P nbdkit >/dev/null || skip "nbdkit is not on the machine that packed this one"

declare -A server_pids=() server_where=() server_command=()

# nbdkit_start NAME WHERE ARGUMENTS...: nbdkit's arguments, filters and plugin.
# Sets URI, and SERVER to the process. Where workers are killed, give --threads 1:
# nbdkit 1.32 may abort ("Assertion `sock >= 0'") if a connection ends while several
# of its threads answer.
nbdkit_start() {
	local name=$1 where=$2
	shift 2
	nbdkit_set "$name" "$where" "$@"
	server_start "$name"
}

# nbdkit_set NAME WHERE ARGUMENTS...: how the server is to be started from now on.
nbdkit_set() {
	local name=$1 where=$2 socket
	shift 2
	if [[ $where == unix ]]; then
		socket=(--unix "$PWD/$name.sock")
	else
		socket=(--ipaddr 127.0.0.1 --port "$where")
	fi
	server_set "$name" "$where" nbdkit --foreground "${socket[@]}" "$@"
}

# qemu_nbd_start NAME WHERE ARGUMENTS...
qemu_nbd_start() {
	local name=$1 where=$2 socket
	shift 2
	if [[ $where == unix ]]; then
		socket=(--socket="$PWD/$name.sock")
	else
		socket=(--bind=127.0.0.1 --port="$where")
	fi
	server_set "$name" "$where" qemu-nbd --persistent "${socket[@]}" "$@"
	server_start "$name"
}

# nbd_server_start NAME PORT FILE [LINE...]: the reference server, with the lines in
# its export's part of the configuration. The export has the server's name. It
# listens at once, but first of all searches a prime for TLS, used or not, for many
# seconds when emulated, and answers nobody until then: see nbd_server_greets.
nbd_server_start() {
	local name=$1 port=$2 file=$3
	shift 3
	{
		printf '%s\n' '[generic]' "port = $port" 'listenaddr = 127.0.0.1' 'allowlist = true'
		printf '%s\n' "[$name]" "exportname = $file" "$@"
	} >"$name.conf"
	server_set "$name" "$port" nbd-server -C "$PWD/$name.conf" -p "$PWD/$name.pid"
	server_start "$name"
	URI+=/$name
}

# nbd_server_greets PORT: until it does.
nbd_server_greets() {
	timeout -k 5 120 bash -c "exec 5<>/dev/tcp/127.0.0.1/$1; head -c 8 <&5" | grep -qx NBDMAGIC ||
		fail "nbd-server does not greet"
}

# server_set NAME WHERE COMMAND...
server_set() {
	local name=$1
	[[ -n ${server_where[$name]:-} ]] || defer "server_end $name"
	server_where[$name]=$2
	shift 2
	server_command[$name]=$(printf '%q ' "$@")
}

# server_start NAME: start it (again), until it listens.
server_start() {
	local name=$1 where=${server_where[$1]} command
	rm -f "$PWD/$name.sock" "$PWD/$name.pid"
	eval "command=(${server_command[$name]})"
	"${command[@]}" >>"$name.server" 2>&1 &
	SERVER=$!
	if [[ ${command[0]} == nbd-server ]]; then
		# It makes a daemon of itself, whether asked to or not.
		retry 30 test -s "$name.pid" || fail "nbd-server: $(<"$name.server")"
		SERVER=$(<"$name.pid")
	fi
	server_pids[$name]=$SERVER
	if ! retry 30 server_listens_or_ended "$name" || lab_gone "$SERVER"; then
		sed "s/^/$name: /" "$name.server"
		fail "the server '${command[*]}' does not listen"
	fi
	if [[ $where == unix ]]; then
		URI="nbd+unix:///?socket=$PWD/$name.sock"
	else
		URI=nbd://127.0.0.1:$where
	fi
}

# server_sockets NAME: the state of each socket of the server's, one a line:
# "listening" or "connected". While sockets come and go the kernel may leave one
# out: what is asked must be asked again.
server_sockets() {
	local where=${server_where[$1]}
	if [[ $where == unix ]]; then
		awk -v path="$PWD/$1.sock" '$8 == path {
			print $4 == "00010000" ? "listening" : $6 == "03" ? "connected" : "other" }' \
			/proc/net/unix
	else
		awk -v port=":$(printf %04X "$where")" 'substr($2, 9) == port {
			print $4 == "0A" ? "listening" : $4 == "01" ? "connected" : "other" }' \
			/proc/net/tcp
	fi
}

server_listens_or_ended() {
	lab_gone "${server_pids[$1]}" || server_sockets "$1" | grep -qx listening
}

# server_connections NAME: how many clients are connected to it.
server_connections() { server_sockets "$1" | grep -cx connected || true; }

# server_pid NAME: its process.
server_pid() { echo "${server_pids[$1]}"; }

# server_kill NAME: with SIGKILL, and wait until it is gone.
server_kill() {
	kill -KILL "${server_pids[$1]}"
	wait "${server_pids[$1]}" 2>/dev/null || true
	unset "server_pids[$1]"
}

# server_stop NAME: in order, which writes back what it holds. Where that does not
# end it, the test has failed.
server_stop() {
	local pid=${server_pids[$1]}
	kill -TERM "$pid"
	retry 30 lab_gone "$pid" || fail "the server $1 has not ended 30 s after SIGTERM"
	wait "$pid" 2>/dev/null || true
	unset "server_pids[$1]"
}

# server_freeze NAME, server_thaw NAME: it hangs, it goes on.
server_freeze() { kill -STOP "${server_pids[$1]}"; }
server_thaw() { kill -CONT "${server_pids[$1]}"; }

# server_end NAME: it is over, whatever state it is in.
server_end() {
	local pid=${server_pids[$1]:-}
	[[ -n $pid ]] || return 0
	! lab_gone "$pid" || tail -n 20 "$1.server"
	kill -CONT "$pid" 2>/dev/null
	kill -TERM "$pid" 2>/dev/null
	retry 5 lab_gone "$pid" || kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	unset "server_pids[$1]"
}

# gauge NAME: one of the device's gauges, as its server counts it.
gauge() { counted "gauge.$1"; }

# gauge_is NAME VALUE: for retry.
gauge_is() { [[ $(gauge "$1") == "$2" ]]; }

# lines WORDS [NAME]: how often a device's server (default: disk) has said them.
lines() { grep -cF -e "$1" "${2:-disk}.err" || true; }

# says WORDS [SECONDS]: until the server of the device "disk" has said them.
says() { retry "${2:-40}" grep -qF -e "$1" disk.err || fail "not said: '$1'"; }
