# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# system.sh: the guest with systemd as its init: a small Debian on a disk. Sourced by
# run and shell, after root.sh.
#
# Its root is made by tests/libs-root, of what system.list names, and cached. What it
# shall have of this checkout is built for it, in a root of the same suite that has a
# compiler. The initramfs brings that, the kernel's modules and the lab's part
# (guest/system-init).

# system_disk SUITE: the name of a disk image with the guest's root, to be copied.
system_disk() {
	local here root image
	here=$(dirname "${BASH_SOURCE[0]}")
	root=$("$here/../../libs-root" "$1" "$here/system.list") || return
	image=$root.ext4
	(
		exec 9>"$root.lock"
		flock -w 600 9
		[[ $image -nt $root/made-for-ublkd ]] && exit
		rm -f "$image.new"
		truncate -s 2G "$image.new"
		mke2fs -q -t ext4 -d "$root" "$image.new" && mv "$image.new" "$image"
	) >&2 || return
	echo "$image"
}

# system_build SUITE TREE: build what this checkout has for the suite, as a user does, by
# configure without options; and put what `make install` puts in place into TREE/install,
# what it prints at its end into TREE/lab/next-steps, the lab's helpers into TREE/lab/bin.
system_build() (
	suite=$1 tree=$2
	top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
	# shellcheck source=tests/lib/suite.sh
	. "$top/tests/lib/suite.sh"
	if [[ ! -e $top/configure ]]; then
		echo "lab: no configure in $top (tests/run build makes it)" >&2
		exit 1
	fi
	root=$("$top/tests/libs-root" "$suite") || exit
	# One directory a checkout, so that only what changed is built.
	work=$root/var/tmp/ublkd-$(cksum <<<"$top" | cut -d' ' -f1)
	find "$root/var/tmp" -maxdepth 1 -name 'ublkd-*' -mtime +7 -exec rm -rf {} +
	mkdir -p "$work"
	touch "$work"
	exec 9>"$work/lock"
	flock -w 900 9
	rm -rf "$work/source" "$work/installed"
	mkdir -p "$work/source" "$work/build" "$work/installed"
	copy_sources "$work/source"
	# Programs; what is loaded into one is not for this guest.
	mapfile -t helpers < <(cd "$top" && printf '%s\n' tests/lab/programs/*.c | grep -v '\.preload\.c$')
	# shellcheck disable=SC2016 # its own variables
	in_root "$root" sh -c '
		set -eu
		cd "$1/build"
		shift
		[ Makefile -nt ../source/configure ] || ../source/configure --quiet
		make -s -j"$(nproc)" all "$@"
		make -s install DESTDIR="$(cd ../installed && pwd)"
		make -s install-data-hook >../next-steps
	' build "${work#"$root"}" "${helpers[@]%.c}" >"$work/log" 2>&1 9>&- || {
		cat "$work/log" >&2
		echo "lab: building for $suite failed" >&2
		exit 1
	}
	mkdir -p "$tree/install" "$tree/lab/bin"
	cp -a "$work/installed/." "$tree/install/"
	cp "$work/next-steps" "$tree/lab/"
	for helper in "${helpers[@]%.c}"; do
		cp "$work/build/$helper" "$tree/lab/bin/"
	done
)

# system_archives KERNEL: the cached archives of its initramfs.
system_archives() {
	root_cached busybox "$(declare -f root_make_busybox root_copy)" root_make_busybox
	# shellcheck disable=SC2154 # of root.sh
	root_cached modules "$1 ${root_modules[*]} $(declare -f root_make_modules)" \
		root_make_modules "$1"
}

# For the kernel's command line: to run what lab.do= says, and for a prompt.
# shellcheck disable=SC2034 # for those that source this
system_append='lab.system systemd.show_status=no systemd.wants=lab.service
	systemd.mask=serial-getty@ttyS0.service'
# shellcheck disable=SC2034
system_shell='lab.system systemd.show_status=no'
