# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# orderly.sh: that there is neither more nor less than ublkd says there is. Sourced
# after ublkd.sh.

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
# live or suspended. Leaves "NAME STATE PID DEVICE" of each in the file exports.
disorder() {
	local name device
	timeout -k 1 30 ublkctl list --json >listed || { echo "ublkctl list does not answer"; return; }
	jq -r '.[] | "\(.name) \(.state) \(.pid) \(.device) \(.reason)"' listed | sort >exports
	grep -v '^[^ ]* \(live\|suspended\) ' exports || true
	same records "$(cut -d' ' -f1 exports)" "$(files /run/ublkd/exports | sed 's/\.json$//')"
	same sockets "$(sed -n 's/ live .*//p' exports)" "$(files /run/ublkd/workers | sed 's/\.sock$//')"
	same workers "$(sed -n 's/.* live \([0-9]*\) .*/\1/p' exports | sort)" "$(workers | sort)"
	same links "$(cut -d' ' -f1 exports)" "$(files /dev/ublk)"
	same names "$(devices_listed)" "$(files /run/ublkd/names)"
	same disks "$(devices_listed)" "$(files /dev 'ublkb*[0-9]')"
	same devices "$(devices_listed)" "$(files /dev 'ublkc*' | sed 's/c/b/')"
	while read -r name _ _ device _; do
		[[ ../${device#/dev/} == "$(readlink "/dev/ublk/$name")" ]] ||
			echo "/dev/ublk/$name is '$(readlink "/dev/ublk/$name")', not $device"
	done <exports
}

devices_listed() { cut -d' ' -f4 exports | sed 's/^.dev.//' | sort; }

# files FOLDER [PATTERN]: what is in it, but folders, one a line.
files() {
	local path
	for path in "$1"/${2:-*}; do
		[[ ! -e $path && ! -L $path || -d $path && ! -L $path ]] || echo "${path##*/}"
	done | sort
}

same() {
	[[ $2 == "$3" ]] || echo "$1: there are '${3//$'\n'/ }', should be '${2//$'\n'/ }'"
}

# workers: their processes, those that have ended and are not yet buried aside.
workers() {
	local file comm state
	for file in /proc/[0-9]*; do
		{ read -r _ comm state _ <"$file/stat"; } 2>/dev/null || continue
		[[ $comm != '(ublkd-worker' && $comm != '(ublkd-worker)' || $state == Z ]] || echo "${file#/proc/}"
	done
}

is_orderly() { disorder >missed; [[ ! -s missed ]]; }

# orderly WORDS [SECONDS]: fail unless all is in order soon.
orderly() {
	retry "${2:-20}" is_orderly || fail "$1: $(cat missed)"
}
