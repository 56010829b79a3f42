# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# suite.sh: work in a root that tests/libs-root has made. Sourced, with top set to
# the checkout.

# in_root ROOT COMMAND...: its root is a mount of its own with /proc in it, where
# the machine allows that: a worker's sandbox takes one that can be exchanged.
in_root() { # ROOT COMMAND...
	local root=$1 clean=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/)
	shift
	if ! unshare --mount --pid true 2>/dev/null; then
		"${clean[@]}" chroot "$root" "$@"
		return
	fi
	# The old root goes away by its own means: the new one may have none.
	# shellcheck disable=SC2016 # its own variables
	"${clean[@]}" unshare --mount --pid --fork --kill-child sh -c '
		set -e
		mount --bind "$1" "$1"
		cd "$1"
		shift
		mount -t proc proc proc
		pivot_root . mnt
		chroot mnt umount -l /
		exec "$@"
	' in_root "$root" "$@"
}

# copy_sources DIRECTORY: only the sources, configure and its helpers: what this
# checkout has built is for this machine.
copy_sources() {
	# shellcheck disable=SC2154 # the checkout
	tar -C "$top" -c --exclude=./build --exclude=./.git --exclude=./autom4te.cache \
		--exclude='*.[oda]' . | tar -C "$1" -x --no-same-owner
}
