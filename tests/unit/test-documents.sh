#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-documents.sh BUILD SOURCE
#
# The documents are true to the tree: each file has its place in the map of
# docs/architecture.md, files and tests that are named exist, and the backend of
# docs/backends.md builds and passes the conformance test.
set -euo pipefail
build=$1
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cd "$source"
failed=0

complain() {
	echo "$*"
	failed=1
}

documents=(*.md docs/*.md)
map_file=docs/architecture.md
map=$(sed -n '/^## The files/,/^## /p' "$map_file")

# has NAME: the map has NAME, as a word.
has() { grep -qE "(^|[ ,;])${1//./\\.}([ ,;]|\$)" <<<"${map//\*/@}"; }

# has_file FILE: by its own name, or with its pair.
has_file() {
	local name=${1##*/}
	has "$name" || { [[ $name == *.[ch] && -e ${1%.*}.c && -e ${1%.*}.h ]] && has "${name%.*}.@"; }
}

# The map's own check: what is not there is seen to be missing.
if has no-such-name || has_file engine/no-such.c; then complain "the check of the map finds everything"; fi

for file in engine/*.[ch] backends/*.[ch] supervisor/* worker/*.[ch] tools/*.[ch] deploy/* \
	docs/* *.md; do
	[[ ! -f $file ]] || has_file "$file" || complain "$map_file: the map lacks $file"
done
for file in tests/*; do
	case $file in
	*/packages.*) has packages.@ || complain "$map_file: the map lacks $file" ;;
	*) if [[ -d $file ]]; then has "${file##*/}/"; else has "${file##*/}"; fi ||
		complain "$map_file: the map lacks $file" ;;
	esac
done
for directory in backends common deploy docs engine man supervisor tests tools varlink worker; do
	[[ ! -d $directory ]] || has "$directory/" || complain "$map_file: the map lacks $directory/"
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
		compgen -G "$name" >/dev/null || complain "$map_file: the map has $name, which does not exist"
	done
done <<<"$map"

# So are paths in any document, and the tests that its commands name.
for document in "${documents[@]}"; do
	while read -r path; do
		[[ $path == backends/heap.c || $path == */MODULE.c || $path == *[A-Z][A-Z]* ]] ||
			compgen -G "$path" >/dev/null || complain "$document names $path, which does not exist"
	done < <(grep -oE '\b(engine|backends|tools|deploy|tests|supervisor|worker|man)/[A-Za-z0-9_./*-]+[A-Za-z0-9_*]' \
		"$document" | sort -u)
	while read -r part name; do
		case $part in
		vm) compgen -G "tests/vm/$name*.sh" ;;
		*) compgen -G "tests/unit/$name.*" ;;
		esac >/dev/null || complain "$document runs the test $name, which does not exist"
	done < <(sed -nE 's/.*tests\/run (unit|tsan|vm) ([a-z-]+).*/\1 \2/p' "$document")
done

# The example of a backend builds without a warning, with nothing else changed. It is put in the
# place of all other backends for the conformance test, which so is about the example alone.
awk '$0 == "\140\140\140c" { on = 1; next } $0 == "\140\140\140" { on = 0 } on' \
	docs/backends.md >"$tmp/example.c"
cat >"$tmp/makefile" <<'END'
include Makefile
document-example:
	$(compile) -Werror -c -o $(example).o $(example).c
	$(link) -o $(example) $(tools_obj) $(backends_obj) $(example).o libsupervisor.a $(base) $(libs)
document-conformance:
	$(link) $(unit_wrap) -o $(example)-test tests/unit/test-backends.o $(example).o \
		$(filter-out $(backends_obj),$(unit_parts)) $(CMOCKA_LIBS) $(libs)
END
make_example() { make -s -C "$build" -f "$tmp/makefile" example="$tmp/example" "$1"; }
if make_example document-example; then
	grep -q '^heap:SIZE ' <<<"$("$tmp/example" backends)" || complain "the example is not found"
	said=$("$tmp/example" run heap:1 2>&1) || true
	[[ $said == *"smaller than one block"* ]] || complain "the example does not check: $said"
	if grep -q '^CMOCKA_LIBS = .' "$build/Makefile"; then
		if ! make_example document-conformance ||
			! "$tmp/example-test" >"$tmp/conformance" 2>&1; then
			complain "the example fails the conformance test: $(cat "$tmp/conformance")"
		fi
	fi
else
	complain "the example does not build"
fi
exit "$failed"
