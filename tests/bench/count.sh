# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# count.sh: instructions per I/O, of a machine under -icount shift=0. Sourced by
# guest.sh.
#
#   count REPEATS <PLAN     lines: COMPETITOR JOB BS SHORT LONG FIO...
#
# It prints lines:
#   count COMPETITOR JOB SHORT COST LONG COST

# busy: nanoseconds in which the one processor ran anything but its idle loop. Under
# -icount shift=0 that is the number of instructions; time alone is not, the clock
# leaps over idle time.
busy() {
	local cpu rest
	while read -r cpu rest; do
		[[ $cpu == cpu0 ]] || continue
		# shellcheck disable=SC2086 # words are meant
		set -- $rest
		BUSY=$7
		return
	done </proc/schedstat
}

# one_count IOS BS FIO...: what a run of fio with so many I/Os costs. Sets COST.
one_count() {
	local ios=$1 bs=$2 before
	shift 2
	busy
	before=$BUSY
	fio --name=bench --size="$SIZE" --io_size=$((ios * bs)) --bs="$bs" \
		--output-format=json --output=fio.json "$@" "${TARGET[@]}" || fail "fio failed"
	busy
	COST=$((BUSY - before))
	grep -Eq "\"total_ios\" : $ios\b" fio.json || fail "fio did not do $ios I/Os"
}

count() {
	local repeats=$1 name job bs short long words i cost
	while read -r name job bs short long words; do
		competitor "$name" --queues 1
		# Not counted. The first fio of a boot costs 100 to 120 million instructions
		# more than the next one: as much as 7,000 I/Os. A server's first use of its
		# buffers is in this run, too.
		# shellcheck disable=SC2086 # words are meant
		one_count "$short" "$bs" $words
		for ((i = 0; i < repeats; i++)); do
			# shellcheck disable=SC2086
			one_count "$short" "$bs" $words
			cost=$COST
			# shellcheck disable=SC2086
			one_count "$long" "$bs" $words
			echo "count $name $job $short $cost $long $COST"
		done
	done
}
