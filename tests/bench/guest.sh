#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guest.sh: what tests/bench/run has a guest do.
#
#   guest.sh SIZE WHAT ARGUMENTS... <PLAN     WHAT: count, rate, idle
#
# SIZE is of every device and file. WHAT is the function of that name, in the file
# of that name. Results come out on stdout, one a line: besides those that WHAT.sh
# tells of
#   fact NAME WORDS

words=("$@")
# Arguments of lib.sh are its parts.
if type -P nbdkit >/dev/null; then set -- nbd; else set --; fi
. /lab/lib.sh "$@"
set -- "${words[@]}"
# shellcheck source=competitors.sh
. "${0%/*}/competitors.sh"
SIZE=$(numfmt --from=iec "$1")
what=$2
shift 2
# shellcheck source=count.sh
. "${0%/*}/$what.sh"

echo "fact kernel $(uname -r)"
echo "fact fio $(fio --version)"
echo "fact cpu $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
# Room for a file of each of seven competitors.
ram_disks $((SIZE * 15 / 2))
# Who has a session of his own, as ublkd's workers have, would be scheduled as a group of
# his own: who serves is to be the only difference.
! [[ -e /proc/sys/kernel/sched_autogroup_enabled ]] || echo 0 >/proc/sys/kernel/sched_autogroup_enabled
mkdir -p /run/bench
cd /run/bench || exit
"$what" "$@"
