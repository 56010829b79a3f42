#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=6.12
#
# No room is left for the state of exports: what would change it is refused and changes
# nothing, and an export whose worker dies is served again all the same.
. /lab/lib.sh disks ublkd orderly

mkdir -p /run/ublkd
mount -t tmpfs -o size=1M,mode=755 tmpfs /run/ublkd
defer "umount /run/ublkd"
ublkd_start
truncate -s 64M image
export_start file "$PWD/image"
export_start memory memory:64M
load_start_writer file
load_start_writer memory
load_goes_on file
load_goes_on memory

echo "at $SECONDS s: full"
dd if=/dev/zero of=/run/ublkd/fill bs=4k status=none 2>/dev/null || true
file=$(worker_of file)
fails_with 'free space in /run' timeout -k 5 60 ublkctl export other=memory:8M
fails_with 'free space in /run' timeout -k 5 60 ublkctl upgrade file
fails_with 'free space in /run' timeout -k 5 60 ublkctl suspend memory
expect "live $file" "$(about file '"\(.export.state) \(.export.pid)"')" "file: state and worker"
expect live "$(state_of memory)" "memory: state"
load_goes_on file
load_goes_on memory

echo "at $SECONDS s: workers die"
worker_kill file
worker_kill memory
load_goes_on file
load_goes_on memory
ublkd_kill
ublkd_start
load_goes_on file
load_goes_on memory
expect live "$(state_of file)" "file: state after a restart"
expect live "$(state_of memory)" "memory: state after a restart"

echo "at $SECONDS s: room again"
rm /run/ublkd/fill
timeout -k 5 60 ublkctl upgrade --all || fail "the upgrade"
orderly "at last"
load_stop file
load_stop memory
ublkd_stop
