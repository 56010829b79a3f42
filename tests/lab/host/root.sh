# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# root.sh: the guest's root, as archives that the kernel unpacks one after the
# other (an initramfs may be a concatenation). Sourced by run and shell.
#
#   programs  what the lab brings: busybox, bash, fio, mkfs ...; cached
#   modules   the kernel's modules that the lab loads; cached, one a kernel
#   project   what this checkout brings; packed afresh for each run
#
# A cached archive is used only while every file that went into it is as it was
# (name, size, time), so an upgrade of a library makes a new one.
#
# Debian's /bin, /sbin and /lib are links into /usr, in the guest as well, and
# every archive names the directories under /usr, or it would replace the links.

root_cache=${XDG_CACHE_HOME:-$HOME/.cache}/ublkd/root

# What tests may count on, and what is taken along where the machine has it.
root_programs=(bash fio mkfs.ext4 e2fsck tune2fs dumpe2fs mkfs.xfs xfs_io blockdev
	blkdiscard lsblk losetup dmsetup mount umount mktemp timeout cmp dd stat du
	cp nice fallocate truncate sha256sum sync od tr head tail sort setpriv unshare
	taskset ps pkill numfmt findmnt)
root_programs_maybe=(sfdisk gojq xfs_repair mkfs.btrfs btrfs partx prlimit chrt filefrag
	nbdkit nbd-server nbd-client qemu-nbd qemu-img certtool psktool ip tc)

# Of nbdkit's plugins and filters those that tests use; others need libraries of
# their own.
root_nbdkit_plugins=(data eval file full memory nbd null sh)
root_nbdkit_filters=(blocksize blocksize-policy cache cow delay error exportname fua
	log multi-conn noparallel nozero pause protect rate retry truncate)

# Modules that the guest can load; those it needs at once guest/init loads, the
# kernel asks for most others by itself (a file system, a dm target).
root_modules=(virtio_blk virtio_net ublk_drv loop nbd brd null_blk dm-mod
	dm-flakey dm-delay dm-log-writes sch_netem tcp_diag tls gcm ctr ghash-generic aesni-intel xfs btrfs
	vfat nls_cp437 nls_iso8859-1 nls_ascii nls_utf8 overlay vsock vmw_vsock_virtio_transport autofs4 binfmt_misc)

# root_in_guest PATH: the same path without the links of a merged /usr.
root_in_guest() {
	case $1 in
	/bin/* | /sbin/* | /lib/* | /lib64/*) echo "/usr$1" ;;
	*) echo "$1" ;;
	esac
}

# root_libraries FILE...: the libraries that the dynamic linker finds for them.
root_libraries() {
	ldd "$@" 2>/dev/null |
		sed -En 's/^\t(.* => )?(\/[^ ]+) \(0x.*/\2/p' | sort -u
}

root_is_elf() {
	[[ -f $1 ]] && [[ $(head -c 4 "$1" | tr -d '\0') == $'\x7fELF' ]]
}

# root_copy TREE FILE [GUESTPATH]: a file or directory with the libraries of what
# is executable in it. FILE need not be a path, programs are looked up.
root_copy() {
	local tree=$1 from=$2 to file lib elves=()
	[[ $from == */* ]] || from=$(PATH=$PATH:/usr/sbin:/sbin type -P "$from") || return 1
	[[ -e $from ]] || return 1
	to=$(root_in_guest "${3:-$(realpath -s "$from")}")
	mkdir -p "$tree${to%/*}"
	cp -rLT --remove-destination "$from" "$tree$to"
	while read -r file; do
		if root_is_elf "$file"; then elves+=("$file"); fi
	done < <(find "$tree$to" -type f \( -perm -100 -o -name '*.so*' \))
	((${#elves[@]})) || return 0
	while read -r lib; do
		file=$tree$(root_in_guest "$lib")
		[[ -e $file ]] && continue
		mkdir -p "${file%/*}"
		cp -L "$lib" "$file"
		echo "$lib"
	done < <(root_libraries "${elves[@]}") >>"$tree.from"
}

# root_pack TREE: the tree as one archive on stdout.
root_pack() {
	(cd "$1" && find . -mindepth 1 -print0 | sort -z |
		cpio --null --quiet --owner=0:0 -o -H newc) | zstd -q -1
}

# root_stamp: names on stdin, one line of facts each on stdout.
root_stamp() { sort -u | xargs -r -d '\n' stat -L -c '%n %s %Y' 2>&1; }

# root_cached NAME KEY MAKER ARGS...: print the path of the archive NAME-KEY,
# made by "MAKER TREE ARGS..." where it is missing or stale. MAKER fills TREE
# and appends to TREE.from the name of each file of the machine that it used.
root_cached() {
	local file tmp
	file=$root_cache/$1-$(sha256sum <<<"$2" | cut -c1-16).cpio.zst
	shift 2
	if [[ -s $file && -s $file.from ]] &&
		cut -d' ' -f1 "$file.from" | root_stamp | cmp -s - "$file.from"; then
		touch "$file"
		echo "$file"
		return
	fi
	mkdir -p "$root_cache"
	find "$root_cache" -maxdepth 1 -mtime +14 -exec rm -rf {} +
	tmp=$(mktemp -d "$root_cache/.new.XXXXXX")
	mkdir "$tmp/tree"
	: >"$tmp/tree.from"
	"$1" "$tmp/tree" "${@:2}"
	root_pack "$tmp/tree" >"$tmp/archive"
	root_stamp <"$tmp/tree.from" >"$tmp/stamp"
	mv "$tmp/archive" "$file"
	mv "$tmp/stamp" "$file.from"
	rm -rf "$tmp"
	echo "$file"
}

# What a guest cannot be without: the directories, and busybox under all its names.
root_make_busybox() {
	local tree=$1 name
	mkdir -p "$tree"/{dev,proc,sys,run,tmp,root,mnt,etc,lab,var,usr/{bin,sbin,lib,lib64}}
	for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done
	# The kernel calls it by this name when it wants a module.
	ln -s ../bin/busybox "$tree/usr/sbin/modprobe"
	ln -s /run "$tree/var/run"
	ln -s /proc/mounts "$tree/etc/mtab"
	printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'ublkd:x:900:900:ublkd:/:/bin/false' \
		'nobody:x:65534:65534:nobody:/:/bin/sh' >"$tree/etc/passwd"
	printf '%s\n' 'root:x:0:' 'ublkd:x:900:' 'nogroup:x:65534:' >"$tree/etc/group"
	echo '127.0.0.1 localhost' >"$tree/etc/hosts"
	root_copy "$tree" /bin/busybox
	echo /bin/busybox >>"$tree.from"
	/bin/busybox --list | grep -vx busybox | while read -r name; do
		ln -s busybox "$tree/usr/bin/$name"
	done
}

root_make_programs() {
	local tree=$1 name path
	shift
	root_make_busybox "$tree"
	for name in "$@"; do
		path=$(PATH=$PATH:/usr/sbin:/sbin type -P "$name") || {
			echo "lab: this machine has no $name (see tests/packages.vm)" >&2
			return 1
		}
		# Busybox's own of the same name may stand in the other directory.
		rm -f "$tree/usr/bin/$name"
		root_copy "$tree" "$path" "/usr/bin/$name"
		echo "$path" >>"$tree.from"
	done
	root_nbdkit_files | while read -r path; do
		root_copy "$tree" "$path"
		echo "$path" >>"$tree.from"
	done
	# Loaded at run time, so that ldd does not tell of it: needed to end a thread.
	root_copy "$tree" "$(gcc_s)" 2>/dev/null || true
	[[ ! -e /etc/mke2fs.conf ]] || cp /etc/mke2fs.conf "$tree/etc/"
}

# root_nbdkit_files: the plugins and filters, where nbdkit is there.
root_nbdkit_files() {
	local directory name
	type -P nbdkit >/dev/null || return 0
	directory=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
	for name in "${root_nbdkit_plugins[@]}"; do
		echo "$directory/nbdkit-$name-plugin.so"
	done
	directory=$(nbdkit --dump-config | sed -n 's/^filterdir=//p')
	for name in "${root_nbdkit_filters[@]}"; do
		echo "$directory/nbdkit-$name-filter.so"
	done
}

gcc_s() { ldconfig -p | sed -En '/x86-64/s/.*libgcc_s\.so\.1 .* => (.*)/\1/p' | head -1; }

root_make_modules() {
	local tree=$1 kernel=$2 release from to line module name
	release=$(<"$kernel/release")
	from=$kernel/lib/modules/$release
	to=$tree/usr/lib/modules/$release
	echo "$kernel/vmlinuz" >>"$tree.from"
	for name in "${root_modules[@]}"; do
		line=$(grep -E "/${name//[-_]/[-_]}\.ko(\.[a-z]+)?:" "$from/modules.dep") || continue
		for module in "${line%%:*}" ${line#*:}; do
			name=${module%%.ko*}.ko
			mkdir -p "$to/${name%/*}"
			case $module in
			*.xz) xz -dc "$from/$module" ;;
			*.zst) zstd -qdc "$from/$module" ;;
			*.gz) gzip -dc "$from/$module" ;;
			*) cat "$from/$module" ;;
			esac >"$to/$name"
		done
	done
	cp "$from"/modules.{builtin,order}* "$to/"
	ln -s usr/lib "$tree/lib"
	/sbin/depmod -b "$tree" "$release"
	rm "$tree/lib" "$to"/*.bin
}

# root_base KERNEL [PROGRAM...]: the cached archives for this kernel, the
# lab's own programs and those named.
root_base() {
	local kernel=$1 programs name
	shift
	programs=("${root_programs[@]}")
	for name in "${root_programs_maybe[@]}"; do
		if PATH=$PATH:/usr/sbin:/sbin type -P "$name" >/dev/null; then
			programs+=("$name")
		fi
	done
	root_cached programs "${programs[*]} $(root_nbdkit_files) $(declare -f \
		root_make_programs root_make_busybox root_copy)" root_make_programs "${programs[@]}"
	root_cached modules "$kernel ${root_modules[*]} $(declare -f root_make_modules)" \
		root_make_modules "$kernel"
	if (($#)); then
		root_cached extra "$* $(declare -f root_make_extra)" root_make_extra "$@"
	fi
}

root_make_extra() {
	local tree=$1 name
	shift
	for name; do
		root_copy "$tree" "$name"
		PATH=$PATH:/usr/sbin:/sbin type -P "$name" >>"$tree.from"
	done
}

# root_lab TREE: the lab's guest side and the tests.
root_lab() {
	local tree=$1 here
	here=$(dirname "${BASH_SOURCE[0]}")
	here=$(cd "$here" && pwd)
	mkdir -p "$tree"/lab/{bin,tests,documents}
	cp "$here"/../guest/* "$tree/lab/"
	cp "$here/../../lib/varlink.py" "$tree/lab/"
	cp "$here"/../../../{README.md,docs/*.md} "$tree/lab/documents/"
	cp "${LAB_TESTS:-$here/../../vm}"/*-*.sh "$tree/lab/tests/"
	ln -s lab/init "$tree/init"
}

# root_project TREE: fill TREE with what this checkout brings: root_lab, the helper
# programs and what is installed from the build.
root_project() {
	local tree=$1 here build file
	here=$(dirname "${BASH_SOURCE[0]}")
	here=$(cd "$here" && pwd)
	build=${BUILD:-${here%/tests/lab/host}/build/default}
	root_lab "$tree"
	if [[ -e $build/Makefile ]]; then
		mkdir "$tree.installed"
		make -s -C "$build" install DESTDIR="$tree.installed" >"$tree.make" 2>&1 || {
			cat "$tree.make" >&2
			echo "lab: make -C $build install failed" >&2
			return 1
		}
		for file in "$tree.installed"/*; do
			[[ -e $file ]] || continue
			root_copy "$tree" "$file" "/${file##*/}"
		done
		for file in "$build"/tests/lab/programs/*; do
			if root_is_elf "$file" && [[ -x $file ]]; then
				root_copy "$tree" "$file" "/lab/bin/${file##*/}"
			fi
		done
		rm -rf "$tree.installed"
	else
		echo "lab: nothing is built in $build: the guest is without ublkd" \
			"(tests/run build makes it)" >&2
	fi
}
