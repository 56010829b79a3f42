# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# document.sh: runs the commands of a document as an administrator types them, so that the
# document and its test cannot drift apart.
#
#   . /lab/lib.sh system document
#
#   document operations.md
#   section 'Upgrade the package'
#   block                          # the next block of the section
#   document_end                   # fails if a block did not run
#
# A block is fenced. In one of the language "console", a line after "# " or "$ " is a command, with
# "\" at its end also the next line. The lines below a command are its output: they must
# come, apart from numbers and widths of columns; "..." stands for lines left out. A command
# must fail if these lines tell of an error, and succeed otherwise. One of the language
# "ini" is a file, which its first line names: the test writes it in the editor's place.
#
# The log of the test is the transcript of all commands with what they printed. Which blocks
# ran is kept in /srv/document, so that the machine can boot in between.

# Commands that cannot run here, and why; commands that end only when interrupted.
declare -A not_run=() until_interrupted=()

# document NAME: of the checkout, as it was put into /lab/documents.
document() {
	document_text=/lab/documents/$1
	document_state=/srv/document/$1
	mkdir -p "$document_state"
	: >>"$document_state/ran"
	document_headings >headings
}

# document_headings: those of the sections that have blocks, one a line for each block.
document_headings() {
	awk '/^\140\140\140/ { on = !on; if (on && /(console|ini)$/) print heading; next }
		!on && /^## / { heading = substr($0, 4) }' "$document_text"
}

# section HEADING
section() {
	document_section=$1
	grep -qxF -e "$1" headings || fail "the document has no section '$1' with a block"
	printf '\n=== %s\n' "$1"
}

# block: run the next one of the section.
block() {
	local nr language
	nr=$(grep -cxF -e "$document_section" "$document_state/ran" || true)
	awk -v section="$document_section" -v skip="$nr" '
		/^\140\140\140/ && on { exit }
		/^\140\140\140/ { inside = !inside }
		!inside && /^## / { heading = substr($0, 4) }
		on { print; next }
		inside && heading == section && /^\140\140\140(console|ini)$/ && skip-- == 0 {
			on = 1
			print substr($0, 4)
		}' "$document_text" >block
	language=$(sed -n 1p block)
	sed -i 1d block
	[[ -s block ]] || fail "$document_section: there is no block after $nr"
	echo "$document_section" >>"$document_state/ran"
	case $language in
	console) document_commands ;;
	ini) document_file ;;
	esac
}

# blocks: run all that the section still has.
blocks() {
	while (($(grep -cxF -e "$document_section" "$document_state/ran") <
		$(grep -cxF -e "$document_section" headings))); do
		block
	done
}

document_file() {
	local path
	path=$(sed -nE '1s|^# (/etc/ublkd/[a-z./-]+)$|\1|p' block)
	[[ $path ]] || fail "the block does not name its file: $(cat block)"
	mkdir -p "${path%/*}"
	cp block "$path"
	printf '# %s %s\n' editor "$path"
	cat block
}

document_commands() {
	local line command='' nr=0
	rm -f block.*
	while IFS= read -r line; do
		if [[ $command == *\\ ]]; then
			command=${command%\\}$line
			echo "$command" >block.$nr.command
		elif [[ $line == [#$]' '* ]]; then
			nr=$((nr + 1))
			command=${line:2}
			echo "$command" >block.$nr.command
			: >block.$nr.output
		else
			((nr)) || fail "output before a command: $line"
			echo "$line" >>block.$nr.output
		fi
	done <block
	for ((line = 1; line <= nr; line++)); do
		document_command "$(<block.$line.command)" block.$line.output
	done
}

# document_command COMMAND OUTPUT
document_command() {
	local command=$1 bare=$1 status=0 wanted=0 bound='' words
	# A remark is none of the command.
	if [[ $bare =~ ^([^\'\"]*[^[:blank:]])[[:blank:]]+\#\  ]]; then bare=${BASH_REMATCH[1]}; fi
	read -ra words <<<"$bare"
	bare=${words[*]}
	printf '# %s\n' "$command"
	if [[ ${not_run[$bare]:-} ]]; then
		echo "(not run: ${not_run[$bare]})"
		document_skipped+=("$bare")
		return
	fi
	[[ ! ${until_interrupted[$bare]:-} ]] ||
		bound="timeout --preserve-status -k 10 -s INT ${until_interrupted[$bare]} "
	bash -c "$bound$command" </dev/null >printed 2>&1 || status=$?
	cat printed
	if grep -qE '^ublkctl: error: |[0-9] errors?$' "$2"; then wanted=1; fi
	[[ $bound ]] || expect "$wanted" "$((status != 0))" "whether '$command' fails"
	document_output "$2" || fail "'$command' prints something else than the document has:
$(diff block.expected block.printed)"
}

# document_output EXPECTED: whether the command printed it.
document_output() {
	local plain='s/[0-9]+/N/g; s/[[:blank:]]+/ /g; s/ $//'
	[[ -s $1 ]] || return 0
	sed -E "$plain" "$1" >block.expected
	sed -E "$plain" printed >block.printed
	if ! grep -qxF -e '...' block.expected; then
		cmp -s block.expected block.printed
		return
	fi
	awk 'NR == FNR { if ($0 != "...") wanted[++n] = $0; next }
		at < n && $0 == wanted[at + 1] { at++ }
		END { exit at < n }' block.expected block.printed
}

# document_end: fails if a block has not run, or a command that was to be left out is no
# longer there. Headings that are named here are of sections that another test has.
document_end() {
	local heading
	for heading; do sed -i "/^$heading\$/d" headings; done
	diff <(sort headings) <(sort "$document_state/ran") >not-run ||
		fail "blocks of these sections did not run: $(sed -n 's/^< //p' not-run)"
	for heading in "${!not_run[@]}"; do
		[[ " ${document_skipped[*]@Q} " == *" ${heading@Q} "* ]] ||
			grep -qxF -e "$heading" "$document_state/skipped" ||
			fail "the document no longer has the command '$heading'"
	done
}
document_skipped=()
# shellcheck disable=SC2016 # expanded at the end
defer 'printf "%s\n" ${document_skipped[@]+"${document_skipped[@]}"} >>"$document_state/skipped"'
