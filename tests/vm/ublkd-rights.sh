#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A member of control-group reaches through ublkd no file that the member cannot open
# alone: not at the start, not by --create, not by a link that is exchanged before a
# recovery, not after a restart of ublkd, not by an option and not by a socket. Nobody
# exports what is no storage. No other user reaches ublkd's directories, its sockets, its
# processes' memory or the devices.
# vm: timeout=180
. /lab/lib.sh ublkd

root() { timeout -k 1 60 "$@"; }
member() { root setpriv --reuid=1000 --regid=951 --clear-groups "$@"; }
nobody() { root setpriv --reuid=1001 --regid=1001 --clear-groups "$@"; }

# denied WORDS COMMAND...: it fails (with $want, or 1) with one line that has these words.
denied() {
	local status=0
	"${@:2}" >out 2>&1 || status=$?
	((status == ${want:-1})) || fail "${*:2}: status $status: $(cat out)"
	expect 1 "$(wc -l <out)" "${*:2}: lines"
	grep -qF -e "$1" out || fail "${*:2}: $(cat out)"
}

printf '%s\n' changers:x:951: >>/etc/group
defer "sed -i '/^changers:/d' /etc/group"
mkdir -p config/exports.d
printf '%s\n' '[ublkd]' 'control-group = changers' >config/ublkd.conf
defer ublkd_clean
chmod 755 .
mkdir -m 755 root_s
mkdir -m 700 member_s
chown 1000:951 member_s
truncate -s 16M root_s/secret member_s/disk
chmod 600 root_s/secret
chown 1000:951 member_s/disk
ublkd_start
sum=$(sha256sum <root_s/secret)

# Files of root's, by every way.
denied 'no permission' member ublkctl export a=file:"$PWD"/root_s/secret
denied 'no permission' member ublkctl export --read-only a=file:"$PWD"/root_s/secret
denied 'no permission' member ublkctl export a=file:/dev/ram0
ln -s "$PWD"/root_s/secret member_s/link
denied 'no permission' member ublkctl export a=file:"$PWD"/member_s/link
denied '' member ublkctl export --create 1M a=file:"$PWD"/root_s/new
[[ ! -e root_s/new ]] || fail "a member made a file in root's directory"
denied 'only root' member ublkctl export --persist a=file:"$PWD"/member_s/disk
[[ ! -e config/exports.d/a.conf ]] || fail "a member wrote root's configuration"

# A socket of root's: the listener is asked by nobody.
timeout 60 nbdkit --foreground --unix "$PWD"/root_s/socket memory 1M 2>/dev/null &
defer "kill $! 2>/dev/null"
retry 20 test -S root_s/socket || fail "nbdkit does not listen"
chmod 600 root_s/socket
denied '' member ublkctl export "a=nbd+unix:///?socket=$PWD/root_s/socket"
grep -q 'Permission denied\|no permission' out || fail "root's socket: $(cat out)"

# The member's own.
member ublkctl export own=file:"$PWD"/member_s/disk >/dev/null
member ublkctl export --create 1M made=file:"$PWD"/member_s/made >/dev/null
expect 1000 "$(stat -c %u member_s/made)" "the user of a file that a member made"
refused nobody dd if=/dev/ublk/own of=/dev/null bs=4k count=1 status=none 2>/dev/null

# An export of root's: a member cannot cut off what is in its file, nor make that larger.
truncate -s 16M root_s/image
root ublkctl export roots=file:"$PWD"/root_s/image >/dev/null
denied 'only root and the user who created the export' member ublkctl resize --force roots 1M
denied 'only root and the user who created the export' member ublkctl resize roots 32M
expect $((16 << 20)) "$(stat -c %s root_s/image)" "the size of root's file"
root ublkctl remove roots

# A key: in no message, answer, log or record, nor in a core dump of the worker that has it.
key=$(head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
echo "alice:$key" >keys
cp keys member_s/keys
chown 1000:951 member_s/keys
chmod 600 member_s/keys
timeout 170 nbdkit --foreground --tls=require --tls-psk="$PWD"/keys --unix "$PWD"/member_s/tls memory 16M 2>nbdkit.err &
defer "kill $! 2>/dev/null"
retry 20 test -S member_s/tls || fail "nbdkit does not listen: $(cat nbdkit.err)"
chown 1000 member_s/tls
options=("nbds+unix://alice@/?socket=$PWD/member_s/tls" -o tls-psk-file="$PWD"/member_s/keys)
member ublkctl export "tls=${options[0]}" "${options[@]:1}" >told
worker=$(worker_of tls)
for json in '' --json; do
	for verb in show stats; do member ublkctl "$verb" ${json:+"$json"} tls >>told; done
	member ublkctl list ${json:+"$json"} >>told
done
[[ $(awk '/^Max core file size/ { print $5, $6 }' "/proc/$worker/limits") == '0 0' ]] ||
	fail "its worker may dump core: $(cat "/proc/$worker/limits")"
expect '0 1000' "$(stat -c %u "/proc/$worker/mem") $(stat -c %u member_s/keys)" "who reads its memory and its key"
root ublkctl remove tls
# A file whose key is not where it should be, and a password.
member sh -c "echo $key >'$PWD'/member_s/keys"
for uri in "${options[0]}" "nbds://alice:$key@127.0.0.1/"; do
	status=0
	member ublkctl export "tls=$uri" "${options[@]:1}" >out 2>&1 || status=$?
	expect 2 "$status" "the status of a refused export ($(cat out))"
	cat out >>told
done
grep -q 'has no key' told || fail "a key file without a key: $(cat told)"
grep -q 'a password in a URI' told || fail "a password: $(cat told)"
if grep -F -e "$key" told ublkd.err || grep -rsF -D skip -e "$key" /run/ublkd; then
	fail "a secret was told"
fi

# Exchanged before a recovery: by a link to root's file. Also by the next ublkd.
for ublkd in same other; do
	member mv member_s/disk member_s/aside
	member ln -s "$PWD"/root_s/secret member_s/disk
	if [[ $ublkd == other ]]; then
		ublkd_kill
		ublkd_start
	fi
	kill -KILL "$(worker_of own)"
	retry 30 reason_says own 'no permission' || fail "not refused: $(reason_of own)"
	state=$(state_of own)
	[[ $state != live ]] || fail "it lives by a file that its owner cannot open"
	member mv member_s/aside member_s/disk
	becomes own live 60
done
expect "$sum" "$(sha256sum <root_s/secret)" "root's file"
refused member rm -f root_s/secret

# No storage, whoever asks.
for path in /dev/mem /dev/null /proc/kcore /proc/self/mem /sys/power/state \
	/proc/sys/kernel/core_pattern /run/ublkd/io.ublkd; do
	[[ -e $path ]] || continue
	denied '' root ublkctl export a=file:$path
done

# Any user.
for path in /run/ublkd/exports /run/ublkd/workers "/proc/$UBLKD/fd" "/proc/$(worker_of own)/fd"; do
	refused nobody ls "$path" >/dev/null
done
for path in "/proc/$(worker_of own)/mem" "/proc/$(worker_of own)/maps" /run/ublkd/lock /dev/ublkc0 /dev/ublk-control; do
	refused nobody dd if="$path" of=/dev/null bs=1 count=1 status=none 2>/dev/null
done
refused nobody ln -sfn /dev/ram0 /dev/ublk/own 2>/dev/null
refused nobody touch /run/ublkd/names/ublkb0 2>/dev/null

# Names cannot forge a line of the log, nor command a terminal.
want=2 denied '' member ublkctl export $'a\nublkd: error=null:1M'
denied '' root ublkctl export $'file:/x\e[2J\nublkd: all is well'
if LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f]\|^all is well' ublkd.err out; then
	fail "control characters in what is printed"
fi
ublkctl remove own
ublkctl remove made
ublkd_stop
