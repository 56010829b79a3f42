# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# checks.sh: what must not be after a test. Sourced by run-tests and system-off.

# leftovers: devices and processes that must not be there, one a line.
leftovers() {
	local file comm state
	for file in /dev/ublk[bc]*; do
		[[ ! -e $file ]] || echo "$file"
	done
	for file in /proc/[0-9]*; do
		{ read -r _ comm state _ <"$file/stat"; } 2>/dev/null || continue
		if [[ $comm == '(ublk'* && $state != Z ]]; then
			comm=${comm#(}
			echo "process ${file#/proc/} ${comm%)}"
		fi
	done
}

# complaints: what the kernel complains of in the log on the standard input. One
# splat is known and harmless: 7.2 prints it once at the first zero copy.
complaints() {
	local line
	while read -r line; do
		if [[ ! -e /run/lab/splat && $line == *'UBSAN: '*' in io_uring/rsrc.c:'* ]]; then
			: >/run/lab/splat
			continue
		fi
		echo "$line"
	done < <(grep -aE 'WARNING: |BUG: |kernel BUG at|Oops|UBSAN: |KASAN: |KCSAN: |blocked for more than|soft lockup|hard LOCKUP|detected stalls|general protection fault|page allocation failure|refcount_t:')
}

# mark NAME: begin its part of the kernel's log, which kernel_log NAME prints.
mark() { echo "lab: begin $1" >/dev/kmsg; }
kernel_log() { dmesg | awk -v mark="lab: begin $1" 'index($0, mark) { on = 1; next } on'; }
