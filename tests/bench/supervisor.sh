# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# supervisor.sh: what ublkd takes to make, recover and hand over exports, and what a
# thousand idle ones cost. Sourced by guest.sh.
#
#   supervisor ROUNDS MANY
#
# It prints lines; a figure is an amount, or the median of those of all rounds:
#   figure NAME UNIT AMOUNT...

now_us() { echo "${EPOCHREALTIME/./}"; }

# took COMMAND...: microseconds that it takes. Sets TOOK.
took() {
	local began
	began=$(now_us)
	"$@" || fail "$*: status $?"
	TOOK=$(($(now_us) - began))
}

export_quietly() { ublkctl export "$@" >exported; }
remove_all() {
	local one
	for one; do ublkctl remove "$one" || fail "$one cannot be removed"; done
}

# figures NAME UNIT COMMAND...: COMMAND sets TOOK, once a round.
figures() {
	local name=$1 unit=$2 i amounts=()
	shift 2
	for ((i = 0; i < ROUNDS; i++)); do
		"$@"
		amounts+=("$TOOK")
	done
	echo "figure $name $unit ${amounts[*]}"
}

export_once() {
	took export_quietly "one=$1"
	ublkctl remove one
}

run_once() {
	local began
	began=$(now_us)
	ublk_start one "$1"
	TOOK=$(($(now_us) - began))
	ublk_stop one
}

one_after_other() {
	local i names=()
	for ((i = 0; i < 100; i++)); do names+=("e$i"); done
	took each_of "${names[@]}"
	remove_all "${names[@]}"
}
each_of() {
	local one
	for one; do export_quietly "$one=null:1G" --queues 1; done
}

at_once() {
	local i names=()
	for ((i = 0; i < 100; i++)); do names+=("e$i"); done
	took all_of "${names[@]}"
	remove_all "${names[@]}"
}
all_of() {
	local jobs=() job one
	for one; do export_quietly "$one=null:1G" --queues 1 & jobs+=($!); done
	for job in "${jobs[@]}"; do wait "$job"; done
}

# longest_wait COMMAND...: the longest that any request of 64 in flight waits while
# the command is carried out. Sets TOOK.
longest_wait() {
	local load
	fio --name=wait --filename=/dev/ublk/busy --ioengine=libaio --direct=1 --rw=randrw --bs=4k \
		--iodepth=64 --time_based --runtime=6 --output-format=json --output=wait.json &
	load=$!
	sleep 2
	"$@"
	wait "$load" || fail "fio: status $?"
	TOOK=$(($(jq '[.jobs[0].read.clat_ns.max, .jobs[0].write.clat_ns.max] | max' wait.json) / 1000))
	expect 0 "$(jq '.jobs[0].error' wait.json)" "fio's errors"
}
kill_worker() { kill -KILL "$(worker_of busy)"; }
upgrade_it() { ublkctl upgrade busy; }
nothing() { :; }

waits() {
	export_quietly "busy=$1"
	figures "wait-$2-undisturbed" us longest_wait nothing
	figures "wait-$2-killed" us longest_wait kill_worker
	figures "wait-$2-upgrade" us longest_wait upgrade_it
	ublkctl remove busy
}

sum_of() { # FIELD PID...
	local field=$1 pid
	shift
	for pid; do cat "/proc/$pid/smaps_rollup"; done |
		awk -v field="$field:" '$1 == field { n += $2 } END { print n }'
}

switches() { # PID...
	local pid
	for pid; do cat "/proc/$pid"/task/*/status; done |
		awk '/^voluntary/ { n += $2 } END { print n + 0 }'
}

many_are_live() {
	(($(ublkctl list --json | jq '[.[] | select(.state == "live")] | length') == many))
}

idle_ones() {
	local many=$1 i before began pids count
	echo "$many" >/sys/module/ublk_drv/parameters/ublks_max 2>/dev/null || true
	for ((i = 0; i < many; i++)); do
		printf 'uri = %s\n' "$( ((i % 2)) && echo memory:64M || echo null:1G)" >"config/exports.d/i$i.conf"
	done
	ublkd_stop
	before=$(kib_of_machine)
	began=$(now_us)
	ublkd --config "$PWD/config" 2>>ublkd.err &
	UBLKD=$!
	retry 1000 many_are_live || fail "not $many are live"
	echo "figure idle-start us $(($(now_us) - began))"
	sleep 10
	mapfile -t pids < <(ublkctl list --json | jq '.[] | .pid')
	echo "figure idle-pss KiB $((($(sum_of Pss "${pids[@]}" "$UBLKD")) / many))"
	echo "figure idle-rss KiB $((($(sum_of Rss "${pids[@]}" "$UBLKD")) / many))"
	echo "figure idle-ublkd-rss KiB $(sum_of Rss "$UBLKD")"
	echo "figure idle-machine KiB $(((before - $(kib_of_machine)) / many))"
	count=$(switches "${pids[@]}")
	sleep 10
	echo "figure idle-wakeups-of-workers-in-10s times $(($(switches "${pids[@]}") - count))"
	count=$(switches "$UBLKD")
	sleep 10
	echo "figure idle-wakeups-of-ublkd-in-10s times $(($(switches "$UBLKD") - count))"
	figures idle-list us took ublkctl list >listed
	grep figure listed
	began=$(now_us)
	ublkd_kill
	ublkd_start
	many_are_live || fail "not all are adopted"
	echo "figure idle-adopted us $(($(now_us) - began))"
	ublkd_stop_seconds=900 took ublkd_stop
	echo "figure idle-removed us $TOOK"
}
kib_of_machine() { awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo; }

supervisor() {
	ROUNDS=$1
	# shellcheck source=../lab/guest/ublkd.sh
	. /lab/ublkd.sh
	# ublkd has some five descriptors open for each export, and as many as it may have.
	ulimit -Hn 65536 && ulimit -n 65536
	ublkd_start
	truncate -s "$SIZE" image
	figures export-null us export_once null:1G
	figures run-null us run_once null:1G
	figures export-memory us export_once memory:64M
	figures export-file us export_once "$PWD/image"
	figures run-file us run_once "$PWD/image"
	ROUNDS=1 figures hundred-one-after-other us one_after_other
	ROUNDS=1 figures hundred-at-once us at_once
	waits null:1G null
	waits "$PWD/image" file
	waits memory:64M memory
	idle_ones "$2"
}
