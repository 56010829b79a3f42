#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-configure.sh BUILD SOURCE
#
# configure: the configuration is in /etc whatever the prefix is, unless --sysconfdir says
# otherwise; and one run names all libraries that are missing. make install says how to go
# on, but not into a package's directory.
set -euo pipefail
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
# Of the make that may run this test.
unset MAKEFLAGS MFLAGS MAKELEVEL

complain() {
	echo "$*"
	failed=1
}

[[ -x $source/configure ]] || {
	echo "there is no configure in $source"
	exit 77
}

# Runs configure in $tmp/NAME, its output in $tmp/NAME/said.
configure() { # NAME ARGUMENT...
	local name=$1
	shift
	mkdir -p "$tmp/$name"
	(cd "$tmp/$name" && timeout 200 "$source/configure" "$@" >said 2>&1)
}

variable() { # NAME VARIABLE: as make knows it
	# shellcheck disable=SC2016 # make's variable
	(cd "$tmp/$1" && printf 'include Makefile\nprint:\n\t@echo "$(%s)"\n' "$2" |
		make -s -f - print)
}

expect() { # NAME VARIABLE VALUE
	local is
	is=$(variable "$1" "$2")
	[[ $is == "$3" ]] || complain "$1: $2 is '$is', not '$3'"
}

configure plain
configure usr --prefix=/usr
configure given --prefix=/opt/ublkd --sysconfdir=/opt/etc --localstatedir=/opt/var

for name in plain usr; do
	expect "$name" sysconfdir /etc
	expect "$name" localstatedir /var
done
expect plain libexecdir /usr/local/libexec
expect usr libexecdir /usr/libexec
expect given sysconfdir /opt/etc
expect given localstatedir /opt/var

# The manuals name the directories of this installation.
make -s -C "$tmp/given" man/ublkd.8 man/ublkd.conf.5 >/dev/null
grep -qx '\.Pa /opt/etc/ublkd/ublkd.conf' "$tmp/given/man/ublkd.conf.5" ||
	complain "ublkd.conf(5) does not name /opt/etc/ublkd"
grep -qx '\.Pa /opt/ublkd/libexec/ublkd-worker \.' "$tmp/given/man/ublkd.8" ||
	complain "ublkd(8) does not name the worker's path"

# ---- what is missing ----

! PKG_CONFIG_LIBDIR=$tmp PKG_CONFIG_PATH='' configure without ||
	complain "no library is there, and configure succeeds"
said=$(cat "$tmp/without/said")
while read -r package; do
	# The one that only unit tests need.
	[[ $package != libcmocka-dev ]] || continue
	[[ $said == *"apt install"*" $package"* ]] || complain "configure does not name $package"
done < <(sed -nE 's/^([a-z0-9.-]+-dev) +pc:.*/\1/p' "$source/tests/packages.build")

# ---- what comes next ----

steps() { # DESTDIR: what the hook prints; it runs none of it
	make -s -C "$tmp/given" install-data-hook DESTDIR="$1"
}
[[ $(steps '') == *systemd-sysusers*'systemctl enable --now ublkd.socket ublkd.service'* ]] ||
	complain "make install does not say how to go on"
[[ -z $(steps "$tmp") ]] || complain "make install DESTDIR= tells what to do on this machine"
exit "$failed"
