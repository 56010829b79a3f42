/* SPDX-License-Identifier: MIT */
/*
 * The system calls of a worker, by libseccomp: what is not named here ends it.  An
 * io_uring's operations are no system calls; the queues' rings have a list of their
 * own (engine/ring.h).
 *
 * There are two filters, of which the stricter decides.  One ends the process for a
 * call that is not named.  The other refuses, with an error, a call that is named but
 * not with these arguments: libraries try things, and have another way.  The kernel
 * works out beforehand which calls both allow whatever their arguments, so that the
 * I/O path's own calls cost next to nothing.
 *
 * Names that this libseccomp or machine does not have are left out.
 */
#include "common/error.h"
#include "worker/sandbox.h"
#include "worker/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS_CALLS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LIMITS_CALLS false
#endif
#endif
#ifndef LIMITS_CALLS
#define LIMITS_CALLS true
#endif

static const char *const always[] = {
	/* memory; what could become code is below */
	"munmap", "mremap", "madvise", "brk", "mlock", "mlock2", "munlock", "mlockall",
	"munlockall", "mbind", "get_mempolicy", "mincore", "membarrier", "memfd_create",
	/* open files */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
	"pwritev2", "close", "close_range", "lseek", "_llseek", "fstat", "fstat64", "fstatfs",
	"fstatfs64", "flock", "fsync", "fdatasync", "ftruncate", "ftruncate64", "fallocate",
	"fadvise64", "dup", "pipe2", "eventfd2", "io_uring_setup", "io_uring_enter",
	"io_uring_register",
	/* paths, which lead nowhere but in the sandbox */
	"stat", "stat64", "lstat", "newfstatat", "fstatat64", "statx", "access", "faccessat",
	"faccessat2", "readlink", "readlinkat", "getcwd", "name_to_handle_at",
	/* waiting */
	"poll", "ppoll", "ppoll_time64", "select", "pselect6", "epoll_create1", "epoll_ctl",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "timerfd_create", "timerfd_settime",
	"signalfd4", "pause", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_gettime64",
	"clock_getres", "gettimeofday", "time", "restart_syscall",
	/* sockets that are there */
	"sendmsg", "sendto", "sendmmsg", "send", "recvmsg", "recvfrom", "recvmmsg", "recv",
	"shutdown", "getsockopt", "setsockopt", "getsockname", "getpeername", "accept", "accept4",
	"listen",
	/* threads and signals */
	"futex", "futex_time64", "futex_waitv", "futex_wait", "futex_wake", "set_robust_list",
	"get_robust_list", "rseq", "sched_yield", "sched_getaffinity", "sched_getparam",
	"sched_getscheduler", "getcpu", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
	"sigreturn", "rt_sigtimedwait", "rt_sigsuspend", "rt_sigpending", "sigaltstack", "exit",
	"exit_group",
	/* what it is; capset only ever drops */
	"getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid",
	"getresgid", "getgroups", "uname", "sysinfo", "getrandom", "getrlimit", "ugetrlimit",
	"getrusage", "capget", "capset",
	/* filters, which only ever take away */
	"seccomp"
};

/* With some arguments only: argument_rules(). */
static const char *const sometimes[] = { "mmap",      "mmap2",  "mprotect",
					 "clone",     "tgkill", "sched_setaffinity",
					 "prlimit64", "prctl",  "ioctl",
					 "fcntl",     "fcntl64" };

/* Where the backend opens files by itself, for reading; else there are none. */
static const char *const opening[] = { "open", "openat" };
static const char *const reading_directories[] = { "getdents64" };

static const char *const networking[] = { "socket", "connect", "bind" };

/* Libraries try these, and have another way. */
static const struct {
	const char *name;
	int code;
} refused[] = {
	{ "clone3", ENOSYS },       /* there is clone, whose flags can be seen */
	{ "openat2", ENOSYS },      /* there is openat, for the same reason */
	{ "arch_prctl", EINVAL },   /* the C library's shadow stacks */
	{ "inotify_init1", EMFILE } /* a resolver module's */
};

#define each_of(i, list) (unsigned i = 0; i < sizeof(list) / sizeof(*(list)); i++)

/* A filter that is being made; the first error stays. */
struct rules {
	scmp_filter_ctx filter;
	int error;
};

static void add_rule(struct rules *r, uint32_t action, const char *name, unsigned n,
		     const struct scmp_arg_cmp *compare)
{
	int call = seccomp_syscall_resolve_name(name), ret;

	if (call == __NR_SCMP_ERROR || r->error)
		return;
	ret = seccomp_rule_add_array(r->filter, action, call, n, compare);
	/* EACCES: it is what the filter does anyway. */
	if (ret && ret != -EACCES)
		r->error = ret;
}

static void add_all(struct rules *r, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add_rule(r, SCMP_ACT_ALLOW, names[i], 0, NULL);
}

#define add_list(r, list) add_all(r, list, sizeof(list) / sizeof(*(list)))

/* Where argument `arg`, masked, is value. */
static void allow_masked(struct rules *r, const char *name, unsigned arg, uint64_t mask,
			 uint64_t value)
{
	struct scmp_arg_cmp compare = SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);

	add_rule(r, SCMP_ACT_ALLOW, name, 1, &compare);
}

/* Where the argument, of 32 bits in the kernel's eyes, is value. */
static void allow_word(struct rules *r, const char *name, unsigned arg, uint32_t value)
{
	allow_masked(r, name, arg, UINT32_MAX, value);
}

static void argument_rules(struct rules *r)
{
	static const uint32_t prctls[] = { PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ,
					   PR_SET_NO_NEW_PRIVS };
	static const uint32_t ioctls[] = { BLKROGET, BLKSSZGET,    BLKPBSZGET,
					   BLKIOOPT, BLKGETSIZE64, FIONREAD };
	static const uint64_t spaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
				       CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
	/*
	 * No F_SETOWN and no F_SETSIG: with them the kernel sends any signal to any process
	 * of the same user, which all workers are.
	 */
	static const uint32_t fcntls[] = { F_DUPFD,     F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,
					   F_GETFL,     F_SETFL,         F_GETLK,     F_SETLK,
					   F_OFD_GETLK, F_OFD_SETLK,     F_ADD_SEALS, F_GET_SEALS,
					   F_GETPIPE_SZ };
	struct scmp_arg_cmp own_limits[] = { SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, 0),
					     SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, UINT64_MAX, 0) };

	/* No memory becomes code. */
	allow_masked(r, "mmap", 2, PROT_EXEC, 0);
	allow_masked(r, "mmap2", 2, PROT_EXEC, 0);
	allow_masked(r, "mprotect", 2, PROT_EXEC, 0);
	allow_masked(r, "clone", 0, CLONE_THREAD | CLONE_VFORK | spaces, CLONE_THREAD);
	allow_word(r, "tgkill", 0, (uint32_t)getpid());
	allow_word(r, "sched_setaffinity", 0, 0);
	add_rule(r, SCMP_ACT_ALLOW, "prlimit64", 2, own_limits);
	for
		each_of(i, prctls) allow_word(r, "prctl", 0, prctls[i]);
	for
		each_of(i, ioctls) allow_word(r, "ioctl", 1, ioctls[i]);
	for
		each_of(i, fcntls)
		{
			allow_word(r, "fcntl", 1, fcntls[i]);
			allow_word(r, "fcntl64", 1, fcntls[i]);
		}
}

static void opening_rules(struct rules *r, bool opens)
{
	const uint64_t writes = O_ACCMODE | O_CREAT | O_TRUNC;

	if (opens) {
		allow_masked(r, "open", 1, writes, O_RDONLY);
		allow_masked(r, "openat", 2, writes, O_RDONLY);
		add_list(r, reading_directories);
		return;
	}
	for
		each_of(i, opening) add_rule(r, SCMP_ACT_ERRNO(ENOENT), opening[i], 0, NULL);
}

static void network_rules(struct rules *r, bool names)
{
	struct scmp_arg_cmp routes[] = { SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, AF_NETLINK),
					 SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, UINT32_MAX,
						    NETLINK_ROUTE) };

	allow_word(r, "socket", 0, AF_INET);
	allow_word(r, "socket", 0, AF_INET6);
	allow_word(r, "socket", 0, AF_VSOCK);
	/* Which addresses this host has decides about the order of the others'. */
	add_rule(r, SCMP_ACT_ALLOW, "socket", 2, routes);
	/* A resolver that is a daemon of this host. */
	if (names)
		allow_word(r, "socket", 0, AF_UNIX);
	add_rule(r, SCMP_ACT_ALLOW, "connect", 0, NULL);
	add_rule(r, SCMP_ACT_ALLOW, "bind", 0, NULL);
}

/* Makes a filter; load_it() releases it. */
static void begin_filter(struct rules *r, uint32_t otherwise)
{
	*r = (struct rules){ .filter = seccomp_init(otherwise) };
	if (!r->filter) {
		r->error = -ENOMEM;
		return;
	}
	seccomp_attr_set(r->filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* By number, in few steps. */
	seccomp_attr_set(r->filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
}

static int load(struct rules *r, struct error *err)
{
	if (!r->error)
		r->error = seccomp_load(r->filter);
	seccomp_release(r->filter);
	return r->error ? error_set(err, r->error, "cannot install the seccomp filter: %s",
				    strerror(-r->error))
			: 0;
}

static int name_calls(const struct sandbox_needs *needs, struct error *err)
{
	struct rules r;

	begin_filter(&r, SCMP_ACT_KILL_PROCESS);
	add_list(&r, always);
	add_list(&r, sometimes);
	add_list(&r, opening);
	if (needs->opens)
		add_list(&r, reading_directories);
	if (needs->network)
		add_list(&r, networking);
	for
		each_of(i, refused) add_rule(&r, SCMP_ACT_ALLOW, refused[i].name, 0, NULL);
	return load(&r, err);
}

static int limit_arguments(const struct sandbox_needs *needs, struct error *err)
{
	struct rules r;

	begin_filter(&r, SCMP_ACT_ERRNO(EPERM));
	add_list(&r, always);
	argument_rules(&r);
	opening_rules(&r, needs->opens);
	if (needs->network)
		network_rules(&r, needs->names);
	for
		each_of(i, refused) add_rule(&r, SCMP_ACT_ERRNO((uint32_t)refused[i].code),
					     refused[i].name, 0, NULL);
	return load(&r, err);
}

bool sandbox_limits_calls(void)
{
	return LIMITS_CALLS;
}

int sandbox_limit_calls(const struct sandbox_needs *needs, struct error *err)
{
	int ret;

	if (!LIMITS_CALLS)
		return 0;
	ret = limit_arguments(needs, err);
	return ret ? ret : name_calls(needs, err);
}

int sandbox_seal(struct error *err)
{
	static const char *const over[] = { "io_uring_setup", "clone", "seccomp" };
	struct rules r;

	if (!LIMITS_CALLS)
		return 0;
	begin_filter(&r, SCMP_ACT_ALLOW);
	if (!r.error)
		r.error = seccomp_attr_set(r.filter, SCMP_FLTATR_CTL_TSYNC, 1);
	for
		each_of(i, over) add_rule(&r, SCMP_ACT_KILL_PROCESS, over[i], 0, NULL);
	return load(&r, err);
}
