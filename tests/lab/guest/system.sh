# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# system.sh: for tests in the guest with systemd.
#
#   . /lab/lib.sh system

# reboot_machine: end this boot in order, and want another. The test is called again,
# with LAB_BOOT one higher (it has "# vm: boots=N" with N high enough). Does not return.
reboot_machine() {
	echo "again $LAB_TEST" >/run/lab/last
	systemctl --no-block reboot
	exec sleep infinity
}

# cut_machine: the same as if power failed. What is not on the disk is lost. It is said
# on the console that this is meant: the port is in use.
cut_machine() {
	echo '<2>lab: cut' >/dev/kmsg
	sleep 1
	echo b >/proc/sysrq-trigger
	sleep infinity
}

# service_start: ublkd as an administrator starts it after it was installed. It and its
# exports end with the test.
service_start() {
	systemctl --quiet enable --now ublkd.socket ublkd.service ||
		fail "$(systemctl status --no-pager --full ublkd.socket ublkd.service)"
	defer service_end
}

service_end() {
	local name
	ublkctl list --json | jq -r '.[].name' | while read -r name; do
		ublkctl remove --force "$name"
	done
	systemctl --quiet disable --now ublkd.service ublkd.socket
	rm -rf /etc/ublkd/exports.d/*
}

# service_pid: ublkd's process.
service_pid() { systemctl show --property=MainPID --value ublkd.service; }

# service_is_back OLD: for retry: it is there again, another process than OLD.
service_is_back() {
	local pid
	pid=$(service_pid)
	[[ $pid != 0 && $pid != "$1" ]] && systemctl --quiet is-active ublkd.service
}

# export_says NAME WHAT: of what the method List says of it, such as state or pid.
export_says() {
	ublkctl list --json | jq -r --arg name "$1" --arg what "$2" \
		'.[] | select(.name == $name) | .[$what]'
}

# export_is NAME STATE: for retry.
export_is() { [[ $(export_says "$1" state) == "$2" ]]; }

# export_lives NAME: until it is live.
export_lives() { retry 60 export_is "$1" live || fail "$(ublkctl show "$1")"; }
