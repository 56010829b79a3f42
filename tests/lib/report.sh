# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# How every part of the tests reports: one line a test (PASS, FAIL or SKIP),
# the output of what failed, and at the end "N passed, N failed, N skipped".
# Output of what passed stays in $report_logs.

report_logs=${report_logs:-${TMPDIR:-/tmp}}
report_passed=0
report_failed=0
report_skipped=0

report_pass() { # NAME [DETAIL]
	report_passed=$((report_passed + 1))
	echo "PASS $1${2:+ ($2)}"
}

report_skip() { # NAME REASON
	report_skipped=$((report_skipped + 1))
	echo "SKIP $1: $2"
}

report_fail() { # NAME REASON [LOG]
	report_failed=$((report_failed + 1))
	echo "FAIL $1: $2"
	if [[ -n ${3:-} ]]; then
		sed 's/^/  | /' "$3"
	fi
}

# Runs a command within a bound of time as one test. Exit status 77 means that
# a prerequisite is missing; the last line of output is then the reason.
report_run() { # NAME SECONDS COMMAND...
	local name=$1 bound=$2 log=$report_logs/${1//\//-}.log status=0
	shift 2
	mkdir -p "$report_logs"
	timeout -k 20 "$bound" "$@" >"$log" 2>&1 </dev/null || status=$?
	case $status in
	0) report_pass "$name" ;;
	77) report_skip "$name" "$(tail -n 1 "$log")" ;;
	124 | 137) report_fail "$name" "not done after $bound seconds" "$log" ;;
	*) report_fail "$name" "exit status $status" "$log" ;;
	esac
	return "$status"
}

report_end() {
	echo "$report_passed passed, $report_failed failed, $report_skipped skipped"
	((report_failed == 0))
}

# report_merge FILE: take over the lines and the totals of another report. Status
# 1: it has no totals.
report_merge() {
	local line ended=1
	while IFS= read -r line; do
		if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
			report_passed=$((report_passed + BASH_REMATCH[1]))
			report_failed=$((report_failed + BASH_REMATCH[2]))
			report_skipped=$((report_skipped + BASH_REMATCH[3]))
			ended=0
		else
			printf '%s\n' "$line"
		fi
	done <"$1"
	return "$ended"
}
