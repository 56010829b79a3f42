#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-layers.sh BUILD SOURCE
#
# Who may include whom, and what may stand only in one place. Prints each breach
# as "FILE: what it is"; the end of this script breaks every rule in a small tree
# of its own and sees that each breach is told.
set -euo pipefail
source=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Headers of common/ may be included everywhere. The engine's that a directory may
# include, without .h (what those include themselves comes with them):
backends_may='backend health ring_op'
control_may='ublk_abi attribute control device device_list holders spec state params counters backend health ring_policy'
supervisor_may="$control_may io_path host_local"
worker_may='ring_policy backend health spec serve counters state io_path ublk_abi'
tools_may="$control_may buffer standalone host_local"
# Those that start a device by themselves, while there is no daemon to do it.
tools_with_standalone='tools/run.c'

# The C of a file without its comments.
code() { # FILE
	awk '
	{
		line = $0
		out = ""
		while (line != "") {
			if (inside) {
				end = index(line, "*/")
				if (!end)
					break
				line = substr(line, end + 2)
				inside = 0
				continue
			}
			begin = index(line, "/*")
			if (!begin) {
				out = out line
				break
			}
			out = out substr(line, 1, begin - 1)
			line = substr(line, begin + 2)
			inside = 1
		}
		print out
	}' "$1"
}

includes() { # FILE: one a line, with its quotes or brackets
	code "$1" | sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*([<"][^>"]*[>"]).*/\1/p'
}

is_one_of() { # WORD LIST
	[[ " $2 " == *" $1 "* ]]
}

# Whether DIRECTORY's file FILE may include the header NAME, as written.
may_include() { # DIRECTORY FILE NAME
	local directory=$1 file=$2 name=$3 header
	case $name in
	'<linux/ublk_cmd.h>') return 1 ;;
	'<liburing'*) [[ $directory == engine ]] && return 0 || return 1 ;;
	'<'*) return 0 ;;
	'"config.h"' | '"common/'*) return 0 ;;
	'"engine/'*) ;;
	"\"$directory/"*'.h"') return 0 ;;
	'"worker/conditions.h"' | '"worker/link.h"' | '"worker/limits.h"' | '"worker/owner.h"') [[ $directory == supervisor ]] && return 0 || return 1 ;;
	'"varlink/varlink.h"' | '"varlink/idl.h"') [[ $directory == supervisor ]] && return 0 || return 1 ;;
	'"supervisor/settings.h"' | '"supervisor/name.h"' | '"supervisor/describe_counters.h"' | \
		'"supervisor/describe_device.h"' | '"supervisor/describe_offline.h"')
		[[ $directory == tools ]] && return 0 || return 1
		;;
	*) return 1 ;;
	esac
	header=${name#\"engine/}
	header=${header%.h\"}
	case $directory in
	engine) return 0 ;;
	backends) is_one_of "$header" "$backends_may" ;;
	supervisor) is_one_of "$header" "$supervisor_may" ;;
	worker) is_one_of "$header" "$worker_may" ;;
	tools)
		is_one_of "$header" "$tools_may" || return 1
		[[ $header != standalone ]] || is_one_of "$file" "$tools_with_standalone"
		;;
	*) return 1 ;;
	esac
}

check_includes() {
	local directory file name
	for directory in common engine backends varlink supervisor worker tools; do
		for file in "$directory"/*.[ch] "$directory"/*/*.[ch]; do
			while IFS= read -r name; do
				may_include "$directory" "$file" "$name" ||
					echo "$file: $directory/ may not include $name"
			done < <(includes "$file")
		done
	done
}

# What backend.h pulls in is what backends see: it must stay that little.
check_backend_view() {
	local file=engine/backend.h name
	while IFS= read -r name; do
		case $name in
		'<'* | '"common/'*) ;;
		*) is_one_of "$(basename "${name//\"/}" .h)" "$backends_may" ||
			echo "$file: backends would see $name" ;;
		esac
	done < <(includes "$file")
	while IFS= read -r name; do
		[[ $name != *liburing* ]] || echo "$file: backends would see $name"
	done < <(for name in $backends_may; do includes "engine/$name.h"; done)
}

check_numbers() {
	local file
	for file in {common,engine,backends,backends/*,varlink,supervisor,worker,tools}/*.[ch]; do
		[[ $file != engine/ublk_abi.h ]] || continue
		if code "$file" | grep -qiE "_IO(R|W|WR)?\('u'|0x[c8]0[0-9a-f]{2}75[0-9a-f]{2}\b|\bUBLK_U_"; then
			echo "$file: numbers of the kernel's ublk stand in engine/ublk_abi.h only"
		fi
		# /dev/ublk/ is ublkd's own directory.
		if code "$file" | grep -qE '"/dev/ublk[^/"]'; then
			echo "$file: names of the kernel's ublk stand in engine/ublk_abi.h only"
		fi
	done
}

# A verb is tools/NAME.c, and nothing else defines it.
check_verbs() {
	local file verb
	for file in tools/*.c; do
		while IFS= read -r verb; do
			[[ $file == "tools/${verb//_/-}.c" ]] ||
				echo "$file: the verb $verb has a file of its own"
		done < <(code "$file" | sed -nE 's/^const struct verb verb_(\w+) = .*/\1/p')
	done
	while IFS= read -r verb; do
		[[ -e tools/${verb//_/-}.c ]] || echo "tools/verbs.h: the verb $verb has no file"
	done < <(code tools/verbs.h | tr '\n' ' ' | grep -oE 'extern const struct verb [^;]*' |
		grep -oE 'verb_\w+' | sed 's/^verb_//')
}

# The engine knows no backend, but that a bare path is a file.
check_schemes() {
	local file scheme
	while IFS= read -r scheme; do
		for file in engine/*.[ch]; do
			if code "$file" | sed 's/scheme ? scheme : "file"//g' | grep -qF "\"$scheme\""; then
				echo "$file: the engine names the backend $scheme"
			fi
		done
		[[ -e backends/$scheme.c || -e backends/$scheme/$scheme.c ]] ||
			echo "backends/: $scheme is not in a file or directory of its name"
	done < <(sed -nE 's/^[[:space:]]*\.scheme = "(.*)",.*/\1/p' backends/*.c backends/*/*.c)
}

# A backend of several files lists its parts in NAME/NAME.h, and each calls only those above
# it: the header with the shared data aside, no part includes the header of one below.
check_parts() {
	local dir shared file name part parts i
	local -A at
	for dir in backends/*/; do
		dir=${dir%/}
		shared=$dir/${dir##*/}.h
		[[ -e $shared ]] || continue
		at=()
		i=0
		mapfile -t parts < <(sed -nE 's/^ \*   ([a-z]+)  .*/\1/p' "$shared")
		for part in "${parts[@]}"; do
			at[$part]=$((++i))
		done
		for file in "$dir"/*.[ch]; do
			part=$(basename "${file%.*}")
			if [[ ! ${at[$part]:-} ]]; then
				echo "$file: $shared does not list it"
				continue
			fi
			while IFS= read -r name; do
				name=${name//\"/}
				[[ $name == "$dir/"* && $name != "$shared" ]] || continue
				name=$(basename "$name" .h)
				((${at[$name]:-$i} <= at[$part])) || echo "$file: calls $name, which stands below it"
			done < <(includes "$file")
		done
	done
}

check() { # TREE
	(
		shopt -s nullglob
		cd "$1"
		check_includes
		check_backend_view
		check_numbers
		check_verbs
		check_schemes
		check_parts
	)
}

# ---- every rule, broken ----

bad=$tmp/bad
mkdir -p "$bad"/{common,varlink,engine,backends/tape,varlink,supervisor,tools}
cat >"$bad/engine/backend.h" <<'X'
#include "engine/ring.h"
X
touch "$bad"/engine/{health,ring_op}.h
echo '#include "engine/backend.h"' >"$bad/common/up.c"
echo '#include "engine/backend.h"' >"$bad/varlink/up.c"
cat >"$bad/engine/up.c" <<'X'
/* #include "tools/in-a-comment.h" */
#include "backends/x.h"
#include "tools/x.h"
#include "supervisor/x.h"
#include "x.h"
X
cat >"$bad/engine/abi.c" <<'X'
#include <linux/ublk_cmd.h>
X
echo 'int x = _IOWR('"'u'"', 0x20, int);' >"$bad/engine/ioctl.c"
echo 'int x = 0xc0207504;' >"$bad/engine/code.c"
echo 'char x[] = "/dev/ublk-control";' >"$bad/tools/path.c"
echo 'char x[] = "disk";' >"$bad/engine/scheme.c"
cat >"$bad/backends/disk.c" <<'X'
#include "engine/queue.h"
#include  <liburing.h>
	.scheme = "disk",
	.scheme = "tape",
X
echo '#include "engine/queue.h"' >"$bad/backends/tape/reel.c"
printf ' *   reel  turns\n *   drive  reads\n *   tape  the backend\n' >"$bad/backends/tape/tape.h"
printf '#include "backends/tape/%s.h"\n' tape reel drive >"$bad/backends/tape/reel.h"
touch "$bad/backends/tape/label.c"
echo '#include "engine/queue.h"' >"$bad/supervisor/queue.c"
echo '#include "engine/standalone.h"' >"$bad/supervisor/standalone.c"
echo '#include "engine/ring.h"' >"$bad/tools/ring.c"
echo '#include "engine/standalone.h"' >"$bad/tools/standalone.c"
echo 'const struct verb verb_copy = {' >"$bad/tools/paste.c"
echo 'extern const struct verb verb_paste, verb_cut;' >"$bad/tools/verbs.h"

cat >"$tmp/expected" <<'X'
backends/: tape is not in a file or directory of its name
backends/disk.c: backends/ may not include "engine/queue.h"
backends/disk.c: backends/ may not include <liburing.h>
backends/tape/label.c: backends/tape/tape.h does not list it
backends/tape/reel.h: calls drive, which stands below it
backends/tape/reel.c: backends/ may not include "engine/queue.h"
common/up.c: common/ may not include "engine/backend.h"
engine/abi.c: engine/ may not include <linux/ublk_cmd.h>
engine/backend.h: backends would see "engine/ring.h"
engine/code.c: numbers of the kernel's ublk stand in engine/ublk_abi.h only
engine/ioctl.c: numbers of the kernel's ublk stand in engine/ublk_abi.h only
engine/scheme.c: the engine names the backend disk
engine/up.c: engine/ may not include "backends/x.h"
engine/up.c: engine/ may not include "supervisor/x.h"
engine/up.c: engine/ may not include "tools/x.h"
engine/up.c: engine/ may not include "x.h"
supervisor/standalone.c: supervisor/ may not include "engine/standalone.h"
supervisor/queue.c: supervisor/ may not include "engine/queue.h"
tools/standalone.c: tools/ may not include "engine/standalone.h"
tools/paste.c: the verb copy has a file of its own
tools/path.c: names of the kernel's ublk stand in engine/ublk_abi.h only
tools/ring.c: tools/ may not include "engine/ring.h"
tools/verbs.h: the verb cut has no file
varlink/up.c: varlink/ may not include "engine/backend.h"
X
if ! diff -u <(LC_ALL=C sort "$tmp/expected") <(check "$bad" | LC_ALL=C sort); then
	echo "the check does not tell what is wrong with a tree that breaks every rule"
	exit 1
fi

# ---- the tree itself ----

check "$source" >"$tmp/found"
cat "$tmp/found"
[[ ! -s $tmp/found ]]
