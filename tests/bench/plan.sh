# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# plan.sh: which competitors run which jobs. Sourced by run.

competitors=(null memory file-zero-copy file-copy brd loop raw
	kublk-null kublk-loop kublk-null-batch kublk-loop-batch)
# Not among the usual ones; measured where a pattern names them.
competitors_more=(file-user-copy worker-null worker-memory worker-file-zero-copy worker-file-copy
	poll-null poll-memory poll-file-zero-copy)

# What a competitor is compared with.
declare -A plan_references=([null]=brd [memory]=brd [file-zero-copy]='loop raw'
	[file-copy]='loop raw' [file-user-copy]='loop raw' [loop]=raw
	[worker-null]=null [worker-memory]=memory [worker-file-zero-copy]=file-zero-copy
	[worker-file-copy]=file-copy [poll-null]=null [poll-memory]=memory
	[poll-file-zero-copy]='file-zero-copy loop'
	[kublk-null]=null [kublk-loop]=file-zero-copy
	[kublk-null-batch]='null kublk-null' [kublk-loop-batch]='file-zero-copy kublk-loop')

plan_fio='--ioengine=io_uring --direct=1'

# NAME BLOCK SHORT LONG FIO...
count_jobs=(
	"randread-64 4096 2000 12000 $plan_fio --rw=randread --iodepth=64"
	"randwrite-64 4096 2000 12000 $plan_fio --rw=randwrite --iodepth=64"
	"randread-1 4096 2000 12000 $plan_fio --rw=randread --iodepth=1"
	"read-128k 131072 100 900 $plan_fio --rw=read --iodepth=16"
	"write-128k 131072 100 900 $plan_fio --rw=write --iodepth=16"
)

# NAME FIO...; NAME ends in x2 where two of fio's jobs run at once.
rate_jobs=(
	"randread-1 $plan_fio --rw=randread --bs=4k --iodepth=1"
	"randread-64 $plan_fio --rw=randread --bs=4k --iodepth=64"
	"randread-1x2 $plan_fio --rw=randread --bs=4k --iodepth=1 --numjobs=2"
	"randread-64x2 $plan_fio --rw=randread --bs=4k --iodepth=64 --numjobs=2"
	"randwrite-1 $plan_fio --rw=randwrite --bs=4k --iodepth=1"
	"randwrite-64 $plan_fio --rw=randwrite --bs=4k --iodepth=64"
	"randwrite-1x2 $plan_fio --rw=randwrite --bs=4k --iodepth=1 --numjobs=2"
	"randwrite-64x2 $plan_fio --rw=randwrite --bs=4k --iodepth=64 --numjobs=2"
	"read-128k $plan_fio --rw=read --bs=128k --iodepth=16"
	"write-128k $plan_fio --rw=write --bs=128k --iodepth=16"
)
rate_quick='randread-1 randread-64 randwrite-64 read-128k'

# Set to no where kublk cannot be had: it is then in no plan.
plan_kublk=yes

# plan_wants COMPETITOR:JOB PATTERN...: without a pattern, the usual competitors.
plan_wants() {
	local this=$1 pattern
	shift
	[[ $plan_kublk == yes || $this != kublk-* ]] || return 1
	if (($# == 0)); then
		[[ " ${competitors_more[*]} " != *" ${this%%:*} "* ]]
		return
	fi
	for pattern; do
		# shellcheck disable=SC2053 # a glob is meant
		[[ $this != $pattern ]] || return 0
	done
	return 1
}

# plan_count PATTERN...: lines as count.sh reads them.
plan_count() {
	local job name
	for job in "${count_jobs[@]}"; do
		for name in "${competitors[@]}" "${competitors_more[@]}"; do
			if plan_wants "$name:${job%% *}" "$@"; then echo "$name $job"; fi
		done
	done
}

# plan_rate QUICK PATTERN...: lines as rate.sh reads them. References come along. kublk takes part
# without its batches, and in a quick run not at all, unless a pattern names it.
plan_rate() {
	local quick=$1 job name names wanted left_out='kublk-*-batch'
	shift
	[[ $quick == no ]] || left_out='kublk-*'
	for job in "${rate_jobs[@]}"; do
		if [[ $quick == yes && " $rate_quick " != *" ${job%% *} "* ]]; then continue; fi
		wanted=' '
		for name in "${competitors[@]}" "${competitors_more[@]}"; do
			# shellcheck disable=SC2053 # a glob is meant
			if (($# == 0)) && [[ $name == $left_out ]]; then continue; fi
			if plan_wants "$name:${job%% *}" "$@"; then
				wanted+="$name ${plan_references[$name]:-} "
			fi
		done
		names=
		for name in "${competitors[@]}" "${competitors_more[@]}"; do
			if [[ $wanted == *" $name "* ]]; then names+=,$name; fi
		done
		if [[ -n $names ]]; then echo "${job%% *} ${names#,} ${job#* }"; fi
	done
}

# NBD: CLIENT@WAY, as nbd.sh has them.
nbd_clients=(ublkd kernel qemu bare)
nbd_ways=(unix tcp unix4 tcp4)

# NAME RW BLOCK DEPTH
nbd_jobs=(
	"randread-1 randread 4k 1"
	"randread-32 randread 4k 32"
	"randread-64 randread 4k 64"
	"randread-128 randread 4k 128"
	"randwrite-1 randwrite 4k 1"
	"randwrite-32 randwrite 4k 32"
	"randwrite-64 randwrite 4k 64"
	"randwrite-128 randwrite 4k 128"
	"read-128k read 128k 16"
	"write-128k write 128k 16"
)
# Without a pattern, these jobs, over one connection.
nbd_usual='randread-1 randread-128 randwrite-128 read-128k write-128k'

# NBD over several connections, on two processors; jobs in x2 are two of fio's, with half the
# depth each: all I/O of one goes through the queue of its processor.
nbd_connection_clients=(ublkd-1 ublkd-2 ublkd-4 ublkd-auto kernel-1 kernel-2 kernel-4)
nbd_connection_ways=(unix tcp single-unix single-tcp qemu-unix qemu-tcp nbdserver-tcp)
# NAME RW BLOCK DEPTH-OF-EACH JOBS
nbd_connection_jobs=(
	"randread-1 randread 4k 1 1"
	"randread-128 randread 4k 128 1"
	"randread-64x2 randread 4k 64 2"
	"randwrite-128 randwrite 4k 128 1"
	"randwrite-64x2 randwrite 4k 64 2"
	"read-128k read 128k 16 1"
	"read-128kx2 read 128k 8 2"
	"write-128k write 128k 16 1"
	"write-128kx2 write 128k 8 2"
)

# plan_nbd_connections PATTERN...: as plan_rate; nothing without a pattern.
plan_nbd_connections() {
	local line way name job rw bs depth jobs names
	(($#)) || return 0
	for way in "${nbd_connection_ways[@]}"; do
		for line in "${nbd_connection_jobs[@]}"; do
			read -r job rw bs depth jobs <<<"$line"
			names=
			for name in "${nbd_connection_clients[@]}"; do
				# Without multi-conn ublkd has one connection, and nbd-client refuses more.
				[[ $way != single-* || $name == *-1 || $name == *-auto ]] || continue
				if plan_wants "$name@$way:$job" "$@"; then names+=,$name@$way; fi
			done
			[[ -z $names ]] || echo "$job ${names#,} $plan_fio --rw=$rw --bs=$bs" \
				"--iodepth=$depth --numjobs=$jobs"
		done
	done
}

# plan_nbd_count PATTERN...: as plan_count.
plan_nbd_count() {
	local competitors=({bare,kernel,ublkd}@{unix,tcp})
	local competitors_more=(ublkd-structured@{unix,tcp} ublkd-{tls,ktls}@tcp)
	plan_count "$@"
}

# plan_nbd_rate PATTERN...: as plan_rate; a line has the clients of one way. QEMU's
# client has one connection. Four are used by four of fio's jobs: all I/O of one goes
# through the queue of its processor.
plan_nbd_rate() {
	local competitors_more=("${nbd_clients[@]/%/@unix4}" "${nbd_clients[@]/%/@tcp4}")
	local line way name job rw bs depth each split wanted names
	for line in "${nbd_jobs[@]}"; do
		read -r job rw bs depth <<<"$line"
		if (($# == 0)) && [[ " $nbd_usual " != *" $job "* ]]; then continue; fi
		for way in "${nbd_ways[@]}"; do
			each=$depth split=
			if [[ $way == *4 ]]; then
				((depth >= 4)) || continue
				each=$((depth / 4)) split=' --numjobs=4'
			fi
			wanted=' '
			for name in "${nbd_clients[@]}"; do
				if plan_wants "$name@$way:$job" "$@"; then wanted+="$name "; fi
			done
			# References come along.
			case $wanted in
			*' ublkd '* | *' qemu '*) wanted+='kernel bare ' ;;
			esac
			names=
			for name in "${nbd_clients[@]}"; do
				if [[ $name$split != qemu\ * && $wanted == *" $name "* ]]; then
					names+=,$name@$way
				fi
			done
			[[ -z $names ]] || echo "$job ${names#,} $plan_fio --rw=$rw --bs=$bs" \
				"--iodepth=$each$split"
		done
	done
}

# An NBD client alone, CLIENT@WAY, as client.sh has them.
loop_clients=(ublkd libnbd libnbd-lean ublkd-structured ublkd-trust)
loop_ways=(unix tcp null-unix null-tcp qemu-unix qemu-tcp nbdserver-unix nbdserver-tcp)

# NAME JOB BLOCK DEPTH IOS
loop_jobs=(
	"randread-1 randread 4096 1 10000"
	"randread-64 randread 4096 64 50000"
	"randwrite-1 randwrite 4096 1 10000"
	"randwrite-64 randwrite 4096 64 50000"
	"read-128k read 131072 16 4000"
	"write-128k write 131072 16 4000"
)

# plan_client PATTERN...: as plan_rate. Without a pattern over unix and tcp.
plan_client() {
	local competitors_more=(ublkd-{structured,trust}@{unix,tcp}) line way name wanted names
	for way in "${loop_ways[@]:2}"; do competitors_more+=("${loop_clients[@]/%/@$way}"); done
	for line in "${loop_jobs[@]}"; do
		for way in "${loop_ways[@]}"; do
			wanted=' '
			for name in "${loop_clients[@]}"; do
				if plan_wants "$name@$way:${line%% *}" "$@"; then wanted+="$name "; fi
			done
			# References come along.
			[[ $wanted != *' ublkd'* ]] || wanted+='libnbd libnbd-lean '
			names=
			for name in "${loop_clients[@]}"; do
				if [[ $wanted == *" $name "* ]]; then names+=,$name@$way; fi
			done
			[[ -z $names ]] || echo "${line%% *} ${names#,} ${line#* }"
		done
	done
}

# plan_idle PATTERN...: the backends whose idle devices are looked at.
plan_idle() {
	local name
	for name in null memory file; do
		if plan_wants "$name:idle" "$@"; then echo "$name"; fi
	done
}
