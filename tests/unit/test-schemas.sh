#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-schemas.sh BUILD SOURCE
#
# docs/schemas has a schema for each verb that has --json, and for no other. Its types of
# io.ublkd are those of the interface. The output of the verbs that need no device matches,
# and has no property that the schema does not describe; tests/vm/json-schemas.sh has the
# other verbs. Where python3-jsonschema is installed, it agrees.
set -euo pipefail
# A configuration that a group can write is refused.
umask 022
build=$1
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
ublkctl=$build/ublkctl
json_schema=$build/tests/lab/programs/json-schema
schemas=$source/docs/schemas
# shellcheck source=tests/lib/interface.sh
. "$source/tests/lib/interface.sh"
failed=0

complain() {
	echo "$*"
	failed=1
}

"$json_schema" --check "$schemas"/*.json || complain "a schema is wrong"

# ---- verbs ----

"$ublkctl" --help | sed -nE '/^verbs:/,/^$/s/^  ([a-z-]+) .*/\1/p' >"$tmp/all"
while read -r verb; do
	! "$ublkctl" "$verb" --help </dev/null | grep -E '^  --json' >/dev/null || echo "$verb"
done <"$tmp/all" | sort >"$tmp/verbs"
(cd "$schemas" && printf '%s\n' *.json) | sed 's/\.json$//' | grep -vx io.ublkd | sort >"$tmp/schemas"
diff -u --label 'verbs with --json' --label docs/schemas "$tmp/verbs" "$tmp/schemas" || failed=1

# ---- types ----

# The errors of the interface are no output of ublkctl's.
interface_says "$source/supervisor/io.ublkd.varlink" | awk '
	/^(type|method|error) / { on = $1 == "type" }
	on' | sort >"$tmp/interface"
"$json_schema" --types "$schemas/io.ublkd.json" | sort >"$tmp/types"
diff -u --label io.ublkd.varlink --label io.ublkd.json "$tmp/interface" "$tmp/types" || failed=1
for word in 'ExportInfo.uri: ?string' 'ExportInfo.origin = foreign' 'Details.facts: [string]int'; do
	grep -qxF -e "$word" "$tmp/interface" || complain "the interface is not understood: no '$word'"
done

# ---- output ----

# matches VERB NAME: the output of VERB in the file NAME.json.
matches() {
	"$json_schema" "$schemas/$1.json" "$tmp/$2.json" >/dev/null ||
		complain "$1: the output does not match: $(<"$tmp/$2.json")"
	echo "$1 $tmp/$2.json" >>"$tmp/matched"
}

# has NAME WORDS: the output has them.
has() { grep -qF -e "$2" "$tmp/$1.json" || complain "$1: no '$2': $(<"$tmp/$1.json")"; }

"$ublkctl" backends --json >"$tmp/backends.json"
matches backends backends

mkdir -p "$tmp/right/exports.d" "$tmp/wrong/exports.d"
echo 'uri = null:1M' >"$tmp/right/exports.d/one.conf"
"$ublkctl" check-config --json "$tmp/right" >"$tmp/right.json" || true
matches check-config right
has right '"exports": 1'
printf '[ublkd]\nno-such-key = 1\n' >"$tmp/wrong/ublkd.conf"
printf 'uri = null:1M\nno-such-option = 1\n' >"$tmp/wrong/exports.d/one.conf"
: >"$tmp/wrong/exports.d/two.conf"
echo 'uri = null:1M' >"$tmp/wrong/exports.d/"$'caf\351.conf'
! "$ublkctl" check-config --json "$tmp/wrong" >"$tmp/wrong.json" || complain "errors are not seen"
matches check-config wrong
has wrong '"line": 2'
has wrong '"export": "one"'
# A name that is not UTF-8.
has wrong 'exports.d/caf'

if command -v nbdkit >/dev/null; then
	mkdir "$tmp/exports"
	truncate -s 1M "$tmp/exports/small" "$tmp/exports/large"
	nbdkit -U - file dir="$tmp/exports" \
		--run "'$ublkctl' nbd-list --json \"\$uri\"" >"$tmp/nbd.json"
	matches nbd-list nbd
	has nbd '"name": "small"'
	# A description, block sizes, an export that is refused; nbdkit expands the names.
	# shellcheck disable=SC2016
	nbdkit -U - eval list_exports='printf "INTERLEAVED\ngood\nThe \\351 one\nbad\n\n"' \
		open='[ "$3" != bad ]' get_size='echo 1M' block_size='echo 512 4096 1048576' \
		pread='head -c $3 /dev/zero' \
		--run "'$ublkctl' nbd-list --json \"\$uri\"" >"$tmp/refused.json" 2>"$tmp/nbdkit.err" ||
		complain "nbd-list fails: $(<"$tmp/nbdkit.err")"
	matches nbd-list refused
	has refused '"refused": '
	has refused '"description": "The '
	has refused '"minBlock": 512'
fi

# ---- the check itself ----

# refuses VERB JSON WORDS: that is no output of VERB, for the reason in WORDS.
refuses() {
	! "$json_schema" "$schemas/$1.json" >/dev/null 2>"$tmp/said" <<<"$2" ||
		complain "the schema of $1 takes $2"
	grep -qF -e "$3" "$tmp/said" || complain "$1: $2: '$3' is not said: $(<"$tmp/said")"
}

refuses resize '{"size": null}' 'of type null'
refuses resize '{"size": 1.5}' 'of type number'
refuses resize '{}' "no 'size'"
refuses resize '{"size": 1, "more": 2}' 'does not describe'
refuses resize '{"size": 1' "'}' expected"
refuses resize '' 'no value'
refuses list '[{"name": "a", "origin": "other", "state": "live"}]' 'none of the values'
refuses run '{"event": "middle"}' '0 of the alternatives'
refuses stats '{"name": "a", "sinceUsec": 1, "inFlight": 0, "operations": [], "errors": {"EIO": "1"},
	"facts": {}, "queues": []}' '.errors.EIO'
# no_schema SCHEMA: --check refuses it.
no_schema() {
	echo "$1" >"$tmp/no-schema.json"
	! "$json_schema" --check "$tmp/no-schema.json" 2>/dev/null || complain "$1 passes as a schema"
}
no_schema '{"type": "integer", "minimum": 1}'
no_schema '{"type": "null"}'
no_schema '{}'
# shellcheck disable=SC2016 # it is JSON's
no_schema '{"$ref": "#/$defs/Nothing"}'
no_schema '{"type": "object", "properties": {"a": {"type": "integer"}}}'
no_schema '{"type": "object", "properties": {"a-b": {"type": "integer", "description": "A number."}}}'
no_schema '{"type": "object", "required": ["a"]}'

# ---- another program's opinion ----

python=
for program in python3 /usr/bin/python3; do
	[[ -n $python ]] || ! "$program" -c 'import jsonschema' 2>/dev/null || python=$program
done
if [[ -n $python ]]; then
	"$python" -W ignore - "$schemas" "$tmp/matched" <<-'END' || failed=1
		import json, pathlib, sys
		from jsonschema import Draft202012Validator, RefResolver
		directory = pathlib.Path(sys.argv[1]).resolve()
		schemas = {f.stem: json.loads(f.read_text()) for f in directory.glob("*.json")}
		for schema in schemas.values():
		    Draft202012Validator.check_schema(schema)
		for line in open(sys.argv[2]):
		    verb, file = line.split()
		    resolver = RefResolver((directory / (verb + ".json")).as_uri(), schemas[verb])
		    Draft202012Validator(schemas[verb], resolver=resolver).validate(json.load(open(file)))
	END
else
	echo "python3-jsonschema is not here: the schemas were checked by json-schema alone"
fi

((failed == 0)) || exit 1
command -v nbdkit >/dev/null || {
	echo "nbdkit is not here: nbd-list was not checked"
	exit 77
}
