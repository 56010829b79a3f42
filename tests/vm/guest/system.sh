# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# system.sh: for tests in the guest with systemd. Sourced after lib.sh:
#
#   . /lab/lib.sh
#   . /lab/system.sh

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
