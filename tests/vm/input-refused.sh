#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# What makes no sense or cannot be is refused: with exit status 2 (it was asked for
# wrongly) or 1 (it failed), one line that names the thing, nothing on stdout, no
# device and no new file.
. /lab/lib.sh disks

: >empty
head -c 511 /lab/lib.sh >tiny
head -c 1M /dev/zero >file
head -c 4000 /dev/zero >short
echo precious >exists
mkdir directory
mkfifo fifo
ln -s nowhere dangling
ln -s loop loop
cp "$BASH" busy
./busy -c 'sleep 1000; :' &
defer "kill $!"
mkdir mnt
mkfs.ext4 -q /dev/ram0 4M
mount /dev/ram0 mnt
defer "umount '$PWD/mnt'"
# shellcheck disable=SC2034 # the table uses it
long=$(printf 'x%.0s' {1..300})
ublk_start taken --id 5 null:1M
snapshot() { find . -newer stamp ! -name 'refused.*' ! -name . ; cat exists; }
touch stamp
sleep 0.1
before=$(snapshot)

nr=0
while IFS='|' read -r status words arguments; do
	[[ -n $status && $status != \#* ]] || continue
	eval "set -- $arguments"
	read -r words <<<"$words"
	refuses "$((status))" "$words" "$@"
	left=(/dev/ublk[bc]*)
	expect '/dev/ublkb5 /dev/ublkc5' "${left[*]}" "devices after 'ublkctl $*'"
	nr=$((nr + 1))
done <<'TABLE'
# verbs
2 | a verb is missing    |
2 | unknown verb 'frob'  | frob
2 | unknown verb ''      | ''
2 | unknown verb '--run' | --run null:1M
2 | unknown verb 'Run'   | Run null:1M
2 | unknown verb 'null:1M' | null:1M
# the URI
2 | the URI is missing   | run
2 | the URI is missing   | run --queues 1
2 | the URI is missing   | run --read-only
2 | expected one URI     | run null:1M null:1M
2 | expected one URI     | run null:1M memory:1M --queues 1
2 | expected one URI     | run null:1M --read-only on
2 | the URI is empty     | run ''
2 | scheme 'floppy:'     | run floppy:1M
2 | scheme 'NULL:'       | run NULL:1M
2 | scheme 'nulls:'      | run nulls:1M
2 | scheme 'nul:'        | run nul:1M
2 | scheme 'http:'       | run http://example/disk
2 | scheme 'file+x:'     | run file+x:/tmp/file
2 | give a path          | run file:
1 | directory            | run file:///../..//
# sizes
2 | null:0               | run null:0
2 | null:                | run null:
2 | null:0K              | run null:0K
2 | null:-1              | run null:-1
2 | null:+1              | run null:+1
2 | null: 1M             | run 'null: 1M'
2 | null:1M              | run 'null:1M '
2 | null:1X              | run null:1X
2 | null:1MM             | run null:1MM
2 | null:1MB             | run null:1MB
2 | null:M               | run null:M
2 | null:1.5G            | run null:1.5G
2 | null:0x1000          | run null:0x1000
2 | null:1,000           | run null:1,000
2 | null:8E              | run null:8E
2 | null:9223372036854775808 | run null:9223372036854775808
2 | null:18446744073709551616 | run null:18446744073709551616
2 | null:99999999999999999999999G | run null:99999999999999999999999G
2 | null:16777216T       | run null:16777216T
2 | null:lots            | run null:lots
2 | memory:0             | run memory:0
2 | memory:              | run memory:
2 | memory:-1G           | run memory:-1G
2 | memory:8E            | run memory:8E
2 | memory:1Q            | run memory:1Q
2 | null:511             | run null:511
2 | null:4095            | run --block-size 4096 null:4095
2 | memory:100           | run memory:100
1 | memory               | run memory:7E
# options of every export
2 | unknown option '--frob' | run --frob null:1M
2 | unknown option '--frob=1' | run --frob=1 null:1M
2 | unknown option '-x'  | run -x null:1M
2 | needs a value        | run null:1M --queues
2 | needs a value        | run null:1M -o
2 | depth                | run --depth 0 null:1M
2 | depth                | run --depth 5000 null:1M
2 | depth                | run --depth 4097 null:1M
2 | depth                | run --depth -1 null:1M
2 | depth                | run --depth '' null:1M
2 | depth                | run --depth many null:1M
2 | depth                | run --depth 1K null:1M
2 | depth                | run --depth 99999999999999999999 null:1M
2 | queues               | run --queues 0 null:1M
2 | queues               | run --queues 4097 null:1M
2 | queues               | run --queues none null:1M
2 | queues               | run --queues 1.5 null:1M
2 | queues               | run --queues= null:1M
2 | block-size           | run --block-size 0 null:1M
2 | block-size           | run --block-size 500 null:1M
2 | block-size           | run --block-size 513 null:1M
2 | block-size           | run --block-size 256 null:1M
2 | block-size           | run --block-size 8192 null:1M
2 | block-size           | run --block-size 1536 null:1M
2 | block-size           | run --block-size -512 null:1M
2 | max-io               | run --max-io 0 null:1M
2 | max-io               | run --max-io 5000 null:1M
2 | max-io               | run --max-io 512 null:1M
2 | max-io               | run --max-io 64M null:1M
2 | max-io               | run --max-io 33554433 null:1M
2 | max-io               | run --max-io 1Z null:1M
2 | id                   | run --id -1 null:1M
2 | id                   | run --id x null:1M
2 | id                   | run --id 4294967295 null:1M
2 | id                   | run --id '' null:1M
2 | io-path              | run --io-path teleport null:1M
2 | io-path              | run --io-path '' null:1M
2 | io-path              | run --io-path COPY null:1M
2 | cpus                 | run --cpus '' null:1M
2 | cpus                 | run --cpus x null:1M
2 | cpus                 | run --cpus 0- null:1M
2 | cpus                 | run --cpus 1-0 null:1M
2 | cpus                 | run --cpus 0,,1 null:1M
2 | cpus                 | run --cpus -1 null:1M
2 | cpus                 | run --cpus 99999999 null:1M
2 | partitions           | run --partitions maybe null:1M
2 | partitions           | run --partitions= null:1M
2 | read-only            | run --read-only=maybe null:1M
2 | run takes no name    | run a=memory:1M
2 | multiple             | run memory:1000
2 | multiple             | run null:4097 --block-size 4096
2 | json                 | run --json=maybe null:1M
1 | 5                    | run --id 5 null:1M
1 | 5                    | run --id 5 memory:1M
1 | 5                    | run --id 5 --create 1M new
# options of the backends
2 | frob                 | run -o frob=1 null:1M
2 | frob                 | run -o frob=1 memory:1M
2 | frob                 | run -o frob file
2 | 'limit'              | run -o limit=1M null:1M
2 | 'limit'              | run -o limit=1M file
2 | 'direct'             | run -o direct=on memory:1M
2 | ''                   | run -o '' memory:1M
2 | ''                   | run -o =1 memory:1M
2 | ''                   | run -o == file
2 | direct               | run -o direct=maybe file
2 | direct               | run -o direct= file
2 | direct               | run -o direct file
2 | shard                | run -o shard=3M memory:1M
2 | shard                | run -o shard=0 memory:1M
2 | shard                | run -o shard=512 memory:1M
2 | shard                | run -o shard=2T memory:1M
2 | shard                | run -o shard= memory:1M
2 | shard                | run -o hugepages=2M -o shard=1M memory:8M
2 | limit                | run -o limit=0 memory:1M
2 | limit                | run -o limit=-1 memory:1M
2 | limit                | run -o limit=much memory:1M
2 | hugepages            | run -o hugepages=4M memory:8M
2 | hugepages            | run -o hugepages=on memory:8M
2 | numa                 | run -o numa=7 memory:1M
2 | numa                 | run -o numa memory:1M
# NBD
2 | host is missing      | run nbd://
2 | host is missing      | run nbd:///export
2 | nbd://HOST           | run nbd:localhost
2 | nbd://HOST           | run nbd:/localhost
2 | socket is missing    | run nbd+unix:///export
2 | scheme 'nbd+ssh:'    | run nbd+ssh://localhost/export
2 | scheme 'nbd+exec:'   | run nbd+exec:///bin/true
2 | retain               | run -o retain=1 nbd://localhost
2 | retain               | run -o retain=63K nbd://localhost
2 | retain               | run -o retain=lots nbd://localhost
2 | connections          | run -o connections=0 nbd://localhost
2 | connections          | run -o connections=65 nbd://localhost
2 | connections          | run -o connections=many nbd://localhost
2 | reconnect-deadline   | run -o reconnect-deadline=soon nbd://localhost
2 | reconnect-deadline   | run -o reconnect-deadline=-1 nbd://localhost
2 | reconnect-deadline   | run -o reconnect-deadline=1.5s nbd://localhost
2 | request-timeout      | run -o request-timeout=0 nbd://localhost
2 | request-timeout      | run -o request-timeout=forever nbd://localhost
2 | request-timeout      | run -o request-timeout=99999999999999h nbd://localhost
2 | tls                  | run -o tls=maybe nbd://localhost
2 | TLS is required      | run -o tls=off nbds://localhost
2 | has no TLS           | run -o tls-psk-file=keys nbd://localhost
2 | has no TLS           | run -o tls-username=me nbd+unix:///?socket=nothing
2 | create               | run --create 1M nbd://localhost
1 | is the port right    | run nbd://127.0.0.1:9/
1 | no such socket       | run nbd+unix:///?socket=nothing
1 | cannot resolve       | run nbd://nosuchhost.invalid/
1 | exists               | run -o request-timeout=1s nbd+unix:///?socket=exists
2 | the URI is missing   | nbd-list
2 | not on a server      | nbd-list file
2 | not on a server      | nbd-list memory:1M
2 | host is missing      | nbd-list nbd://
1 | is the port right    | nbd-list nbd://127.0.0.1:9
2 | unknown option       | nbd-list --frob nbd://localhost
# resize
2 | expected one export  | resize
2 | can set a size       | resize 5 6
2 | not a ublk device    | resize sda
1 | 9                    | resize 9
# files
1 | nothing              | run nothing
1 | nothing              | run --read-only file:nothing
1 | directory/nothing       | run directory/nothing
1 | file/nothing         | run file/nothing
1 | directory            | run directory
1 | directory            | run file:/
1 | /dev/zero            | run /dev/zero
1 | fifo                 | run fifo
1 | dangling             | run dangling
1 | loop                 | run loop
1 | empty                | run empty
1 | tiny                 | run tiny
1 | short                | run --block-size 4096 short
1 | busy                 | run busy
1 | permission           | run /sys/kernel/notes
1 | /dev/loop7           | run /dev/loop7
1 | in use               | run /dev/ram0
1 | File name too long   | run "$long"
2 | create               | run --create 1M --read-only new
2 | create               | run -o create=1M --read-only new
2 | create               | run --create 0 new
2 | create               | run --create 511 new
2 | create               | run --create -1 new
2 | create               | run --create 8E new
2 | create               | run --create '' new
2 | create               | run --create 1M null:1M
2 | create               | run --create 1M memory:1M
1 | exists               | run --create 1M exists
1 | exists               | run --create 1M directory
1 | exists               | run --create 1M fifo
1 | directory/none          | run --create 1M directory/none/new
1 | new                  | run --create 1023 --block-size 2048 new
# the other verbs
2 | unknown option '--frob' | list --frob
2 | everything           | list everything
2 | json                 | list --json=maybe
2 | unknown option '-o'  | list -o x=1
2 | unknown option '--frob' | features --frob
2 | please               | features please
2 | unknown option '--frob' | backends --frob
2 | null                 | backends null
2 | expected one export  | remove
2 | expected one export  | remove --force
2 | expected one export  | remove 5 6
2 | unknown option '--frob' | remove --frob 5
2 | not a ublk device    | remove ''
2 | not a ublk device    | remove -- -1
2 | not a ublk device    | remove /dev/ram0
2 | not a ublk device    | remove ublkb
2 | not a ublk device    | remove /dev/ublkbx
2 | not a ublk device    | remove /dev/ublkb5p1
2 | not a ublk device    | remove 5x
2 | not a ublk device    | remove 4294967295
2 | not a ublk device    | remove 99999999999999999999
2 | force                | remove --force=maybe 5
1 | device 6             | remove 6
1 | device 6             | remove /dev/ublkb6
1 | device 6             | remove --force ublkc6
1 | device 4294967294    | remove 4294967294
TABLE
((nr >= 100)) || fail "only $nr cases"
expect "$before" "$(snapshot)" "what is in the directory"
[[ ! -e new ]] || fail "a file 'new' is left"
cmp <(head -c 1M /dev/zero) file || fail "a file that was refused was written to"
# The one that was there all the time is none the worse.
dd if=/dev/ublkb5 of=/dev/null bs=1M count=1 iflag=direct status=none
