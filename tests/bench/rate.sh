# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# rate.sh: I/Os and bytes per second, in rounds. Sourced by guest.sh.
#
#   rate ROUNDS QUEUES RUNTIME_MS <PLAN    lines: JOB COMPETITOR,COMPETITOR... FIO...
#
# A round runs every job; a job runs all its competitors in turn, under one fio (NBD
# clients: one each), and each round begins with another of them. It prints lines:
#   rate ROUND JOB COMPETITOR IOPS KIB_PER_S
# and those of nbd.sh.

# one_rate PREFIX QUEUES RUNTIME_MS NAMES FIO...: one job of one round. PREFIX begins
# what is printed.
one_rate() {
	local prefix=$1 queues=$2 runtime=$3 name names count=0 args=()
	read -ra names <<<"$4"
	shift 4
	for name in "${names[@]}"; do
		competitor "$name" --queues "$queues"
		if [[ $name == *@* ]]; then
			nbd_rate "$name" "$@"
			continue
		fi
		args+=(--name="$name" --stonewall "${TARGET[@]}")
		count=$((count + 1))
	done
	((count == 0)) || fio_rate "$@"
}

# fio_rate FIO...: with one_rate's variables prefix, runtime, count and args.
fio_rate() {
	fio --size="$SIZE" --time_based --runtime="${runtime}ms" --ramp_time=200ms \
		--group_reporting --output-format=terse --terse-version=3 --output=fio.terse \
		"$@" "${args[@]}" || fail "fio failed"
	# Fields of this format: 3 the name, 5 an error; reads 7 KiB/s, 8 I/Os per
	# second; writes 48 and 49.
	awk -F';' -v prefix="$prefix" \
		'$5 == 0 && $8 + $49 > 0 { print "rate", prefix, $3, $8 + $49, $7 + $48 }' \
		fio.terse >rates
	expect "$count" "$(wc -l <rates)" "competitors that fio tells of"
	cat rates
}

rate() {
	local rounds=$1 queues=$2 runtime=$3 plan line job names words round i
	mapfile -t plan
	for ((round = 1; round <= rounds; round++)); do
		for line in "${plan[@]}"; do
			read -r job names words <<<"$line"
			read -ra names <<<"${names//,/ }"
			i=$((round % ${#names[@]}))
			names=("${names[@]:i}" "${names[@]:0:i}")
			# shellcheck disable=SC2086 # words are meant
			one_rate "$round $job" "$queues" "$runtime" "${names[*]}" $words
		done
	done
}
