# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# suite.sh: work in a root that tests/libs-root has made. Sourced, with top set to
# the checkout.

# in_root ROOT COMMAND...: with /proc where the machine allows a mount.
in_root() {
	local root=$1 own=(unshare --mount --pid --fork --kill-child --mount-proc="$1/proc")
	shift
	"${own[@]}" true 2>/dev/null || own=()
	"${own[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/ \
		chroot "$root" "$@"
}

# copy_sources FOLDER: only the sources, configure and its helpers: what this
# checkout has built is for this machine.
copy_sources() {
	# shellcheck disable=SC2154 # the checkout
	tar -C "$top" -c --exclude=./build --exclude=./.git --exclude=./autom4te.cache \
		--exclude='*.[oda]' . | tar -C "$1" -x --no-same-owner
}
