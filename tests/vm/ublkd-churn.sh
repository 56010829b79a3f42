#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Exports made and removed over and over, some held open meanwhile: nothing is left,
# neither in ublkd (memory, descriptors) nor in the kernel (slabs).
# vm: own-boot timeout=600 mem=2048 once=none
. /lab/lib.sh disks ublkd orderly

# So many of each of three kinds.
cycles=${CYCLES:-40}

# sample: descriptors, KiB of ublkd, of slabs, of percpu. The kernel's vmap_area is a
# pool that it fills for itself, and empties when it likes.
sample() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 2
	echo "$(find "/proc/$UBLKD/fd" -mindepth 1 | wc -l)" \
		"$(awk '$1 == "RssAnon:" { print $2 }' "/proc/$UBLKD/status")" \
		"$(awk 'NR > 2 && $1 != "vmap_area" { n += $3 * $4 } END { print int(n / 1024) }' /proc/slabinfo)" \
		"$(awk '$1 == "Percpu:" { print $2 }' /proc/meminfo)"
}

method() { printf '{"method":"io.ublkd.%s","parameters":%s}\0' "$1" "$2"; }

# churn NAME COUNT URI OPTIONS: so many cycles over one connection.
churn() {
	local i
	for ((i = 0; i < $2; i++)); do
		method Export "{\"name\":\"$1\",\"uri\":\"$3\",\"options\":$4}"
		method Remove "{\"name\":\"$1\"}"
	done | timeout -k 1 600 /lab/bin/unix-talk --wait 60000 --replies $(($2 * 2)) /run/ublkd/io.ublkd |
		tr '\0' '\n' >"$1.replies"
	expect $(($2 * 2)) "$(wc -l <"$1.replies")" "$1: replies"
	if grep '"error"' "$1.replies" >"$1.errors"; then fail "$1: $(head -n 3 "$1.errors")"; fi
}

# churn_open NAME COUNT URI: it is open when its removal is asked for; every other time
# it is by force.
churn_open() {
	local i
	for ((i = 0; i < $2; i++)); do
		timeout -k 5 60 ublkctl export "$1=$3" >"$1.out" 2>&1 || fail "$1: cycle $i: $(cat "$1.out")"
		exec 9<"/dev/ublk/$1"
		if ((i % 2)); then
			fails_with 'is in use' timeout -k 5 60 ublkctl remove "$1"
			exec 9<&-
			timeout -k 5 60 ublkctl remove "$1" || fail "$1: cycle $i"
		else
			timeout -k 5 60 ublkctl remove --force "$1" || fail "$1: cycle $i"
			exec 9<&-
		fi
	done
}

# round COUNT: of each kind, side by side.
round() {
	local jobs=() job
	(churn null "$1" null:1G '{"queues":"1"}') & jobs+=($!)
	(churn memory "$1" memory:8M '{"depth":"16"}') & jobs+=($!)
	(churn file "$1" "$PWD/image" '{"depth":"16"}') & jobs+=($!)
	(churn_open open $(($1 / 8)) null:1G) & jobs+=($!)
	for job in "${jobs[@]}"; do wait "$job" || fail "a cycle failed"; done
}

# Caches of the kernel's grow by themselves; what leaks grows in each of three rounds.
truncate -s 8M image
ublkd_start
round "$cycles"
leak=yes
for i in 1 2 3; do
	read -r files rss slab percpu < <(sample)
	began=$SECONDS
	round "$cycles"
	read -r files_now rss_now slab_now percpu_now < <(sample)
	echo "$((cycles * 3 + cycles / 8)) cycles in $((SECONDS - began)) s: descriptors $files to $files_now, ublkd" \
		"$rss to $rss_now KiB, slabs $slab to $slab_now KiB, percpu $percpu to $percpu_now KiB"
	expect "$files" "$files_now" "ublkd's descriptors"
	# A KiB a cycle would be one small object of each.
	((rss_now - rss < cycles * 3 && slab_now - slab < cycles * 3 && percpu_now - percpu < cycles * 3)) || continue
	leak=
	break
done
[[ -z $leak ]] || { head -100 /proc/slabinfo; fail "something grows with each round"; }
orderly "after all"
ublkd_stop
