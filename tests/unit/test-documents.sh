#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-documents.sh BUILD SOURCE
#
# The documents are true to the tree: each file has its place in the map of
# docs/architecture.md; files, tests, links, verbs and options that are named exist; what can
# be run without a device is run: shell blocks (sh), configuration (ini), and the backend of
# docs/backends.md, which builds and passes the conformance test.
set -euo pipefail
# Configurations that a group can write are refused.
umask 022
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

# blocks LANGUAGE FILE DIRECTORY: each fenced block in that language, into a file of its own.
blocks() {
	awk -v open="\140\140\140$1" -v directory="$3" '
		$0 == open { on = 1; file = directory "/" ++n; next }
		$0 == "\140\140\140" { on = 0 }
		on { print >file }' "$2"
}

# prose FILE: all but its fenced blocks.
prose() { awk '/^\140\140\140/ { on = !on; next } !on' "$1"; }

# anchors FILE: those of its headings, as GitHub makes them.
anchors() {
	prose "$1" | sed -nE 's/^#+ //p' | tr '[:upper:]' '[:lower:]' |
		sed -E 's/[^a-z0-9 _-]//g; s/ /-/g'
}

# ---- links ----

# check_link FROM TARGET: the target is a path from the directory of FROM, #HEADING, or both.
check_link() {
	local file=${2%%#*} anchor=
	[[ $2 != *#* ]] || anchor=${2#*#}
	[[ ! $2 =~ ^[a-z]+: ]] || return 0
	file=${file:+$(dirname "$1")/$file}
	file=${file:-$1}
	[[ -e $file ]] || return 1
	[[ -z $anchor ]] || grep -qxF -e "$anchor" <<<"$(anchors "$file")"
}

nr_links=0
for document in "${documents[@]}"; do
	while IFS= read -r link; do
		nr_links=$((nr_links + 1))
		check_link "$document" "$link" || complain "$document: the link $link leads nowhere"
	done < <(prose "$document" | grep -oE '\]\([^)]+\)' | sed 's/^](//; s/)$//')
done
if check_link README.md docs/none.md || check_link README.md '#none'; then
	complain "the check of links finds everything"
fi
((nr_links >= 10)) || complain "only $nr_links links were found"

# ---- verbs and options ----

# code FILE: what a user may type, one command a line: blocks and spans of Markdown, literal
# text of a manual.
code() {
	case $1 in
	*.md)
		awk '/^\140\140\140/ { on = !on; next } on || /^    /' "$1"
		prose "$1" | tr '\n' ' ' | grep -oP '\x60[^\x60]+\x60' | tr -d '\140'
		;;
	*) sed -nE 's/\\-/-/g; /^\.Bd -literal/,/^\.Ed/p; s/^\.(Ql|Dl) //p' "$1" ;;
	esac | sed -E ':a; /\\$/ { N; s/ *\\\n */ /; ba }'
}

declare -A help=()
backends_options=$("$build/ublkctl" backends | sed -nE 's/^  -o ([a-z-]+)=.*/\1/p')

# check_command VERB WORDS: the verb exists, and has each option among the words.
check_command() {
	local verb=$1 words=$2 option
	if [[ -z ${help[$verb]:-} ]]; then
		help[$verb]=$("$build/ublkctl" "$verb" --help 2>/dev/null </dev/null) || return 1
	fi
	while IFS= read -r option; do
		grep -qE -e "^  (.*, )?$option( |,|\$)" <<<"${help[$verb]}" || return 1
	done < <(grep -oE -e '(^|[ [|])--[a-z][a-z-]*' <<<"$words" | grep -oE -e '--.*')
	while IFS= read -r option; do
		grep -qxF -e "$option" <<<"$backends_options" || return 1
	done < <(grep -oE -e '-o [a-z-]+=' <<<"$words" | sed 's/^-o //; s/=$//')
}

nr_commands=0
for document in "${documents[@]}" man/*; do
	while read -r line; do
		# Two blanks begin a remark, and a pipe another command.
		line=${line%%  *}
		line=${line%% | *}
		[[ $line =~ (^|[[:blank:]/\'])ublkctl\ ([a-z][a-z-]*)(.*) ]] || continue
		verb=${BASH_REMATCH[2]} words=${BASH_REMATCH[3]}
		nr_commands=$((nr_commands + 1))
		check_command "$verb" "$words" ||
			complain "$document: there is no such command: ublkctl $verb$words"
	done < <(code "$document")
done
if check_command none '' || check_command list ' --none' || check_command run ' -o none=1'; then
	complain "the check of commands finds everything"
fi
((nr_commands >= 50)) || complain "only $nr_commands commands were found"

# ---- what can be run ----

nr_blocks=0
for document in "${documents[@]}"; do
	mkdir "$tmp/sh" "$tmp/ini" "$tmp/try" "$tmp/config" "$tmp/config/exports.d"
	blocks sh "$document" "$tmp/sh"
	for block in "$tmp"/sh/*; do
		[[ -e $block ]] || continue
		nr_blocks=$((nr_blocks + 1))
		(cd "$tmp/try" && PATH=$build:$PATH timeout 60 bash -eu "$block") </dev/null >"$tmp/said" 2>&1 ||
			complain "$document: a shell block fails: $(cat "$block" "$tmp/said")"
	done
	# The first line of a configuration is a comment that names its file. The keys that it
	# names are there.
	blocks ini "$document" "$tmp/ini"
	for block in "$tmp"/ini/*; do
		[[ -e $block ]] || continue
		nr_blocks=$((nr_blocks + 1))
		name=$(sed -nE '1s/^# \/etc\/ublkd\/([a-z./-]+\.conf)$/\1/p' "$block")
		if [[ $name ]]; then
			sed "s|= /etc/ublkd/|= $tmp/config/|" "$block" >"$tmp/config/$name"
			while read -r key; do
				[[ -e $key ]] || : >"$key"
			done < <(sed -nE "s|.*= ($tmp/config/.*)|\1|p" "$tmp/config/$name")
		else
			complain "$document: a configuration without its file's name: $(cat "$block")"
		fi
	done
	"$build/ublkctl" check-config "$tmp/config" >"$tmp/said" 2>&1 ||
		complain "$document: its configuration is wrong: $(cat "$tmp/said")"
	rm -rf "$tmp/sh" "$tmp/ini" "$tmp/try" "$tmp/config"
done
((nr_blocks >= 3)) || complain "only $nr_blocks blocks were found"

# The README stays short, and its line for apt has all that a build takes.
(($(wc -l <README.md) <= 200)) || complain "README.md has more than 200 lines"
install=$(sed -nE '/apt install/,/[^\\]$/p' README.md)
while read -r package _; do
	[[ $package != libcmocka-dev ]] || continue
	grep -qE -e "(^| )$package( |\$)" <<<"$install" || complain "README.md: apt install lacks $package"
done < <(grep -E '^[a-z0-9-]+-dev( |$)' tests/packages.quickstart)

# The example of a backend builds without a warning, with nothing else changed. It is put in the
# place of all other backends for the conformance test, which so is about the example alone.
mkdir "$tmp/c"
blocks c docs/backends.md "$tmp/c"
cp "$tmp/c/1" "$tmp/example.c"
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
	[[ $said == *"multiple of the block size"* ]] || complain "the example does not check: $said"
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
