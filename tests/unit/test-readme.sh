#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-readme.sh BUILD SOURCE
#
# README.md is true to the tree: each file has its place in the map, what is
# named is there, and the backend that it shows builds and registers itself.
set -euo pipefail
build=$1
source=$2
readme=$source/README.md
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cd "$source"
failed=0

complain() {
	echo "README.md: $*"
	failed=1
}

map=$(sed -n '/^## The files/,/^## /p' "$readme")

# has NAME: the map has NAME, as a word.
has() { grep -qE "(^|[ ,;])${1//./\\.}([ ,;]|\$)" <<<"${map//\*/@}"; }

# has_file FILE: by its own name, or with its pair.
has_file() {
	local name=${1##*/}
	has "$name" || { [[ $name == *.[ch] && -e ${1%.*}.c && -e ${1%.*}.h ]] && has "${name%.*}.@"; }
}

# The map's own check: what is not there is seen to be missing.
if has no-such-name || has_file engine/no-such.c; then complain "its check finds everything"; fi

for file in engine/*.[ch] backends/*.[ch] supervisor/* worker/*.[ch] tools/*.[ch] deploy/*; do
	[[ ! -f $file ]] || has_file "$file" || complain "its map lacks $file"
done
for file in tests/*; do
	case $file in
	*/packages.*) has packages.@ || complain "its map lacks $file" ;;
	*) if [[ -d $file ]]; then has "${file##*/}/"; else has "${file##*/}"; fi ||
		complain "its map lacks $file" ;;
	esac
done
for directory in backends common deploy engine man supervisor tests tools varlink worker; do
	[[ ! -d $directory ]] || has "$directory/" || complain "its map lacks $directory/"
done

# Names in the map, those before two blanks, are of files that are there.
directory=
while IFS= read -r line; do
	[[ $line =~ ^\ {4}(\ \ )?([^\ ]+(\ [^\ ]+)*)(\ \ .*)?$ ]] || continue
	read -ra names <<<"${BASH_REMATCH[2]}"
	if [[ -z ${BASH_REMATCH[1]} ]]; then
		directory=
		[[ ${names[0]} != */ ]] || directory=${names[0]}
	fi
	for name in "${names[@]}"; do
		[[ $name == "$directory" ]] || name=$directory$name
		compgen -G "$name" >/dev/null || complain "its map has $name, which is not there"
	done
done <<<"$map"

# So are paths anywhere else, and the tests that its commands name.
while read -r path; do
	[[ $path == backends/ramp.c || $path == */MODULE.c || $path == *[A-Z][A-Z]* ]] ||
		compgen -G "$path" >/dev/null || complain "it names $path, which is not there"
done < <(grep -oE '\b(engine|backends|tools|deploy|tests|supervisor|worker|man)/[A-Za-z0-9_./*-]+[A-Za-z0-9_*]' \
	"$readme" | sort -u)
while read -r part name; do
	case $part in
	vm) compgen -G "tests/vm/$name*.sh" ;;
	*) compgen -G "tests/unit/$name.*" ;;
	esac >/dev/null || complain "it runs the test $name, which is not there"
done < <(sed -nE 's/^    tests\/run (unit|tsan|vm) ([a-z-]+).*/\1 \2/p' "$readme")

# What it tells to put into a file builds without a warning, with nothing else changed.
awk '$0 == "\140\140\140c" { on = 1; next } $0 == "\140\140\140" { on = 0 } on' \
	"$readme" >"$tmp/ramp.c"
cat >"$tmp/makefile" <<'END'
include Makefile
readme-example:
	$(compile) -Werror -c -o $(example).o $(example).c
	$(link) -o $(example) $(tools_obj) $(backends_obj) $(example).o libsupervisor.a $(base) $(libs)
END
if make -s -C "$build" -f "$tmp/makefile" example="$tmp/ramp" readme-example; then
	grep -q '^ramp:SIZE ' <<<"$("$tmp/ramp" backends)" || complain "its backend is not found"
	said=$("$tmp/ramp" run ramp:1 2>&1) || true
	[[ $said == *"give a size from 4K on"* ]] || complain "its backend does not check: $said"
else
	complain "its backend does not build"
fi
exit "$failed"
