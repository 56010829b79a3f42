#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-hardening.sh BUILD SOURCE
#
# Each program that is installed has what the compiler and linker have against attacks,
# and names no directory of the machine that built it.
set -euo pipefail
build=$1
source=$2
failed=0

complain() {
	echo "$*"
	failed=1
}

if grep -q '^HARDEN_CFLAGS = .*-fsanitize' "$build/Makefile"; then
	echo "built with sanitizers, which take the place of what is tested here"
	exit 77
fi
prefix=$(sed -n 's/^prefix = //p' "$build/Makefile")
if grep -q '^CFLAGS = .*-fcoverage-mapping' "$build/Makefile"; then
	echo "built to report coverage, which names files by their whole paths"
	exit 77
fi
flags=$(sed -n 's/^HARDEN_CFLAGS = //p' "$build/Makefile")
for program in ublkctl ublkd ublkd-worker; do
	file=$build/$program
	readelf -hldW "$file" >"$build/$program.elf"
	grep -q 'Type: *DYN' "$build/$program.elf" || complain "$program is not position-independent"
	grep -q 'GNU_RELRO' "$build/$program.elf" || complain "$program: no RELRO"
	grep -qE 'BIND_NOW|FLAGS_1.*NOW' "$build/$program.elf" || complain "$program: not bound at start"
	grep -E 'GNU_STACK' "$build/$program.elf" | grep -q 'RW ' || complain "$program: executable stack"
	rm "$build/$program.elf"
	symbols=$(readelf --dyn-syms -W "$file")
	grep -q '__stack_chk_fail' <<<"$symbols" || complain "$program: no stack protector"
	grep -qE '__(mem|str|v?sn?printf|read|recv)[a-z]*_chk' <<<"$symbols" ||
		complain "$program: not fortified"
	# Where it is to be installed may lie below (make distcheck).
	strings -a "$file" | grep -vF "$prefix/" >"$build/$program.strings" || true
	! grep -qF "$build" "$build/$program.strings" ||
		complain "$program names the directory that it was built in"
	! grep -qF "$source" "$build/$program.strings" ||
		complain "$program names the directory of its sources"
	rm "$build/$program.strings"
done
# A program has the mark only where the C library's start files have it, too.
if [[ $flags == *-fcf-protection* ]]; then
	readelf -nW "$build/engine/queue.o" | grep -q 'IBT, SHSTK' ||
		complain "engine/queue.o: no control-flow protection"
fi
exit "$failed"
