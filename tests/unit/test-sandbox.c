/* SPDX-License-Identifier: MIT */
/*
 * A worker's sandbox: what is not to be had in it, and that backends work in it.
 * Each case is a child that enters it; what the child must not open itself a broker
 * outside opens for it, as ublkd does.
 */
#include "engine/host_local.h"
#include "common/log.h"
#include "tests/unit/remote.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "worker/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

#define WORKER     65534 /* nobody's number is as good as another */
#define NOT_ROOT   77
#define REFUSED    78 /* the sandbox could not be entered */
#define PATIENCE_S 60

/* ---- the broker: it has the rights ---- */

struct wish {
	char what; /* open, remove, connect */
	int flags;
	unsigned mode;
	char path[512];
};

static int broker = -1; /* the child's end */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void send_result(int socket, int result)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { .iov_base = &result, .iov_len = sizeof(result) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

	if (result >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
						       .cmsg_level = SOL_SOCKET,
						       .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &result, sizeof(result));
	}
	sendmsg(socket, &m, MSG_NOSIGNAL);
}

static void broker_main(int socket, struct instance *instance)
{
	struct wish wish;
	int result;

	while (recv(socket, &wish, sizeof(wish), 0) == sizeof(wish)) {
		result = -EPERM;
		if (wish.what == 'o' && host_may_open(instance, wish.path, wish.flags, wish.mode))
			result = host_here.open_file(instance, wish.path, wish.flags, wish.mode);
		else if (wish.what == 'c' && host_may_connect(instance, wish.path))
			result = host_here.connect_unix(instance, wish.path);
		else if (wish.what == 'r' && host_may_remove(instance, wish.path))
			host_here.remove_file(instance, wish.path);
		send_result(socket, result);
		if (result >= 0)
			close(result);
	}
	_exit(0);
}

static int ask(const struct wish *wish)
{
	char control[CMSG_SPACE(sizeof(int))];
	int result = -EIO;
	struct iovec data = { .iov_base = &result, .iov_len = sizeof(result) };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };

	pthread_mutex_lock(&one_at_a_time);
	if (send(broker, wish, sizeof(*wish), MSG_NOSIGNAL) == sizeof(*wish) &&
	    recvmsg(broker, &m, MSG_CMSG_CLOEXEC) == sizeof(result) && result >= 0)
		memcpy(&result, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(result));
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

static int ask_open(struct instance *instance, const char *path, int flags, unsigned mode)
{
	struct wish wish = { .what = 'o', .flags = flags, .mode = mode };

	(void)instance;
	snprintf(wish.path, sizeof(wish.path), "%s", path);
	return ask(&wish);
}

static void ask_remove(struct instance *instance, const char *path)
{
	struct wish wish = { .what = 'r' };

	(void)instance;
	snprintf(wish.path, sizeof(wish.path), "%s", path);
	ask(&wish);
}

static int ask_connect(const struct instance *instance, const char *path)
{
	struct wish wish = { .what = 'c' };

	(void)instance;
	snprintf(wish.path, sizeof(wish.path), "%s", path);
	return ask(&wish);
}

static int keep_memory(struct instance *instance, unsigned flags)
{
	return host_here.keep_memory(instance, flags);
}

static const struct backend_host elsewhere = {
	.open_file = ask_open,
	.remove_file = ask_remove,
	.keep_memory = keep_memory,
	.connect_unix = ask_connect,
};

/* ---- a child in the sandbox ---- */

typedef int child_body(struct served *s);

static const void *given; /* what a test tells its child */

static void start_broker(struct instance *instance)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		_exit(1);
	pid = fork();
	if (pid < 0)
		_exit(1);
	if (!pid) {
		close(pair[0]);
		broker_main(pair[1], instance);
	}
	close(pair[1]);
	broker = pair[0];
}

static void be_child(const char *words, child_body *body)
{
	struct served s;
	struct instance instance;
	struct error err;

	bound_time(PATIENCE_S);
	fake_start(&fake_linux_7_2);
	served_open(&s, words);
	spec_to_instance(&s.spec, &instance);
	start_broker(&instance);
	if (sandbox_enter(&(struct sandbox){ .uid = WORKER, .gid = WORKER, .instance = &instance },
			  &err)) {
		fprintf(stderr, "%s: %s\n", words, err.text);
		_exit(REFUSED);
	}
	_exit(body(&s));
}

/* How a child of `words` that does body in the sandbox ends: a status of waitpid(). */
static int status_of(const char *words, child_body *body)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		be_child(words, body);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void succeeds(const char *words, child_body *body)
{
	int status = status_of(words, body);

	if (status)
		fail_msg("%s: status %#x (signal %d, exit %d)", words, status, WTERMSIG(status),
			 WEXITSTATUS(status));
}

/* ---- what is not to be had ---- */

static int opens_a_host_file(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static int opens_proc(void)
{
	return open("/proc/self/status", O_RDONLY | O_CLOEXEC);
}

static int makes_a_file(void)
{
	return open("/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static int writes_a_device(void)
{
	return open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static int makes_a_directory(void)
{
	return mkdir("/new", 0700);
}

static int makes_a_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int makes_a_packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static int executes(void)
{
	char *const argv[] = { (char *)(uintptr_t) "sh", NULL };

	return execve("/bin/sh", argv, NULL);
}

static int forks(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(0);
	return pid;
}

static int mounts(void)
{
	return mount("x", "/dev", "tmpfs", 0, NULL);
}

static int leaves_its_namespace(void)
{
	return unshare(CLONE_NEWUSER);
}

static int signals_its_parent(void)
{
	return kill(getppid(), 0);
}

/* The filter's own refusal: the kernel would find no such process. */
static int is_filtered(long ret)
{
	return ret < 0 && errno == EPERM ? -1 : 0;
}

static int signals_a_thread_elsewhere(void)
{
	return is_filtered(syscall(SYS_tgkill, INT_MAX, INT_MAX, 0));
}

static int reads_limits_elsewhere(void)
{
	struct rlimit limit;

	return is_filtered(syscall(SYS_prlimit64, INT_MAX, RLIMIT_CORE, NULL, &limit));
}

static int makes_a_socket_of_a_rare_kind(void)
{
	return is_filtered(socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

/* Signals of other processes, by what a descriptor does when it becomes ready. */
static int aims_signals_at_its_parent(void)
{
	int pair[2];

	if (pipe(pair))
		return 0;
	return fcntl(pair[0], F_SETOWN, getppid());
}

static int chooses_the_signal(void)
{
	int pair[2];

	if (pipe(pair))
		return 0;
	return fcntl(pair[0], F_SETSIG, SIGKILL);
}

static int reads_its_parent(void)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)(uintptr_t)&given, 1 };

	return (int)syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0);
}

static int gets_hold_of_its_parent(void)
{
	return (int)syscall(SYS_pidfd_open, getppid(), 0);
}

static int opens_by_handle(void)
{
	return (int)syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, O_RDONLY);
}

static int traces(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int becomes_root(void)
{
	return setuid(0);
}

static int makes_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED
		       ? -1
		       : 0;
}

static int turns_data_into_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static int types_into_a_terminal(void)
{
	return ioctl(0, TIOCSTI, "x");
}

static int raises_its_limits(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	return setrlimit(RLIMIT_CORE, &all);
}

static int tries(struct served *s)
{
	int (*const *act)(void) = given;

	(void)s;
	return (*act)() < 0 ? 0 : 1;
}

static void test_forbidden_actions_fail(void **state)
{
	static const struct {
		int (*act)(void);
		const char *words;
		bool ends; /* its process, where calls are limited */
	} cases[] = {
		{ opens_a_host_file, "memory:1M", false },
		{ opens_a_host_file, "null:1M", false },
		{ opens_proc, "null:1M", false },
		{ makes_a_file, "null:1M", false },
		{ makes_a_directory, "null:1M", true },
		{ makes_a_packet_socket, "nbd://127.0.0.1/", false },
		{ executes, "memory:1M", true },
		{ executes, "nbd://127.0.0.1/", true },
		{ mounts, "memory:1M", true },
		{ becomes_root, "memory:1M", true },
		{ raises_its_limits, "memory:1M", false },
	};
	static const struct {
		int (*act)(void);
		const char *words;
		bool ends;
	} by_calls[] = {
		{ makes_a_socket, "memory:1M", true },
		{ makes_a_socket, "nbd+unix:///?socket=/x", true },
		{ writes_a_device, "null:1M", false },
		{ forks, "memory:1M", false },
		{ signals_its_parent, "memory:1M", true },
		{ signals_a_thread_elsewhere, "memory:1M", false },
		{ reads_limits_elsewhere, "memory:1M", false },
		{ makes_a_socket_of_a_rare_kind, "nbd://127.0.0.1/", false },
		{ traces, "memory:1M", true },
		{ aims_signals_at_its_parent, "memory:1M", false },
		{ chooses_the_signal, "memory:1M", false },
		{ reads_its_parent, "memory:1M", true },
		{ gets_hold_of_its_parent, "memory:1M", true },
		{ opens_by_handle, "memory:1M", true },
		{ leaves_its_namespace, "memory:1M", true },
		{ makes_code, "memory:1M", false },
		{ turns_data_into_code, "memory:1M", false },
		{ types_into_a_terminal, "memory:1M", false },
	};
	int status;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		given = &cases[i].act;
		status = status_of(cases[i].words, tries);
		if (cases[i].ends && sandbox_limits_calls()
			    ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS
			    : status != 0)
			fail_msg("case %u, %s: %#x", i, cases[i].words, status);
	}
	for (unsigned i = 0; sandbox_limits_calls() && i < sizeof(by_calls) / sizeof(*by_calls);
	     i++) {
		given = &by_calls[i].act;
		status = status_of(by_calls[i].words, tries);
		if (by_calls[i].ends ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS
				     : status != 0)
			fail_msg("call %u, %s: %#x", i, by_calls[i].words, status);
	}
}

static void *do_nothing(void *arg)
{
	return arg;
}

static int makes_a_ring(void)
{
	struct io_uring_params params = { 0 };

	return (int)syscall(SYS_io_uring_setup, 4, &params);
}

static int can_still_work(struct served *s)
{
	pthread_t thread;

	(void)s;
	if (pthread_create(&thread, NULL, do_nothing, NULL) || pthread_join(thread, NULL))
		return 1;
	/* A kernel without it says so; it must not end the process. */
	if (makes_a_ring() < 0 && errno != ENOSYS && errno != EPERM)
		return 2;
	if (open("/dev/zero", O_RDONLY | O_CLOEXEC) < 0)
		return 3;
	return 0;
}

static int is_sealed(struct served *s)
{
	pthread_t thread;
	struct error err;

	(void)s;
	if (sandbox_seal(&err))
		return 1;
	if (given)
		makes_a_ring();
	else
		pthread_create(&thread, NULL, do_nothing, NULL);
	return 0;
}

static int goes_on_when_sealed(struct served *s)
{
	struct error err;
	struct stat st;

	(void)s;
	return sandbox_seal(&err) || stat("/dev/zero", &st) ? 1 : 0;
}

static void test_no_ring_and_no_thread_once_sealed(void **state)
{
	int status;

	(void)state;
	succeeds("null:1M", can_still_work);
	succeeds("null:1M", goes_on_when_sealed);
	for (unsigned i = 0; sandbox_limits_calls() && i < 2; i++) {
		given = i ? &given : NULL;
		status = status_of("null:1M", is_sealed);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	}
}

/* ---- who and where it is ---- */

static int is_nobody(struct served *s)
{
	uid_t r, e, saved;
	gid_t rg, eg, sg;
	struct sigaction action;
	sigset_t blocked;

	(void)s;
	getresuid(&r, &e, &saved);
	getresgid(&rg, &eg, &sg);
	if (r != WORKER || e != WORKER || saved != WORKER || rg != WORKER || eg != WORKER ||
	    sg != WORKER || getgroups(0, NULL))
		return 1;
	if (sigaction(SIGUSR1, NULL, &action) || action.sa_handler != SIG_DFL)
		return 2;
	if (sigaction(SIGPIPE, NULL, &action) || action.sa_handler != SIG_IGN)
		return 3;
	if (sigprocmask(SIG_BLOCK, NULL, &blocked) || sigismember(&blocked, SIGUSR1))
		return 4;
	for (int i = 0; i < 40; i++)
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			return 5;
	return 0;
}

static int lists_its_root(struct served *s)
{
	DIR *root = opendir("/");
	struct dirent *entry;

	(void)s;
	if (!root)
		return 1;
	while ((entry = readdir(root)))
		if (*entry->d_name != '.' && strcmp(entry->d_name, "dev") != 0)
			return 2;
	closedir(root);
	return 0;
}

static void test_has_no_identity_and_no_files(void **state)
{
	struct sigaction ignored = { .sa_handler = SIG_IGN };
	sigset_t usr1;

	(void)state;
	sigaction(SIGUSR1, &ignored, NULL);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	succeeds("null:1M", is_nobody);
	sigprocmask(SIG_UNBLOCK, &usr1, NULL);
	given = NULL;
	if (!sandbox_limits_calls())
		succeeds("null:1M", lists_its_root);
}

static int stands_still(struct served *s)
{
	char byte = 'x';
	const int *pipe = given;

	(void)s;
	if (write(pipe[1], &byte, 1) != 1)
		return 1;
	/* Until the test has looked. */
	return read(pipe[2], &byte, 1) < 0;
}

/* The mounts that a sandbox of `words` has, one a line, as the kernel lists them. */
static unsigned mounts_of(const char *words, char *list, size_t size)
{
	int pipes[4], status;
	unsigned lines = 0;
	char path[64], byte;
	ssize_t n;
	pid_t pid;
	FILE *f;

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(pipe(pipes + 2), 0);
	given = pipes;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(pipes[3]);
		be_child(words, stands_still);
	}
	close(pipes[1]);
	n = read(pipes[0], &byte, 1);
	assert_int_equal(n, 1);
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	*list = 0;
	while (fgets(list + strlen(list), (int)(size - strlen(list)), f))
		lines++;
	fclose(f);
	close(pipes[3]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(pipes[0]);
	close(pipes[2]);
	return lines;
}

/* A device that is mounted on the host could not be unmounted else. */
static void test_no_mount_of_the_host_is_left(void **state)
{
	static char list[65536];

	(void)state;
	if (mounts_of("memory:1M", list, sizeof(list)) != 1 || !strstr(list, " / / ro,"))
		fail_msg("%s", list);
	if (mounts_of("null:1M", list, sizeof(list)) != 4 || !strstr(list, " /dev/zero "))
		fail_msg("%s", list);
	if (mounts_of("nbd://localhost/", list, sizeof(list)) > 13 || !strstr(list, " /etc ro,"))
		fail_msg("%s", list);
}

/* ---- files and names ---- */

static char psk_path[400], psk_directory[300];

static bool reads_as(const char *path, const char *content)
{
	char text[200] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return n >= 0 && !strcmp(text, content);
}

static void make_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	close(fd);
}

static int has_its_key(struct served *s)
{
	char other[400];
	struct stat st;

	(void)s;
	snprintf(other, sizeof(other), "%s/other", psk_directory);
	if (!reads_as(psk_path, "alice:0123\n"))
		return 1;
	if (stat(psk_path, &st) || st.st_uid != WORKER || (st.st_mode & 07777) != 0400)
		return 2;
	return access(other, F_OK) ? 0 : 3;
}

static int has_no_key(struct served *s)
{
	(void)s;
	return access("/no/such/key", F_OK) ? 0 : 1;
}

/* The file lies in a directory that is shown whole, and which the worker may not read all of. */
static int has_its_key_over_etc(struct served *s)
{
	struct stat st;

	(void)s;
	return stat("/etc/hostname", &st) || st.st_uid != WORKER || (st.st_mode & 07777) != 0400 ||
	       access("/etc/hostname", R_OK);
}

static int has_the_directory(struct served *s)
{
	char other[400];

	(void)s;
	snprintf(other, sizeof(other), "%s/other", psk_directory);
	return reads_as(psk_path, "alice:0123\n") && reads_as(other, "other") ? 0 : 1;
}

static void test_needed_files_are_there(void **state)
{
	char words[1000], path[400];

	(void)state;
	snprintf(psk_directory, sizeof(psk_directory), "%s", temp_path("keys"));
	mkdir(psk_directory, 0700);
	snprintf(psk_path, sizeof(psk_path), "%s/alice.psk", psk_directory);
	make_file(psk_path, "alice:0123\n");
	snprintf(path, sizeof(path), "%s/other", psk_directory);
	make_file(path, "other");

	snprintf(words, sizeof(words), "nbds+unix:///?socket=/x -otls-psk-file=%s", psk_path);
	succeeds(words, has_its_key);
	snprintf(words, sizeof(words), "nbds://localhost/ -otls-psk-file=%s", psk_path);
	succeeds(words, has_its_key);
	succeeds("nbds+unix:///?socket=/x -otls-psk-file=/no/such/key", has_no_key);
	if (!access("/etc/hostname", R_OK))
		succeeds("nbds://localhost/ -otls-psk-file=/etc/hostname", has_its_key_over_etc);
	snprintf(words, sizeof(words),
		 "nbds+unix:///?socket=/x -otls-certificates=%s -otls-allow-unfixed",
		 psk_directory);
	succeeds(words, has_the_directory);
	/* A certificate directory that is hardly meant. */
	snprintf(path, sizeof(path), "%s/large", psk_directory);
	assert_int_equal(truncate(temp_file("keys/large", 5u << 20), 5 << 20), 0);
	assert_int_equal(WEXITSTATUS(status_of(words, has_the_directory)), REFUSED);
	unlink(path);
}

static int resolves(struct served *s)
{
	struct addrinfo *found = NULL, hints = { .ai_socktype = SOCK_STREAM };
	int ret = getaddrinfo("localhost", "10809", &hints, &found);

	(void)s;
	if (!ret)
		freeaddrinfo(found);
	/* A name that nobody has goes all the way through what nsswitch.conf names. */
	else
		return 1;
	if (!getaddrinfo("no-such-host.invalid", "10809", &hints, &found))
		return 2;
	return 0;
}

/* Asked in a child, so that what the resolver loads for it is not here already. */
static bool knows_localhost(void)
{
	int status = 1;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(resolves(NULL));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status)
		print_message("localhost is left out: this machine does not know it\n");
	return !status;
}

static void test_names_are_resolved(void **state)
{
	(void)state;
	if (knows_localhost())
		succeeds("nbd://localhost/", resolves);
}

/* ---- backends at work ---- */

static int start_elsewhere(struct served *s)
{
	struct error err = { 0 };
	int ret = standalone_start(&s->standalone, &s->spec, &elsewhere, &s->control, &err);

	if (ret)
		fprintf(stderr, "%s\n", err.text);
	return ret;
}

static int serves(struct served *s)
{
	uint8_t *data = fake_data(8192, 0x5a);
	struct error err = { 0 };
	bool keeps = s->spec.backend->access != ACCESS_NONE;
	int ret = 0;

	if (start_elsewhere(s) || sandbox_seal(&err))
		return 1;
	if (fake_request(0, 0, UBLK_OP_WRITE, 0, 4096, 8192, data) ||
	    fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL))
		ret = 2;
	memset(data, 0, 8192);
	if (fake_request(0, 0, UBLK_OP_READ, 0, 4096, 8192, data))
		ret = 3;
	if (!ret && keeps && (data[0] != 0x5a || data[8191] != 0x5a))
		ret = 4;
	if (fake_request(0, 0, UBLK_OP_DISCARD, 0, 0, 65536, NULL) &&
	    s->standalone.serving.instance.limits.max_discard)
		ret = 5;
	if (standalone_stop(&s->standalone, &err)) {
		fprintf(stderr, "%s\n", err.text);
		ret = 6;
	}
	return ret;
}

static void test_local_backends_serve(void **state)
{
	char words[600];

	(void)state;
	succeeds("memory:1M queues=2 depth=4", serves);
	succeeds("memory:1M queues=1 depth=4 -onuma=interleave", serves);
	succeeds("memory:1M queues=2 depth=4 partitions=off", serves);
	succeeds("null:1M queues=2 depth=4", serves);
	succeeds("null:1M queues=1 depth=4 io-path=zero-copy cpus=0", serves);
	snprintf(words, sizeof(words), "%s queues=2 depth=4", temp_file("disk.img", 1u << 20));
	succeeds(words, serves);
	snprintf(words, sizeof(words), "%s queues=2 depth=4 -ocreate=1M", temp_path("new.img"));
	succeeds(words, serves);
}

/* A server, or this test is left out. */
static const char *server(const char *const *words)
{
	const char *path = remote_start(temp_path("socket"), words);

	if (!path)
		print_message("left out: there is no nbdkit\n");
	return path;
}

static void test_nbd_serves_over_a_unix_socket(void **state)
{
	static const char *const memory[] = { "memory", "1M", NULL };
	const char *path = server(memory);
	char words[600];

	(void)state;
	if (!path)
		return;
	/* Only root may connect to it. */
	assert_int_equal(chmod(path, 0600), 0);
	snprintf(words, sizeof(words), "nbd+unix:///?socket=%s queues=2 depth=4", path);
	succeeds(words, serves);
	remote_end();
}

/* ---- the same server over TCP ---- */

static void carry(int client, int server)
{
	struct pollfd fds[] = { { .fd = client, .events = POLLIN },
				{ .fd = server, .events = POLLIN } };
	char data[65536];

	while (poll(fds, 2, -1) > 0)
		for (unsigned i = 0; i < 2; i++) {
			ssize_t n = fds[i].revents ? read(fds[i].fd, data, sizeof(data)) : -1;

			if (fds[i].revents && (n <= 0 || write(fds[!i].fd, data, (size_t)n) != n))
				return;
		}
}

static void bridge_main(int listener, const char *path)
{
	int client;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	while ((client = accept(listener, NULL, NULL)) >= 0) {
		struct sockaddr_un at = { .sun_family = AF_UNIX };
		int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (!connect(server, (const struct sockaddr *)&at, sizeof(at)))
				carry(client, server);
			_exit(0);
		}
		close(client);
		close(server);
	}
	_exit(0);
}

/* Takes TCP connections to the socket at path, at *port of this machine. */
static pid_t start_bridge(const char *path, unsigned *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof(at);
	pid_t pid;

	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) || listen(fd, 8) ||
	    getsockname(fd, (struct sockaddr *)&at, &length))
		fail_msg("no TCP: %s", strerror(errno));
	*port = ntohs(at.sin_port);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		bridge_main(fd, path);
	close(fd);
	return pid;
}

/* A server at path, from each kind of URI that leads to it; `more` goes to each. */
static void serves_over_tcp(const char *scheme, const char *path, const char *more)
{
	static const char *const hosts[] = { "127.0.0.1", "localhost" };
	char words[900];
	unsigned port, nr_hosts = knows_localhost() ? 2 : 1;
	pid_t bridge = start_bridge(path, &port);

	for (unsigned i = 0; i < nr_hosts; i++) {
		snprintf(words, sizeof(words), "%s://alice@%s:%u/ queues=2 depth=4 %s", scheme,
			 hosts[i], port, more);
		succeeds(words, serves);
	}
	kill(bridge, SIGKILL);
	waitpid(bridge, NULL, 0);
}

static void test_nbd_serves_over_tcp(void **state)
{
	static const char *const memory[] = { "memory", "1M", NULL };
	const char *path = server(memory);

	(void)state;
	if (!path)
		return;
	serves_over_tcp("nbd", path, "");
	remote_end();
}

static void test_nbd_serves_with_a_key(void **state)
{
	char keys[400], words[900], option[500], psk[64] = "alice:";
	const char *const remote[] = {
		"--tls", "require", "--tls-psk", keys, "memory", "1M", NULL
	};
	const char *path;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		strcat(psk, "a5");
	strcat(psk, "\n");
	snprintf(keys, sizeof(keys), "%s", temp_path("keys.psk"));
	make_file(keys, psk);
	path = server(remote);
	if (!path)
		return;
	snprintf(words, sizeof(words),
		 "nbds+unix://alice@/?socket=%s queues=2 depth=4 -otls-psk-file=%s", path, keys);
	succeeds(words, serves);
	snprintf(option, sizeof(option), "-otls-psk-file=%s", keys);
	serves_over_tcp("nbds", path, option);
	remote_end();
}

/* An authority and a server's certificate by it, in a directory; the client's is another. */
static bool make_certificates(const char *remote, const char *client)
{
	char command[4000];

	snprintf(command, sizeof(command),
		 "exec >/dev/null 2>&1; set -e; mkdir '%1$s' '%2$s'; cd '%1$s'\n"
		 "certtool --generate-privkey --key-type ecdsa --outfile ca-key.pem\n"
		 "printf 'cn = x\\nca\\ncert_signing_key\\nexpiration_days = 9\\n' >ca.cfg\n"
		 "certtool --generate-self-signed --load-privkey ca-key.pem --template ca.cfg "
		 "--outfile ca-cert.pem\n"
		 "certtool --generate-privkey --key-type ecdsa --outfile server-key.pem\n"
		 "printf 'cn = localhost\\ndns_name = localhost\\ntls_www_server\\nsigning_key\\n"
		 "expiration_days = 9\\n' >server.cfg\n"
		 "certtool --generate-certificate --load-ca-certificate ca-cert.pem "
		 "--load-ca-privkey ca-key.pem --load-privkey server-key.pem --template server.cfg "
		 "--outfile server-cert.pem\n"
		 "cp ca-cert.pem '%2$s'",
		 remote, client);
	return !system(command);
}

static int is_refused(struct served *s)
{
	return start_elsewhere(s) ? 0 : 1;
}

static void test_nbd_serves_with_certificates(void **state)
{
	char remote[400], client[400], words[1000], option[500];
	const char *const argv[] = { "--tls", "require", "--tls-certificates", remote, "memory",
				     "1M",    NULL };
	unsigned port;
	pid_t bridge;

	(void)state;
	snprintf(remote, sizeof(remote), "%s", temp_path("remote"));
	snprintf(client, sizeof(client), "%s", temp_path("client"));
	if (!make_certificates(remote, client)) {
		print_message("left out: there is no certtool\n");
		return;
	}
	if (!server(argv))
		return;
	snprintf(option, sizeof(option), "-otls-allow-unfixed -otls-certificates=%s", client);
	snprintf(words, sizeof(words), "nbds+unix:///?socket=%s queues=2 depth=4 %s",
		 temp_path("socket"), option);
	succeeds(words, serves);
	bridge = start_bridge(temp_path("socket"), &port);
	if (knows_localhost()) {
		snprintf(words, sizeof(words), "nbds://localhost:%u/ queues=2 depth=4 %s", port,
			 option);
		succeeds(words, serves);
	}
	/* The certificate is signed for another name. */
	snprintf(words, sizeof(words), "nbds://127.0.0.1:%u/ %s", port, option);
	succeeds(words, is_refused);
	/* With the system's authorities an unfixed libnbd takes any; it must not die of it. */
	snprintf(words, sizeof(words), "nbds://127.0.0.1:%u/ -otls-allow-unfixed", port);
	assert_true(WIFEXITED(status_of(words, is_refused)));
	snprintf(words, sizeof(words), "nbds+unix:///?socket=%s -otls-allow-unfixed",
		 temp_path("socket"));
	assert_true(WIFEXITED(status_of(words, is_refused)));
	kill(bridge, SIGKILL);
	waitpid(bridge, NULL, 0);
	remote_end();
}

/* ---- */

static int nothing(struct served *s)
{
	(void)s;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	remote_end();
	temp_remove();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden_actions_fail),
		cmocka_unit_test(test_no_ring_and_no_thread_once_sealed),
		cmocka_unit_test(test_has_no_identity_and_no_files),
		cmocka_unit_test(test_no_mount_of_the_host_is_left),
		cmocka_unit_test(test_needed_files_are_there),
		cmocka_unit_test(test_names_are_resolved),
		cmocka_unit_test(test_local_backends_serve),
		cmocka_unit_test(test_nbd_serves_over_a_unix_socket),
		cmocka_unit_test(test_nbd_serves_over_tcp),
		cmocka_unit_test(test_nbd_serves_with_a_key),
		cmocka_unit_test(test_nbd_serves_with_certificates),
	};

	bound_time(PATIENCE_S * 3);
	if (geteuid() || WEXITSTATUS(status_of("null:1M", nothing)) == REFUSED) {
		puts("a sandbox takes root, and a mount namespace");
		return NOT_ROOT;
	}
	return cmocka_run_group_tests(tests, NULL, teardown);
}
