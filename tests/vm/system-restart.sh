#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie timeout=240 once=6.12
. /lab/lib.sh disks writer system

# Exports go on while ublkd is restarted, replaced and killed, alone, with its workers
# and in turn with them: no error under a writer, and what a memory export holds is held
# by the service manager.
worker=/usr/local/libexec/ublkd-worker
[[ -x $worker ]] || fail "there is no $worker"
service_start
DEV=$(realpath "$(ublkctl export disk=file:/srv/restart.img --create 64M)")
defer rm -f /srv/restart.img
random_file ram.content 8M
RAM=$(realpath "$(ublkctl export ram=memory:64M)")
fill "$RAM" ram.content

# all_well: as before, and the writer goes on.
all_well() {
	export_lives disk
	export_lives ram
	writer_goes_on 100
	holds "$RAM" ram.content "after $1"
}

# exe_of PID: its program; "(deleted)" when that is no longer what is installed.
exe_of() { readlink "/proc/$1/exe"; }

writer_start --ops 1000000 --threads 4 --flush 3 --fua 3
all_well "its start"

disk_worker=$(export_says disk pid)
for i in 1 2 3; do
	old=$(service_pid)
	systemctl restart ublkd.service
	[[ $(service_pid) != "$old" ]] || fail "it is the same process"
	all_well "restart $i"
	expect "$disk_worker" "$(export_says disk pid)" "a worker lives on"
done

# As a package is upgraded.
for program in "$(command -v ublkd)" "$worker"; do
	cp "$program" "$program.new"
	mv "$program.new" "$program"
done
systemctl restart ublkd.service
[[ $(exe_of "$(service_pid)") != *deleted* ]] || fail "ublkd is the old program"
[[ $(exe_of "$disk_worker") == *deleted* ]] || fail "the worker is the new program already"
ublkctl upgrade --all
all_well upgrade
for export in disk ram; do
	expect "$worker" "$(exe_of "$(export_says $export pid)")"
done

# killed WHO...: ublkd (by "ublkd") and workers at once.
killed() {
	local who pids=() old
	old=$(service_pid)
	for who; do
		if [[ $who == ublkd ]]; then pids+=("$old"); else pids+=("$(export_says "$who" pid)"); fi
	done
	kill -KILL "${pids[@]}"
	retry 30 lab_gone "${pids[0]}"
	[[ " $* " != *' ublkd '* ]] || retry 60 service_is_back "$old" || fail "ublkd is not back"
	all_well "death of $*"
}
killed ublkd
killed disk
killed ram
killed ublkd ram
killed disk ram
killed ublkd disk ram
# A worker dies while ublkd is not there.
pid=$(export_says ram pid)
systemctl stop ublkd.service
kill -KILL "$pid"
systemctl start ublkd.service
all_well "death of ram while ublkd was stopped"

writer_stop
promises_kept "$DEV"
expect running "$(systemctl is-system-running)" "$(systemctl --failed)"
