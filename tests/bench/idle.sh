# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# idle.sh: what a device costs that nobody uses: memory, and processor time of all
# threads of its server. Sourced by guest.sh.
#
#   idle SECONDS NAME...     NAME: null, memory, file
#
# It prints lines:
#   idle NAME RSS_KIB PSS_KIB CPU_NS SECONDS

# kib_of PID FILE WORD: the figure in the line of that word, or 0.
kib_of() { awk -v word="$3:" '$1 == word { n = $2 } END { print n + 0 }' "/proc/$1/$2"; }

idle() {
	local seconds=$1 name uri pid
	local -A before
	shift
	for name; do
		uri=$name:$SIZE
		if [[ $name == file ]]; then
			file idle
			uri=file:$FILE
		fi
		ublk_start "$name" "$uri" --queues 4 --depth 128
	done
	sleep 2
	for name; do
		cpu_of "$(ublk_pid "$name")"
		before[$name]=$CPU
	done
	sleep "$seconds"
	for name; do
		pid=$(ublk_pid "$name")
		cpu_of "$pid"
		echo "idle $name $(kib_of "$pid" status VmRSS) $(kib_of "$pid" smaps_rollup Pss)" \
			"$((CPU - before[$name])) $seconds"
	done
}
