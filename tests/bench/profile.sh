# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# profile.sh: runs fio with few and with many I/Os, has the emulator's plugin write its counts
# around each run, and prints what tells whose an address is. Sourced by guest.sh.
#
#   profile REPEATS <PLAN    lines as count.sh reads them
#
# It prints lines; addresses are in hexadecimal:
#   symbol ADDRESS NAME                     of the kernel
#   map COMPETITOR OF START END OFFSET FILE    an executable mapping of a process;
#                                              OF: ours (kublk its own), nbdkit, fio
#   profile COMPETITOR JOB REPEATS SHORT LONG COST    after a mark, and as often as repeated a
#                                           short run, a mark, a long run, a mark; COST: the sum
#                                           of the differences by the guest's clock

# shellcheck source=count.sh
. "${0%/*}/count.sh"

# layout MIB: the limit of the stack of what is started from now on. Addresses are not random
# here, so a library would lie at the same address in several processes. But the kernel puts
# libraries below the room for the stack: with limits of their own, processes share no address but
# those of their programs.
layout() { ulimit -Ss $(($1 << 10)); }

# maps COMPETITOR OF FILE: FILE is as /proc/PID/maps.
maps() {
	sed -En "s/^([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) [^ ]+ [0-9]+ */map $1 $2 \1 \2 \3 /p" "$3"
}

# our_pid COMPETITOR: the process that serves it; nothing where the kernel does.
our_pid() {
	case $1 in
	worker-*) worker_of "$1" ;;
	kublk-*) kublk_pid "$1" ;;
	null | memory | file-* | ublkd@*) ublk_pid "${1//[-@]/_}" ;;
	esac
}

profile() {
	local repeats=$1 name job bs short long words cost pid i
	awk '$2 ~ /^[tTwW]$/ { print "symbol", $1, $3 }' /proc/kallsyms
	while read -r name job bs short long words; do
		if [[ $name == *@* ]]; then
			layout 256
			nbd_server "${name#*@}"
			maps "$name" nbdkit "/proc/$(server_pid "${name#*@}")/maps"
		fi
		layout 512
		competitor "$name" --queues 1
		pid=$(our_pid "$name")
		[[ -z $pid ]] || maps "$name" ours "/proc/$pid/maps"
		layout 1024
		# The first run after a start costs more, and is not counted. fio puts into
		# bench.prerun.txt what the command prints, of which it is the parent.
		# shellcheck disable=SC2086,SC2016 # words are meant; PPID is for fio's shell
		one_count "$short" "$bs" $words --exec_prerun='cat /proc/$PPID/maps' >fio.out
		maps "$name" fio bench.prerun.txt
		mark
		cost=0
		for ((i = 0; i < repeats; i++)); do
			# shellcheck disable=SC2086
			one_count "$short" "$bs" $words
			mark
			cost=$((cost - COST))
			# shellcheck disable=SC2086
			one_count "$long" "$bs" $words
			mark
			cost=$((cost + COST))
		done
		echo "profile $name $job $repeats $short $long $cost"
	done
}
