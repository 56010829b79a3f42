# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# qemu.sh: one virtual machine: how it is started and how it is ended. Sourced
# by run and shell.
#
# Three serial ports lead out of the guest besides the console, each a file or
# FIFO of this machine: out and err carry what a program prints, result carries
# the lab's own lines. The console carries the kernel's words only.

qemu_program=qemu-system-x86_64

# What makes an emulated machine start programs and copy data in half the time.
# -cx16: with it one boot in seven dies in an emulated cmpxchg16b.
# -erms: with it the kernel copies byte by byte, as the emulator carries it out.
# The others are looked at with each access to memory.
qemu_emulated_cpu=max,-cx16,-erms,-smap,-smep,-la57,-pku
# norandmaps: the emulator translates a program anew for each address that it is
# loaded at. The others zero memory and look for hung processors.
qemu_emulated_append=' norandmaps init_on_alloc=0 randomize_kstack_offset=off nowatchdog'

# qemu_accel KERNEL: kvm where it runs an ordinary kernel, else tcg. It is tried
# once a boot of this machine: the kernel prints its first line within seconds
# or never does.
qemu_accel() {
	local memo out pid i
	if [[ -n ${LAB_ACCEL:-} ]]; then
		echo "$LAB_ACCEL"
		return
	fi
	if [[ ! -w /dev/kvm ]]; then
		echo tcg
		return
	fi
	memo=${XDG_CACHE_HOME:-$HOME/.cache}/ublkd/accel-$(</proc/sys/kernel/random/boot_id)
	if [[ ! -s $memo ]]; then
		mkdir -p "${memo%/*}"
		rm -f "${memo%/*}"/accel-*
		out=$(mktemp)
		timeout -k 2 12 $qemu_program -accel kvm -cpu max -m 256 -nographic -no-reboot \
			-nic none -kernel "$1/vmlinuz" -append 'console=ttyS0 panic=-1' \
			</dev/null >"$out" 2>&1 &
		pid=$!
		# Without a root the kernel panics, which ends the machine: all went well.
		for ((i = 0; i < 40; i++)); do
			kill -0 $pid 2>/dev/null || break
			sleep 0.25
		done
		kill $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		if grep -aq 'Kernel panic - not syncing: VFS' "$out"; then
			echo kvm
		else
			echo tcg
		fi >"$memo.$$"
		mv "$memo.$$" "$memo"
		rm -f "$out"
	fi
	cat "$memo"
}

# qemu_exec KERNEL INITRD ARGS...: become the machine. ARGS are qemu's. LAB_BOUND
# is how many seconds it may live (0: no bound); when they are over the status is
# 124. LAB_APPEND goes to the kernel's command line, LAB_SMP and LAB_MEM are
# processors and MiB, LAB_ICOUNT=yes makes guest time count instructions, on one
# processor.
qemu_exec() {
	local kernel=$1 initrd=$2 accel cpu=max smp=${LAB_SMP:-2} args=()
	local append="console=ttyS0 panic=-1 quiet mitigations=off"
	shift 2
	accel=$(qemu_accel "$kernel")
	if [[ ${LAB_ICOUNT:-no} == yes ]]; then
		accel=icount
	fi
	case $accel in
	kvm) args+=(-accel kvm) ;;
	tcg) args+=(-accel 'tcg,thread=multi') cpu=$qemu_emulated_cpu ;;
	icount) args+=(-accel 'tcg,thread=single' -icount 'shift=0,sleep=off')
		cpu=$qemu_emulated_cpu smp=1 ;;
	esac
	[[ $accel == kvm ]] || append+=$qemu_emulated_append
	exec timeout --foreground -k 5 "${LAB_BOUND:-0}" $qemu_program "${args[@]}" -cpu "$cpu" -smp "$smp" -m "${LAB_MEM:-2048}" \
		-no-reboot -nic none -display none -monitor none \
		-kernel "$kernel/vmlinuz" -initrd "$initrd" \
		-append "$append ${LAB_APPEND:-}" "$@"
}

# qemu_port NAME PATH: arguments that lead a named port of the guest to a file.
# The first call must be preceded by -device virtio-serial.
qemu_port() {
	printf '%s\n' -chardev "file,id=$1,path=$2" \
		-device "virtserialport,chardev=$1,name=lab.$1"
}

# qemu_disk FILE: arguments for a virtio disk that the guest sees as /dev/vda, ...
qemu_disk() {
	local id
	id=disk$(basename "$1" | tr -dc '[:alnum:]')
	printf '%s\n' -drive "file=$1,if=none,id=$id,format=raw,cache=unsafe,aio=threads,discard=unmap" \
		-device "virtio-blk-pci,drive=$id"
}

# qemu_end PID: end a machine that this process started, and wait for it.
qemu_end() {
	local i
	kill "$1" 2>/dev/null || return 0
	for ((i = 0; i < 100; i++)); do
		kill -0 "$1" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}
