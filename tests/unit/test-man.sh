#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-man.sh BUILD SOURCE
#
# The manuals have each verb, option and setting that the programs have, with its
# value and default, and no other; io.ublkd(7) has what the interface has; and groff
# and mandoc warn of nothing. Both sides of a comparison are lines such as
# "WHERE --NAME VALUE" or "BACKEND NAME=VALUE (default: X)".
set -euo pipefail
build=$1
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
ublkctl=$build/ublkctl
# shellcheck source=tests/lib/interface.sh
. "$source/tests/lib/interface.sh"

# Options that a manual explains once, for all verbs.
common='^(--(json|socket|help|version)|-o)( |$)'
exports='Options of an export'

# ---- what the programs have ----

verbs() { "$ublkctl" --help | sed -nE '/^verbs:/,/^$/s/^  ([a-z-]+) .*/\1/p'; }

help_options() { # COMMAND...: "--name VALUE"
	timeout 10 "$@" --help 2>/dev/null </dev/null |
		sed -nE '/^options:/,$s/^  (-[-a-z]+( [^ ]+)?)( .*|$)/\1/p'
}

program_says() {
	local verb
	help_options "$ublkctl" run | grep -vE "$common|^--verbose" | sed "s/^/$exports: /"
	help_options "$ublkctl" show | grep -E "$common" | sed 's/^/Options of many verbs: /'
	echo 'Options of many verbs: -o KEY=VALUE'
	while IFS= read -r verb; do
		echo "$verb"
		help_options "$ublkctl" "$verb" | grep -vE "$common" |
			grep -vxFf <(help_options "$ublkctl" run | grep -vE "$common|^--verbose") |
			sed "s/^/$verb: /" || true
	done < <(verbs)
	"$ublkctl" backends --json | tr -d '\n' | sed 's/{ *"scheme"/\n&/g' |
		awk '{
			if (!match($0, /"scheme": "[^"]*"/))
				next
			scheme = substr($0, RSTART + 11, RLENGTH - 12)
			sub(/.*"options": \[/, "")
			n = split($0, options, "}")
			for (i = 1; i < n; i++) {
				name = value = standard = ""
				if (match(options[i], /"name": "[^"]*"/))
					name = substr(options[i], RSTART + 9, RLENGTH - 10)
				if (match(options[i], /"value": "[^"]*"/))
					value = substr(options[i], RSTART + 10, RLENGTH - 11)
				if (match(options[i], /"default": "[^"]*"/))
					standard = substr(options[i], RSTART + 12, RLENGTH - 13)
				if (name == "")
					continue
				printf "%s %s=%s%s\n", scheme, name, value,
					standard == "" ? "" : " (default: " standard ")"
			}
		}'
}

# Facts stand in an array beside the backend that names it: "SCHEME FACT".
facts_say() {
	local file scheme array
	while IFS= read -r file; do
		scheme=$(sed -nE 's/^\t\.scheme = "([a-z]+)".*/\1/p' "$file")
		array=$(sed -nE 's/^\t\.gauges = ([a-z_]+).*/\1/p' "$file")
		tr '\n' ' ' <"$file" | grep -oE "[* ]${array}\[\] = \{[^}]*\}" | grep -oE '"[^"]*"' |
			tr -d '"' | sed "s/^/$scheme /"
	done < <(grep -lE '^\s\.gauges = ' "$source"/backends/*.c "$source"/backends/*/*.c)
}

manual_facts() { # FILE
	awk '
	/^\.S[hs] / { scheme = "" }
	/^\.Ss Facts of the .* backend$/ { scheme = $5 }
	scheme && /^\.It Cm / { print scheme " " $3 }' "$1"
}

# The settings of ublkd stand in one table.
settings_say() {
	tr '\n' ' ' <"$source/supervisor/settings.c" | grep -oE '= \{ "[a-z-]+", OPTION_[^}]*\}' |
		sed -E 's/= \{ "([^"]*)", OPTION_[A-Z]*, [^,]*, (NULL|"([^"]*)").*/\1 \3/; s/ +$//'
}

# ---- what the manuals have ----

manual_says() { # FILE
	awk '
	function flush_item() {
		if (item != "")
			print item (standard == "" ? "" : " (default: " standard ")")
		item = standard = ""
	}
	/^\.S[hs] / { flush_item() }
	/^\.Sh / { section = $2 }
	/^\.Ss / {
		where = substr($0, 5)
		if (section == "VERBS")
			print where
	}
	/^\.It Fl -/ {
		flush_item()
		name = "-" $3
		value = $5
		print where ": " name (value == "" ? "" : " " value)
	}
	/^\.It Fl o Ar KEY Ns = Ns Ar VALUE$/ { print where ": -o KEY=VALUE" }
	/^\.It Cm [a-z-]+ Ns = Ns Ar / {
		flush_item()
		if (where ~ /^Options of the .* backend$/) {
			split(where, words, " ")
			item = words[4] " " $3 "=" $8
		}
		next
	}
	item != "" && match($0, /\(default: [^()]*\)\.$/) {
		standard = substr($0, RSTART + 10, RLENGTH - 12)
	}
	END { flush_item() }' "$1"
}

manual_settings() { # FILE
	awk '
	/^\.Sh / { on = $2 == "SETTINGS" }
	on && /^\.It Cm / { if (item != "") print item; item = $3 }
	on && match($0, /\(default: [a-z0-9]+\)\.$/) {
		item = item " " substr($0, RSTART + 10, RLENGTH - 12)
	}
	END { if (item != "") print item }' "$1"
}

# States of an export stand in one table, but for that of other programs' devices.
states_say() {
	sed -nE 's/^\t\[EXPORT_[A-Z]+\] = \{ "([a-z]+)",.*/\1/p' "$source/engine/state.c"
	echo foreign
}

manual_states() { # FILE
	awk '
	/^\.S[hs] / { on = $2 == "States" }
	on && /^\.It Cm / { print $3 }' "$1"
}

# Causes of trouble, with health and cure, stand in one table.
health_says() {
	tr '\n' ' ' <"$source/engine/health.c" |
		grep -oE '\[CAUSE_[A-Z_]+\] = \{ "[^"]*", HEALTH_[A-Z]+,[[:space:]]*"[^"]*" \}' |
		sed -E 's/.*\{ "([^"]*)", HEALTH_([A-Z]+),[[:space:]]*"([^"]*)" \}/\1 \L\2\E \3/'
}

manual_health() { # FILE
	awk '
	/^\.Sh / { on = $2 == "HEALTH" }
	on && /^\.It Sy / { item = $3 " " $5 }
	on && /^Cure: / { sub(/^Cure: /, ""); sub(/\.$/, ""); print item " " $0 }' "$1"
}

document_health() { # FILE
	# shellcheck disable=SC2016 # the backticks are Markdown's
	sed -nE 's/^\| `([a-z-]+)` \| (degraded|waiting|refused|failing) \| (.*) \|$/\1 \2 \3/p' "$1"
}

manual_interface() { # FILE
	awk '
	function entry(name, type) {
		if (kind == "method" && way == "")
			print "a field without Parameters: or Results: before it: " name
		field = of way name
		print field ": " type
	}
	/^\.Sh / { kind = $2 == "TYPES" ? "type" : $2 == "METHODS" ? "method" : \
			   $2 == "ERROR" ? "error" : "" }
	kind && /^\.Ss / {
		of = $2 (kind == "method" ? "" : ".")
		way = field = ""
		print kind " " $2
	}
	kind == "method" && /^(Parameters|Results|Errors):$/ {
		way = $0 == "Parameters:" ? " in " : $0 == "Results:" ? " out " : ""
	}
	kind && /^\.It Va [A-Za-z0-9_]+ : Vt / {
		type = $0
		sub(/^\.It Va [A-Za-z0-9_]+ : Vt /, "", type)
		entry($3, type)
	}
	# The last dot of "T." belongs to a field.
	kind && /^\.It Cm / {
		name = field == "" ? of : field
		print name " = " $3
	}' "$1"
}

# Errors that the manual gives for methods.
manual_method_errors() { # FILE
	awk '
	/^\.Sh / { on = $2 == "METHODS" }
	on && /^\.It Sy / { print "error " $3 }' "$1" | sort -u
}

# Commands that a manual shows: their verbs, long options and the backends' options.
manual_commands() { # FILE
	grep -v '^\.\\"' "$1" | grep -oE "ublkctl [a-z-]+( [^'|)]*)?" | while read -r _ verb rest; do
		echo "$verb"
		# shellcheck disable=SC2086 # words
		printf '%s\n' $rest | sed -nE "s/^(--[a-z-]+)\$/$verb \1/p"
		grep -oE -- '-o [a-z-]+=' <<<"$rest" | sed 's/^/-o /; s/-o -o/-o/' || true
	done | sort -u
}

# What there is of these: lines of program_says().
known_commands() {
	sed -nE 's/^([a-z-]+)$/\1/p; s/^([a-z-]+): (--[a-z-]+)( .*)?$/\1 \2/p' "$1"
	sed -nE 's/^[a-z]+ ([a-z-]+=).*/-o \1/p' "$1"
	verbs | while read -r verb; do
		sed -nE "s/^(Options of many verbs|$exports): (--[a-z-]+)( .*)?\$/$verb \\2/p" "$1"
	done
}

same() { # PROGRAM MANUAL
	diff -u --label program --label manual <(sort "$1") <(sort "$2")
}

failed=0
program_says >"$tmp/program"
# ublkd-backend(7) has the options of backends, ublkctl(1) all others.
{
	manual_says "$build/man/ublkctl.1"
	manual_says "$source/man/ublkd-backend.7"
} >"$tmp/manual"
same "$tmp/program" "$tmp/manual" || failed=1
facts_say >"$tmp/facts"
manual_facts "$source/man/ublkd-backend.7" >"$tmp/manual-facts"
same "$tmp/facts" "$tmp/manual-facts" || failed=1
settings_say >"$tmp/settings"
manual_settings "$build/man/ublkd.conf.5" >"$tmp/manual-settings"
same "$tmp/settings" "$tmp/manual-settings" || failed=1
health_says >"$tmp/health"
[[ $(wc -l <"$tmp/health") -gt 9 ]] || { echo "the table of causes is not found"; failed=1; }
states_say >"$tmp/states"
grep -qx live "$tmp/states" || { echo "the table of states is not understood"; failed=1; }
manual_states "$build/man/ublkd.8" >"$tmp/manual-states"
same "$tmp/states" "$tmp/manual-states" || failed=1
manual_health "$build/man/ublkd.8" >"$tmp/manual-health"
same "$tmp/health" "$tmp/manual-health" || failed=1
document_health "$source/docs/operations.md" >"$tmp/document-health"
same "$tmp/health" "$tmp/document-health" || failed=1
interface_says "$source/supervisor/io.ublkd.varlink" >"$tmp/interface"
manual_interface "$build/man/io.ublkd.7" >"$tmp/manual-interface"
same "$tmp/interface" "$tmp/manual-interface" || failed=1
comm -13 <(sort "$tmp/interface") <(manual_method_errors "$build/man/io.ublkd.7") >"$tmp/no-errors"
[[ ! -s $tmp/no-errors ]] || {
	echo "methods of io.ublkd(7) have errors that the interface does not have:"
	cat "$tmp/no-errors"
	failed=1
}
help_options "$build/ublkd" | grep -vE "$common" >"$tmp/daemon" || true
sed -nE 's/^\.It Fl (-[a-z-]+)( Ar (.*))?$/-\1 \3/; s/ $//; /^--/p' "$build/man/ublkd.8" \
	>"$tmp/manual-daemon"
same "$tmp/daemon" "$tmp/manual-daemon" || failed=1

# It would tell: all of these are there, and one less is seen.
for word in 'run' 'export: --persist' 'Options of an export: --queues N|auto' \
	'nbd retain=SIZE|trust (default: 64M)' 'Options of many verbs: --json'; do
	grep -qxF -e "$word" "$tmp/program" || {
		echo "the programs' help is not understood: no '$word'"
		failed=1
	}
done
for word in 'nbd connected' 'memory limit-bytes'; do
	grep -qxF -e "$word" "$tmp/facts" || {
		echo "the facts of the backends are not understood: no '$word'"
		failed=1
	}
done
for word in 'type ExportInfo' 'ExportInfo.name: string' 'ExportInfo.origin = foreign' \
	'method Remove' 'Remove in force: ?bool' 'Resize out size: int' 'error Busy' \
	'Busy.holders: []Holder'; do
	grep -qxF -e "$word" "$tmp/interface" || {
		echo "the interface is not understood: no '$word'"
		failed=1
	}
done
grep -qx 'worker-user ublkd' "$tmp/settings" || {
	echo "the table of settings is not understood"
	failed=1
}
grep -v '^\.It Fl -persist' "$build/man/ublkctl.1" >"$tmp/less.1"
{
	manual_says "$tmp/less.1"
	manual_says "$source/man/ublkd-backend.7"
} >"$tmp/less"
! same "$tmp/program" "$tmp/less" >/dev/null || {
	echo "an option that is missing is not seen"
	failed=1
}

# ---- MESSAGE_IDs ----

sed -nE 's/^#define LOG_EVENT_[A-Z]+ *"([0-9a-f]{32})".*/\1/p' "$source/common/log.h" | sort >"$tmp/ids"
sed -nE 's/^\.It ([0-9a-f]{32})$/\1/p' "$build/man/ublkd.8" | sort >"$tmp/listed"
same "$tmp/ids" "$tmp/listed" || failed=1

# ---- how they are written ----

missing=()
for tool in groff mandoc; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
mkdir "$tmp/pages"
for page in "$source"/man/*.[1578].in; do
	made=${page##*/}
	made=${made%.in}
	! grep -nE '@[a-z_]+@' "$build/man/$made" || {
		echo "$made: a name of the template is left"
		failed=1
	}
	# With short directories: groff cannot break the line at a long path.
	sed 's|@[a-z]*dir@|/etc|g' "$page" >"$tmp/pages/$made"
done
for page in "$tmp"/pages/* "$source"/man/*.[1578]; do
	[[ ! -e $page.in ]] || continue # made by a build in the source directory
	if command -v groff >/dev/null; then
		groff -mandoc -ww -Tutf8 -z "$page" >"$tmp/said" 2>&1 || true
		[[ ! -s $tmp/said ]] || { cat "$tmp/said" && failed=1; }
	fi
	if command -v mandoc >/dev/null; then
		mandoc -T lint -W warning "$page" || failed=1
	fi
	unknown=$(comm -13 <(known_commands "$tmp/program" | sort -u) <(manual_commands "$page"))
	[[ -z $unknown ]] || {
		echo "${page##*/}: ublkctl does not have: $unknown"
		failed=1
	}
	# Who is named is there, or is no page of this project's.
	while read -r name section; do
		[[ -e $source/man/${name//\\/}.$section || -e $source/man/${name//\\/}.$section.in ]] || {
			echo "${page##*/}: there is no $name($section)"
			failed=1
		}
	done < <(sed -nE 's/^\.Xr (ublk[^ ]*) ([0-9]).*/\1 \2/p' "$page")
done
((failed == 0)) || exit 1
if ((${#missing[@]})); then
	echo "not installed: ${missing[*]}: how the manuals are written was not checked with that"
	exit 77
fi
