# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# interface.sh: prints an interface description (*.varlink) as lines, which unit tests compare
# with other descriptions.

# interface_says FILE: "type T", "T.FIELD: TYPE", "T.FIELD = VALUE" for each value of an
# enumeration, "method M", "M in FIELD: TYPE", "M out FIELD: TYPE", "error E".
interface_says() {
	sed 's/#.*//' "$1" | tr '\n\t' '  ' | awk '
	# The position behind the parenthesis that closes the one at the beginning of text.
	function closing(text,    i, depth, c) {
		for (i = 1; i <= length(text); i++) {
			c = substr(text, i, 1)
			depth += (c == "(") - (c == ")")
			if (!depth)
				return i + 1
		}
	}
	function values(of, text,    n, i, all) {
		gsub(/[ ?()]/, "", text)
		n = split(text, all, ",")
		for (i = 1; i <= n; i++)
			print of " = " all[i]
	}
	# text: "(name: type, ...)", or "(value, ...)"
	function fields(of, text,    name, i, c, depth, type) {
		if (text ~ /^\( *\)$/)
			return
		text = substr(text, 2, length(text) - 2) ","
		if (text !~ /:/) {
			values(of, text)
			return
		}
		while (match(text, /[A-Za-z0-9_]+ *:/)) {
			name = substr(text, RSTART, RLENGTH)
			sub(/ *:/, "", name)
			text = substr(text, RSTART + RLENGTH)
			depth = 0
			for (i = 1; i <= length(text); i++) {
				c = substr(text, i, 1)
				depth += (c == "(") - (c == ")")
				if (!depth && c == ",")
					break
			}
			type = substr(text, 1, i - 1)
			text = substr(text, i + 1)
			gsub(/^ +| +$/, "", type)
			gsub(/ +/, " ", type)
			print of name ": " type
			if (type ~ /,/)
				values(of name, type)
		}
	}
	{
		rest = $0
		while (match(rest, /(type|method|error) +[A-Z][A-Za-z0-9]* */)) {
			split(substr(rest, RSTART, RLENGTH), word, " ")
			rest = substr(rest, RSTART + RLENGTH)
			print word[1] " " word[2]
			end = closing(rest)
			fields(word[2] (word[1] == "method" ? " in " : "."), substr(rest, 1, end - 1))
			rest = substr(rest, end)
			if (word[1] == "method") {
				sub(/^ *-> */, "", rest)
				end = closing(rest)
				fields(word[2] " out ", substr(rest, 1, end - 1))
				rest = substr(rest, end)
			}
		}
	}'
}
