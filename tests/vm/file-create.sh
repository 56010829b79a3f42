#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# --create makes a sparse file of just that size, and touches nothing that exists;
# where no device comes of it, no file is left.
. /lab/lib.sh disks

scratch_fs 64M
image=$SCRATCH/image
ublk_start disk --create 1G "$image"
expect $((1 << 30)) "$(stat -c %s "$image")" "the file's size"
expect $((1 << 21)) "$(sysfs_of "$DEV" size)" "the device's size"
expect 600 "$(stat -c %a "$image")" "the file's mode"
(($(stat -c %b "$image") <= 16)) || fail "the file has $(stat -c %b "$image") blocks"
dd if=/lab/lib.sh of="$DEV" bs=4k count=1 conv=sync oflag=direct status=none
ublk_stop disk

# It stays, and is not made again.
before=$(stat -c '%Y %s %b %i' "$image")
for option in --create=1G --create=2G '-ocreate=1M'; do
	refuses 1 'exists, and the option create' run "$option" "$image"
done
expect "$before" "$(stat -c '%Y %s %b %i' "$image")" "a file that exists"
cmp -n 4096 "$image" /lab/lib.sh || fail "a file that exists was touched"

ln -s nowhere "$SCRATCH/link"
refuses 1 link run --create 1M "$SCRATCH/link"
[[ ! -e $SCRATCH/nowhere ]] || fail "made through a link"
refuses 1 nodirectory run --create 1M "$SCRATCH/nodirectory/image"

# What fails after the file was made takes it back.
ublk_start taken --id 9 null:1M
refuses 1 9 run --id 9 --create 1M "$SCRATCH/new"
refuses 1 new run --create 7E "$SCRATCH/new"
[[ ! -e $SCRATCH/new ]] || fail "a file is left of a device that never was"
