#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guest.sh: what tests/bench/run has a guest do. It reads a plan and measures
# one line of it after the other.
#
#   guest.sh count SIZE REPEATS <PLAN     lines: COMPETITOR JOB BS SHORT LONG FIO...
#
# SIZE is of every device and file. Each of them is made at its first use, filled,
# and stays. Results on stdout, one a line:
#   fact NAME WORDS
#   count COMPETITOR JOB SHORT NS LONG NS

# shellcheck source=../vm/lib.sh
. /lab/lib.sh

# --- What is measured ------------------------------------------------------------

# fill PATH: so that reads find data and not holes.
fill() { dd if=/dev/zero of="$1" bs=1M count=$((size >> 20)) oflag=direct status=none; }

# file NAME: a filled file on ext4 on a RAM disk. Sets FILE.
file() {
	FILE=$PWD/files/$1
	if [[ ! -d files ]]; then
		mkdir files
		# All is written now, or the kernel would do it behind the measurement.
		mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 /dev/ram0
		mount /dev/ram0 files
		defer "umount '$PWD/files'"
	fi
	[[ -e $FILE ]] || fill "$FILE"
}

# competitor NAME QUEUES: make it if it is not there yet. Sets TARGET, what fio opens.
declare -A targets=()
competitor() {
	local name=$1 queues=$2 id=${1//-/_}
	TARGET=${targets[$name]:-}
	[[ -z $TARGET ]] || return 0
	DEV=
	case $name in
	null)
		ublk_start "$id" "null:$size" --queues "$queues" ;;
	memory)
		ublk_start "$id" "memory:$size" --queues "$queues"
		fill "$DEV" ;;
	file-zero-copy | file-user-copy | file-copy)
		file "$name"
		ublk_start "$id" "file:$FILE" --queues "$queues" --io-path "${name#file-}" ;;
	brd)
		DEV=/dev/ram1
		fill $DEV ;;
	loop)
		file loop
		DEV=$(losetup --show --find --direct-io=on "$FILE")
		defer "losetup -d $DEV"
		expect 1 "$(sysfs_of "$DEV" loop/dio)" "direct I/O of the loop device" ;;
	raw)
		file raw
		DEV=$FILE ;;
	*)
		fail "no such competitor: $name" ;;
	esac
	sync
	TARGET=$DEV
	targets[$name]=$DEV
}

# --- Instructions ----------------------------------------------------------------

# busy: nanoseconds in which the one processor ran anything but its idle loop.
# Under -icount shift=0 that is the number of instructions; time alone is not, the
# clock leaps over idle time.
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

# one_count IOS FIO...: what a run of fio with so many I/Os costs. Sets COST.
one_count() {
	local ios=$1 bs=$2 before
	shift 2
	busy
	before=$BUSY
	fio --name=bench --filename="$TARGET" --size="$size" --io_size=$((ios * bs)) \
		--bs="$bs" --output-format=json --output=fio.json "$@" || fail "fio failed"
	busy
	COST=$((BUSY - before))
	grep -Eq "\"total_ios\" : $ios\b" fio.json || fail "fio did not do $ios I/Os"
}

count() {
	local repeats=$1 name job bs short long words i cost
	# The first run of all costs more, fio comes into memory.
	TARGET=/dev/ram1 one_count 10 4096 --ioengine=io_uring
	while read -r name job bs short long words; do
		competitor "$name" 1
		for ((i = 0; i < repeats; i++)); do
			# shellcheck disable=SC2086 # words are meant
			one_count "$short" "$bs" $words
			cost=$COST
			# shellcheck disable=SC2086
			one_count "$long" "$bs" $words
			echo "count $name $job $short $cost $long $COST"
		done
	done
}

# --- All of it ---------------------------------------------------------------------

what=$1
size=$(numfmt --from=iec "$2")
shift 2
echo "fact kernel $(uname -r)"
echo "fact fio $(fio --version)"
# Room for a file of each of five competitors.
ram_disks $((size * 11 / 2))
mkdir -p /run/bench
cd /run/bench || exit
"$what" "$@"
echo end
