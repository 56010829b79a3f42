# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# orderly.sh: that there is neither more nor less than ublkd says there is.
#
#   . /lab/lib.sh ublkd orderly

# names: of all exports, one a line. What was listed is in the file listed.
names() {
	timeout -k 1 30 ublkctl list --json >listed || return 1
	jq -r '.[] | .name' listed | sort
}

# nr_live: how many are live.
nr_live() {
	timeout -k 1 30 ublkctl list --json >listed || return 1
	jq '[.[] | select(.state == "live")] | length' listed
}

# disorder: what is not so, one a line; nothing where all is in order. Devices,
# workers, records, links and sockets are those of the exports that are listed, each
# live or suspended. Leaves "NAME STATE PID DEVICE" of each in the file exports. It is
# asked often, so it starts next to no process.
disorder() {
	local name state pid device reason
	local names=() disks=() serving=() processes=() found
	timeout -k 1 30 ublkctl list --json >listed || { echo "ublkctl list does not answer"; return; }
	jq -r '.[] | "\(.name) \(.state) \(.pid) \(.device) \(.reason)"' listed >exports
	while read -r name state pid device reason; do
		names+=("$name")
		disks+=("${device#/dev/}")
		# Of those that are suspended, the ones that hold memory have one.
		[[ $pid == null ]] || { serving+=("$name") processes+=("$pid"); }
		case $state in
		live | suspended) ;;
		*) echo "$name $state $pid $device $reason" ;;
		esac
		[[ -L /dev/ublk/$name && /dev/ublk/$name -ef $device ]] || echo "/dev/ublk/$name is not $device"
	done <exports
	find_files /run/ublkd/exports/*
	same records names "${found[@]%.json}"
	find_files /run/ublkd/workers/*
	same sockets serving "${found[@]%.sock}"
	find_workers
	same workers processes "${found[@]}"
	find_files /dev/ublk/*
	same links names "${found[@]}"
	find_files /run/ublkd/names/*
	same names disks "${found[@]}"
	find_files /dev/ublkb*[0-9]
	same disks disks "${found[@]}"
	find_files /dev/ublkc*
	same devices disks "${found[@]/#ublkc/ublkb}"
}

# find_files PATH...: sets found to the names of those that are there and no directory.
find_files() {
	local path
	found=()
	for path; do
		[[ ! -e $path && ! -L $path || -d $path && ! -L $path ]] || found+=("${path##*/}")
	done
}

# find_workers: sets found to their processes, those that have ended and are not yet
# buried aside.
find_workers() {
	local file comm state
	found=()
	for file in /proc/[0-9]*; do
		{ read -r _ comm state _ <"$file/stat"; } 2>/dev/null || continue
		[[ $comm != '(ublkd-worker' && $comm != '(ublkd-worker)' || $state == Z ]] || found+=("${file#/proc/}")
	done
}

# workers: their processes, one a line.
workers() {
	local found
	find_workers
	((${#found[@]} == 0)) || printf '%s\n' "${found[@]}"
}

# same WHAT ARRAY WORD...: the words are those of the array, in any order.
same() {
	local -n wanted=$2
	local -A count=()
	local what=$1 word
	shift 2
	for word in "${wanted[@]}"; do count[$word]=$((${count[$word]:-0} + 1)); done
	for word; do count[$word]=$((${count[$word]:-0} - 1)); done
	for word in "${!count[@]}"; do
		[[ ${count[$word]} == 0 ]] || { echo "$what: there are '$*', should be '${wanted[*]}'"; return; }
	done
}

is_orderly() { disorder >missed; [[ ! -s missed ]]; }

# orderly WORDS [SECONDS]: fail unless all is in order soon.
orderly() {
	retry "${2:-20}" is_orderly || fail "$1: $(cat missed)"
}
