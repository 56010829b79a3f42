#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: once=newest
#
# Without the driver, the right or io_uring, every verb that needs it says so in one
# line, with what to do.
. /lab/lib.sh disks

# all_refuse WORDS [COMMAND...]: run, list, features and remove, by way of COMMAND.
all_refuse() {
	local words=$1 status arguments
	shift
	for arguments in 'run null:1M' 'list' 'features' 'features --json' 'remove 0'; do
		status=0
		# shellcheck disable=SC2086 # several words are meant
		timeout 30 "$@" ublkctl $arguments >out 2>err || status=$?
		expect 1 "$status" "exit status of '$* ublkctl $arguments' ($(cat err))"
		[[ ! -s out ]] || fail "'$* ublkctl $arguments' printed $(cat out)"
		expect 1 "$(wc -l <err)" "lines of '$* ublkctl $arguments' ($(cat err))"
		grep -qF "$words" err || fail "'$* ublkctl $arguments' does not say '$words': $(cat err)"
	done
}

rmmod ublk_drv
defer "modprobe ublk_drv"
all_refuse 'modprobe ublk_drv'
ublkctl backends >/dev/null || fail "'backends' needs no driver"
modprobe ublk_drv

all_refuse 'root' setpriv --reuid nobody --regid nogroup --clear-groups
# Looking needs no capability, serving does.
without=(setpriv --bounding-set -sys_admin --inh-caps -sys_admin)
fails_with CAP_SYS_ADMIN "${without[@]}" ublkctl run null:1M
"${without[@]}" ublkctl features >/dev/null || fail "'features' asks for a capability"

defer "echo 0 >/proc/sys/kernel/io_uring_disabled"
echo 2 >/proc/sys/kernel/io_uring_disabled
all_refuse 'io_uring_disabled'
echo 0 >/proc/sys/kernel/io_uring_disabled
ublk_start disk null:1M
