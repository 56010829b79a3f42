# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# disks.sh: what several tests do with a device.
#
#   . /lab/lib.sh disks

# has_zero_copy: whether this kernel's driver has what zero copy takes.
has_zero_copy() {
	ublkctl features --json |
		jq -e '.features | any(.name == "auto-buffer" and .available)' >/dev/null
}

# io_paths: the I/O paths that there are here, one a line.
io_paths() {
	printf '%s\n' copy user-copy
	! has_zero_copy || echo zero-copy
}

# serve PATH ARGUMENTS...: ublk_start, as "disk", and by this I/O path.
serve() {
	: >disk.out
	ublk_start disk --io-path "$@"
	[[ $1 == auto ]] || grep -q ": I/O path $1: " disk.err || fail "the I/O path is not $1"
}

# refuses STATUS WORDS ARGUMENTS...: ublkctl with these arguments must end with this
# status, say one line with these words in it on stderr and nothing on stdout.
refuses() {
	local wanted=$1 words=$2
	shift 2
	program_refuses "$wanted" "$words" ublkctl "$@"
}

# program_refuses STATUS WORDS PROGRAM ARGUMENTS...: the same of any program.
program_refuses() {
	local wanted=$1 words=$2 status=0 lines
	shift 2
	timeout -k 5 40 "$@" >refused.out 2>refused.err || status=$?
	mapfile lines <refused.err
	expect "$wanted" "$status" "exit status of '$*' (${lines[*]})"
	[[ ! -s refused.out ]] || fail "'$*' printed $(cat refused.out)"
	expect 1 "${#lines[@]}" "lines of '$*' (${lines[*]})"
	[[ ${lines[0]} == *$'\n' ]] || fail "'$*' does not end its line: ${lines[0]}"
	[[ ${lines[0]} == *"$words"* ]] || fail "'$*' does not say '$words': ${lines[0]}"
}

# fails_with WORDS COMMAND...: it must fail, and say these words on stderr.
fails_with() {
	local words=$1
	shift
	if "$@" 2>error.txt; then fail "should have failed: $*"; fi
	grep -qF -e "$words" error.txt || fail "$*: not '$words' but '$(cat error.txt)'"
}

# fails COMMAND...: it must fail, whatever it says.
fails() { fails_with '' "$@"; }

# tree_sum DIRECTORY: all that is in it: names, kinds, modes, links, content.
tree_sum() {
	(
		cd "$1" || exit
		find . -mindepth 1 ! -name lost+found -exec stat -c '%n %F %a %N' {} + | sort
		find . -type f -print0 | sort -z | xargs -0 sha256sum
	)
}

# file_system_holds DEVICE: a file system made there keeps a tree of files
# through unmount, check and mount.
file_system_holds() {
	local mnt=$PWD/mnt
	mkdir -p "$mnt"
	mkfs.ext4 -q "$1"
	mount "$1" "$mnt"
	cp -a /usr/bin /lab "$mnt"
	tree_sum "$mnt" >tree.before
	umount "$mnt"
	e2fsck -fn "$1" >fsck.out 2>&1 || fail "e2fsck: $(cat fsck.out)"
	mount "$1" "$mnt"
	tree_sum "$mnt" >tree.after
	cmp tree.before tree.after || fail "the tree is not what was copied"
	# Not only the same twice, but what it was copied from.
	cmp <(tree_sum /usr/bin) <(tree_sum "$mnt/bin") ||
		fail "the tree is not what it was copied from"
	umount "$mnt"
}

# fio_verify DEVICE [FIO-OPTION...]: several jobs write checksummed blocks side by
# side on both processors, of several sizes, and read them back. The device must
# have 64 MiB.
fio_verify() {
	local dev=$1
	shift
	fio --filename="$dev" --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c \
		--verify_fatal=1 --minimal --size=8M --cpus_allowed=0-1 --cpus_allowed_policy=split \
		--name=small --rw=randwrite --bs=4k --offset=0 --size=3M \
		--name=odd --rw=randwrite --bs=12k --offset=16M --size=3M \
		--name=large --rw=randwrite --bs=256k --offset=32M \
		--name=sequential --rw=write --bs=64k --offset=56M "$@" >fio.out 2>&1 ||
		fail "fio: $(grep -v '^3;' fio.out)"
}

# counted [NAME]: of the device that was started last, one of its server's counters,
# or all of them.
counted() { read-counters "$PID" "$@"; }

# random_file FILE SIZE: of random content.
random_file() { head -c "$(numfmt --from=iec "$2")" /dev/urandom >"$1"; }

# fill DEVICE FILE: the file's content onto the device's start, past the page cache.
fill() { dd if="$2" of="$1" bs=1M oflag=direct status=none; }

# holds DEVICE FILE [WORDS]: fail unless the device begins with what the file holds.
holds() {
	dd if="$1" bs=1M iflag=direct,count_bytes count="$(stat -c %s "$2")" status=none |
		cmp - "$2" || fail "${3:-$1: not what it should hold}"
}

# zero_in FILE OFFSET LENGTH: zeroes in a file that says what a device should hold.
zero_in() {
	dd if=/dev/zero of="$1" bs=1M iflag=count_bytes oflag=seek_bytes seek="$2" count="$3" \
		conv=notrunc status=none
}

# stat_field DEVICE N: the N-th number of the device's I/O statistics.
stat_field() { awk -v n="$2" '{ print $n }' "$(sysfs_of "$1")/stat"; }

# flushes DEVICE: flush requests that the block device has completed.
flushes() { stat_field "$1" 16; }

# asked ARGUMENTS...: ublk_start with these; what follows is about this device.
asked() {
	asked_for="$*"
	: >disk.out
	ublk_start disk "$@"
}

# shows ATTRIBUTE VALUE [ATTRIBUTE VALUE]...: of the device of "asked", in sysfs.
shows() {
	while (($#)); do
		expect "$2" "$(sysfs_of "$DEV" "$1")" "$asked_for: $1"
		shift 2
	done
}

# write_blocks FIO-OPTION...: 20 blocks, one after the other.
write_blocks() {
	fio --name=w --filename="$DEV" --direct=1 --ioengine=libaio --rw=write --bs=4k \
		--size=80k --minimal "$@" >fio.out 2>&1 || fail "fio: $(cat fio.out)"
}

# bytes_used FILE: its blocks, those that the file system takes to find them among them.
bytes_used() { sync "$1"; echo $(($(stat -c '%b * %B' "$1"))); }
