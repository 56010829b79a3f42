#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-deploy.sh BUILD SOURCE
#
# What is installed beside the programs: units that systemd takes and finds well
# confined, links by udev's rule, examples that ublkd takes.
set -euo pipefail
build=$1
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}

# Nothing is left of a template but its meaning.
for file in "$source"/deploy/*.in "$source"/deploy/*/*.in; do
	made=$build/${file#"$source"/}
	made=${made%.in}
	[[ -s $made ]] || complain "${made#"$build"/} was not made"
	! grep -nE '@[a-z_]+@' "$made" || complain "${made#"$build"/} has such a name left"
done

# ---- the interface ----

# io.ublkd(7) names the path of the installed description.
make -s -C "$build" install-pkgdataDATA DESTDIR="$tmp/root" >"$tmp/said" 2>&1 ||
	complain "the interface cannot be installed: $(cat "$tmp/said")"
path=$(sed -nE 's/^\.It Pa (.*\.varlink)$/\1/p' "$build/man/io.ublkd.7")
cmp "$source/supervisor/io.ublkd.varlink" "$tmp/root$path" ||
	complain "io.ublkd(7) names '$path', where no interface is installed"

# ---- JSON Schemas ----

make -s -C "$build" install-schemasDATA DESTDIR="$tmp/root" >"$tmp/said" 2>&1 ||
	complain "the schemas cannot be installed: $(<"$tmp/said")"
for page in ublkctl.1 io.ublkd.7; do
	path=$(sed -nE 's/^\.(It )?Pa (.*\/schemas)$/\2/p' "$build/man/$page")
	diff -r "$source/docs/schemas" "$tmp/root$path" ||
		complain "$page names '$path', where not all schemas are installed"
done

# ---- examples ----

mkdir -p "$tmp/etc/exports.d"
for file in "$source"/deploy/examples/*.conf; do
	case ${file##*/} in
	ublkd.conf) cp "$file" "$tmp/etc/" ;;
	*) cp "$file" "$tmp/etc/exports.d/" ;;
	esac
done
chmod -R go-w "$tmp/etc"
# What `make install` makes for them on the machine itself.
mkdir "$tmp/images"
sed -i "s|/var/lib/ublkd|$tmp/images|" "$tmp"/etc/exports.d/*.conf
sed -i 's/^worker-user = ublkd$/worker-user = nobody/' "$tmp/etc/ublkd.conf"
"$build/ublkctl" check-config "$tmp/etc" >/dev/null || complain "the examples are refused"

# Each setting is explained in the example by its default, or is left out: none that is
# not there any more.
echo 'nonsense = 1' >>"$tmp/etc/ublkd.conf"
! "$build/ublkctl" check-config "$tmp/etc" >/dev/null || complain "nonsense is taken"

# ---- units ----

# As udev's rules cannot be tried without udev: names and directories are those of the code.
records=$(sed -nE 's/^#define NAME_RECORDS +"(.*)".*/\1/p' "$source/supervisor/name.h")
links=$(sed -nE 's/^#define NAME_DIRECTORY +"\/dev\/(.*)".*/\1/p' "$source/supervisor/name.h")
rules=$build/deploy/60-ublkd.rules
grep -qF "IMPORT{file}=\"$records/%k\"" "$rules" || complain "the rule reads no $records"
grep -qF "SYMLINK+=\"$links/\$env{UBLKD_NAME}\"" "$rules" || complain "the rule makes no $links"

while read -r key; do
	grep -qF "$key" "$rules" || complain "the rule ignores $key"
done < <(grep -oE 'UBLKD_[A-Z]+=' "$source/supervisor/name.c" | tr -d =)
program=$(sed -nE 's/.*RUN\+="([^ "]*).*/\1/p' "$rules")
[[ -x $source/deploy/${program##*/} ]] || complain "the rule runs $program, which is not there"

# Programs that a unit starts are installed where it says.
for program in ublkd ublkctl ublkd-worker; do
	grep -hE "^Exec[A-Za-z]*=-?/.*/$program( |\$)" "$build"/deploy/*.service >/dev/null ||
		complain "no unit starts $program"
done

if ! command -v systemd-analyze >/dev/null; then
	((failed == 0)) || exit 1
	echo "systemd-analyze is not here: units were not looked at"
	exit 77
fi
# systemd reads these settings in [Unit] only, and ignores them elsewhere with a warning.
unit_of() { sed -n "/^\\[$1\\]/,/^\\[/p" "$source/deploy/ublkd-worker@.service.in"; }
for setting in SurviveFinalKillSignal IgnoreOnIsolate; do
	unit_of Unit | grep -qx "$setting=yes" ||
		complain "ublkd-worker@.service: no $setting in [Unit]"
done

# Programs that are there. The units are made for the systemd of this machine: none of its
# complaints is about what it has not learnt yet.
mkdir "$tmp/units"
for unit in "$build"/deploy/*.service "$source"/deploy/*.socket "$build"/deploy/*.socket; do
	sed -E 's#=(-?)/[^ ]*/(ublkctl|ublkd|ublkd-worker)( |$)#=\1/bin/true\3#' "$unit" \
		>"$tmp/units/${unit##*/}"
done
for unit in "$tmp"/units/*; do
	name=${unit/@./@1.}
	[[ $name == "$unit" ]] || cp "$unit" "$name"
	SYSTEMD_UNIT_PATH=$tmp/units: timeout 60 systemd-analyze verify --man=no "$name" \
		>"$tmp/said" 2>&1 || true
	! grep -F "$tmp/units/" "$tmp/said" || complain "${unit##*/}: see above"
done
level=$(timeout 60 systemd-analyze security --offline=yes --no-pager "$tmp/units/ublkd.service" \
	2>/dev/null | sed -nE 's/.*Overall exposure level.*: ([0-9.]+) .*/\1/p')
[[ -n $level ]] || complain "systemd-analyze tells no exposure level"
# Of what it adds up 0.3 are for opening files with the rights of who names them.
[[ -z $level ]] || ((10#${level/./} <= 23)) || complain "ublkd.service: exposure level $level"
exit "$failed"
