#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-abi-names.sh BUILD SOURCE
#
# The comparison of test-abi misses nothing: every macro and struct of the
# system's <linux/ublk_cmd.h> is in tests/unit/system-abi.c, or among those below
# that say nothing which the engine could get wrong.
set -euo pipefail
source=$2
build=$1
table=$source/tests/unit/system-abi.c
newest=$((7 << 16 | 2 << 8 | 255)) # Linux 7.2, which engine/ublk_abi.h states

left_out='
UBLK_AUTO_BUF_REG_F_MASK UBLK_CMD_BUF_OFFSET UBLKSRV_CMD_BUF_OFFSET
UBLK_IO_BUF_OFF UBLK_IO_BUF_BITS_MASK UBLK_TAG_BITS UBLK_TAG_BITS_MASK
UBLK_QID_BITS UBLK_QID_BITS_MASK UBLKSRV_IO_BUF_TOTAL_BITS
UBLKSRV_IO_BUF_TOTAL_SIZE UBLK_INTEGRITY_FLAG_OFF UBLK_MIN_SEGMENT_SIZE
UBLK_SHMEM_BUF_READ_ONLY UBLK_SHMEM_ZC_OFF_MASK UBLK_SHMEM_ZC_IDX_OFF
UBLK_SHMEM_ZC_IDX_MASK
'

cc=$(sed -n 's/^CC = //p' "$build/Makefile")
preprocess() { # OPTION...
	# shellcheck disable=SC2086 # a compiler may be named with options
	${cc:-cc} -E "$@" -include linux/version.h -include linux/ublk_cmd.h - </dev/null
}

macros=$(preprocess -dM | sed -nE 's/^#define (UBLK(SRV)?_[A-Z0-9_]+) .*/\1/p' | sort)
structs=$(preprocess | sed -nE 's/^struct (ublk\w*) \{.*/\1/p' | sort)
version=$(preprocess -dM | sed -n 's/^#define LINUX_VERSION_CODE //p')
[[ -n $macros && -n $structs && -n $version ]]

# Prints the names of the arguments that the table lacks.
lacking() { # NAME...
	local name
	for name in "$@"; do
		if ! grep -qE "(FACT|SIZE|AT)[(]${name}[,)]" "$table" &&
			! grep -qw "$name" <<<"$left_out"; then
			echo "$name"
		fi
	done
}

# It would see a name that is not there.
[[ $(lacking UBLK_NO_SUCH_THING UBLK_CMD_ADD_DEV ublk_params) == UBLK_NO_SUCH_THING ]]

# shellcheck disable=SC2086 # names are words
missing=$(lacking $macros $structs)
if [[ -z $missing ]]; then
	exit 0
fi
echo "not in tests/unit/system-abi.c: ${missing//$'\n'/ }"
if ((version > newest)); then
	echo "the system's header is newer than Linux 7.2, and has more than is known here"
	exit 77
fi
exit 1
