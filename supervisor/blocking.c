/* SPDX-License-Identifier: MIT */
/*
 * System calls that may block are made by threads, and fibers wait for them. open(2), close(2) and
 * fsync(2) cannot be interrupted or polled, and a disk that does not answer holds them for ever.
 *
 * Each call is a task: a deep copy of its arguments and a thread of its own. run_for() takes a
 * place in the account of the export and side (enter()), starts the thread and waits as a fiber
 * does. The thread makes the call (work()), puts the task on the list of finished tasks and wakes
 * the loop. end() hands over the result, or undoes it if the fiber has given up meanwhile (closes
 * what was opened).
 *
 * An account bounds the threads that a hung disk can hold: at most two tasks for an export and
 * side, and no new task while a late one has not returned.
 *
 * Read from the end of the file upwards: run_for(), begin_for(), work(), end().
 */
#include "supervisor/blocking.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/attribute.h"
#include "engine/holders.h"
#include "engine/host_local.h"
#include "supervisor/fiber.h"
#include "supervisor/name.h"
#include "worker/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define EACH_AT_ONCE 2u           /* tasks of one export and side */
#define STACK_BYTES  (256u << 10) /* of a task's thread */

/* ---- what a thread does ---- */

enum task_kind {
	TASK_OPEN,
	TASK_UNLINK,
	TASK_CONNECT,
	TASK_FSYNC,
	TASK_WRITE,
	TASK_HOLDERS,
	TASK_SETTLE,
	TASK_CLOSE
};

/*
 * The tasks of one export and side; exists while it has tasks or fibers that wait for a place. Has
 * the export's name, no pointer: the export may be removed and created again before a thread
 * returns.
 */
struct account {
	struct account *next;
	char export[NAME_MAX_LENGTH + 1];
	enum blocking_side side;
	unsigned nr, late, waiting;
	struct fiber_event moved;
};

/* Owner: the fiber until it gives up, then end(). */
struct blocking_task {
	struct blocking_task *next; /* of those that are done */
	struct account *account;
	enum task_kind kind;
	char *path, *text;
	int fd, flags;
	unsigned mode;
	struct owner owner;
	bool storage;
	struct holders holders;
	int result;
	bool done, abandoned;
	struct fiber_event event;
};

/* Reading this file queues work on each CPU behind the work already queued, and waits for it. */
static int settle(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_RDONLY | O_CLOEXEC), ret = 0;
	char ignored;

	if (fd < 0)
		return -errno;
	if (read(fd, &ignored, 1) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int find_holders(struct blocking_task *t)
{
	pid_t self = getpid();

	return holders_find(t->path, &self, 1, &t->holders);
}

/* In the thread, too: the last close(2) of a disk writes back dirty pages. */
static void close_own(struct blocking_task *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/*
 * File systems of the kernel itself, where a write is a command: a client must not have ublkd,
 * which is root, serve one of their files as storage.
 */
static bool is_kernel_file(int fd)
{
	static const unsigned long kinds[] = {
		PROC_SUPER_MAGIC, SYSFS_MAGIC,    DEBUGFS_MAGIC,      TRACEFS_MAGIC,
		SECURITYFS_MAGIC, EFIVARFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
		BPF_FS_MAGIC,     SELINUX_MAGIC,  SMACK_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return true;
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if ((unsigned long)fs.f_type == kinds[i])
			return true;
	return false;
}

static bool is_storage(int fd, int flags)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if (S_ISBLK(st.st_mode))
		return true;
	return (S_ISREG(st.st_mode) || (flags & O_DIRECTORY && S_ISDIR(st.st_mode))) &&
	       !is_kernel_file(fd);
}

/*
 * Opens with O_PATH first, which has no effect on a FIFO, a tape or a watchdog, checks the kind of
 * the file, and opens the same descriptor again: the path may lead to another file by then.
 */
static int open_storage(const char *path, int flags, unsigned mode)
{
	char same[32];
	int handle, fd;

	/* O_EXCL: open(2) creates the file, and does not follow a symlink. */
	if (flags & O_CREAT)
		return open(path, flags | O_EXCL, mode);
	handle = open(path, O_PATH | O_CLOEXEC);
	if (handle < 0 || flags & O_PATH)
		return handle;
	snprintf(same, sizeof(same), "/proc/self/fd/%d", handle);
	errno = EACCES;
	fd = is_storage(handle, flags) ? open(same, flags) : -1;
	if (fd < 0) {
		int code = errno;

		close(handle);
		errno = code;
		return -1;
	}
	close(handle);
	return fd;
}

static int connect_socket(const char *path)
{
	int fd = host_here.connect_unix(NULL, path);

	errno = fd < 0 ? -fd : 0;
	return fd;
}

static void work(struct blocking_task *t)
{
	int flags = t->flags | O_CLOEXEC | O_NOCTTY, ret = owner_become(&t->owner);

	/* This thread does nothing else, so that it need not become root again. */
	if (ret) {
		t->result = ret;
		return;
	}
	switch (t->kind) {
	case TASK_OPEN:
		ret = t->storage ? open_storage(t->path, flags, t->mode)
				 : open(t->path, flags, t->mode);
		break;
	case TASK_UNLINK:
		ret = unlink(t->path);
		break;
	case TASK_CONNECT:
		ret = connect_socket(t->path);
		break;
	case TASK_FSYNC:
		ret = fsync(t->fd);
		break;
	case TASK_WRITE:
		t->result = attribute_write_file(t->path, t->text);
		return;
	case TASK_HOLDERS:
		t->result = find_holders(t);
		return;
	case TASK_SETTLE:
		t->result = settle();
		return;
	case TASK_CLOSE:
		break;
	}
	t->result = ret < 0 ? -errno : ret;
	close_own(t);
}

static void destroy(struct blocking_task *t)
{
	free(t->path);
	free(t->text);
	free(t);
}

/* ---- the threads ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static struct blocking_task *finished; /* guarded by gate */
static uv_async_t finish;
static bool can_finish;

static void *thread(void *context)
{
	struct blocking_task *t = context;

	work(t);
	pthread_mutex_lock(&gate);
	t->next = finished;
	finished = t;
	uv_async_send(&finish);
	pthread_mutex_unlock(&gate);
	return NULL;
}

/*
 * Starts a thread for the task. No pool, since disks that do not answer could hold all threads of
 * any pool. Returns 0 or -errno.
 */
static int begin_call(struct blocking_task *t)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t id;
	int ret;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* Signals must go to the loop's thread. */
	pthread_sigmask(SIG_BLOCK, &all, &before);
	ret = pthread_create(&id, &attr, thread, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -ret;
}

/* ---- accounts: how many tasks each export may have ---- */

static struct account *accounts;

static struct account *find_account(struct blocking_for who)
{
	struct account *a;

	for (a = accounts; a; a = a->next)
		if (a->side == who.side && !strcmp(a->export, who.export))
			return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	snprintf(a->export, sizeof(a->export), "%s", who.export);
	a->side = who.side;
	a->next = accounts;
	accounts = a;
	return a;
}

static void release_call(struct account *a)
{
	struct account **at = &accounts;

	/* A waiting fiber may free the account after it is woken: do not touch it afterwards. */
	if (a->nr || a->waiting) {
		fiber_raise(&a->moved);
		return;
	}
	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	free(a);
}

/* Waits for a place in the account; `must` (a close, which frees a resource): takes it at once. */
static int enter(struct account *a, bool must, uint64_t end)
{
	uint64_t now;

	a->waiting++;
	while (!must && !a->late && a->nr >= EACH_AT_ONCE && (now = clock_ms()) < end)
		fiber_wait(&a->moved, (unsigned)(end - now));
	a->waiting--;
	if (!must && a->late)
		return -EALREADY;
	if (!must && a->nr >= EACH_AT_ONCE)
		return -ETIMEDOUT;
	a->nr++;
	return 0;
}

static void leave(struct account *a)
{
	a->nr--;
	release_call(a);
}

static const char *describe(const struct blocking_task *t)
{
	static const char *const kinds[] = {
		[TASK_OPEN] = "opening",
		[TASK_UNLINK] = "removing",
		[TASK_CONNECT] = "connecting to",
		[TASK_FSYNC] = "a flush",
		[TASK_WRITE] = "writing to",
		[TASK_HOLDERS] = "finding the users of",
		[TASK_CLOSE] = "closing a file",
		[TASK_SETTLE] = "waiting for the kernel's work queue",
	};

	return kinds[t->kind];
}

static void give_call_up(struct blocking_task *t, unsigned ms)
{
	t->abandoned = true;
	t->account->late++;
	log_warning(t->account->export,
		    "%s %s has not completed within %u s; other calls there fail until it has",
		    describe(t), t->path ? t->path : "", ms / 1000);
	fiber_raise(&t->account->moved);
}

static void end(struct blocking_task *t)
{
	struct account *a = t->account;

	t->done = true;
	if (!t->abandoned) {
		fiber_raise(&t->event);
		return;
	}
	if ((t->kind == TASK_OPEN || t->kind == TASK_CONNECT) && t->result >= 0) {
		t->kind = TASK_CLOSE;
		t->fd = t->result;
		if (!begin_call(t))
			return;
		close_own(t);
	}
	if (t->kind == TASK_HOLDERS && !t->result)
		holders_close(&t->holders);
	log_info(a->export, "%s %s has completed late", describe(t), t->path ? t->path : "");
	a->late--;
	leave(a);
	destroy(t);
}

static void finish_all(uv_async_t *handle)
{
	struct blocking_task *t, *next;

	(void)handle;
	pthread_mutex_lock(&gate);
	t = finished;
	finished = NULL;
	pthread_mutex_unlock(&gate);
	for (; t; t = next) {
		next = t->next;
		end(t);
	}
}

/* A deep copy: the task may outlive the fiber that waits for it. */
static struct blocking_task *create(const struct blocking_task *what)
{
	struct blocking_task *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	*t = *what;
	t->path = what->path ? strdup(what->path) : NULL;
	t->text = what->text ? strdup(what->text) : NULL;
	if (what->fd >= 0 && what->kind != TASK_CLOSE)
		t->fd = fcntl(what->fd, F_DUPFD_CLOEXEC, 0);
	if ((!what->path || t->path) && (!what->text || t->text) && (what->fd < 0 || t->fd >= 0))
		return t;
	if (what->kind != TASK_CLOSE)
		close_own(t);
	destroy(t);
	return NULL;
}

/* On error nothing has begun, and what->fd still belongs to the caller. */
static int begin_for(struct blocking_for who, const struct blocking_task *what, uint64_t end,
		     struct blocking_task **task)
{
	struct account *a = find_account(who);
	struct blocking_task *t = NULL;
	int ret = a ? enter(a, what->kind == TASK_CLOSE, end) : -ENOMEM;

	if (!can_finish) {
		uv_async_init(uv_default_loop(), &finish, finish_all);
		uv_unref((uv_handle_t *)&finish);
		can_finish = true;
	}
	if (ret) {
		if (a)
			release_call(a);
		return ret;
	}
	t = create(what);
	ret = t ? 0 : -ENOMEM;
	if (t) {
		t->account = a;
		ret = begin_call(t);
	}
	if (ret) {
		leave(a);
		if (t && what->kind != TASK_CLOSE)
			close_own(t);
		if (t)
			destroy(t);
		return ret;
	}
	*task = t;
	return 0;
}

/* Runs the task for up to ms milliseconds; *done (may be NULL) gets a copy of the finished task. */
static int run_for(struct blocking_for who, const struct blocking_task *what, unsigned ms,
		   struct blocking_task *done)
{
	uint64_t end = clock_ms() + ms, now;
	struct blocking_task *t;
	int ret = begin_for(who, what, end, &t);

	if (ret)
		return ret;
	while (!t->done && (now = clock_ms()) < end)
		fiber_wait(&t->event, (unsigned)(end - now));
	if (!t->done) {
		give_call_up(t, ms);
		return -ETIMEDOUT;
	}
	ret = t->result;
	if (done)
		*done = *t;
	leave(t->account);
	destroy(t);
	return ret;
}

static int run(struct blocking_for who, const struct blocking_task *what, unsigned ms)
{
	return run_for(who, what, ms, NULL);
}

const char *blocking_reason(int code)
{
	return code == -EALREADY ? "an earlier call has not returned" : strerror(-code);
}

int blocking_open(struct blocking_for who, const char *path, int flags, unsigned mode, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_OPEN,
				   .path = (char *)(uintptr_t)path,
				   .fd = -1,
				   .flags = flags,
				   .mode = mode };

	return run(who, &t, ms);
}

int blocking_open_as(struct blocking_for who, const struct owner *owner, const char *path,
		     int flags, unsigned mode, bool storage, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_OPEN,
				   .path = (char *)(uintptr_t)path,
				   .fd = -1,
				   .flags = flags,
				   .mode = mode,
				   .owner = *owner,
				   .storage = storage };

	return run(who, &t, ms);
}

int blocking_unlink_as(struct blocking_for who, const struct owner *owner, const char *path,
		       unsigned ms)
{
	struct blocking_task t = {
		.kind = TASK_UNLINK, .path = (char *)(uintptr_t)path, .fd = -1, .owner = *owner
	};

	return run(who, &t, ms);
}

int blocking_connect_as(struct blocking_for who, const struct owner *owner, const char *path,
			unsigned ms)
{
	struct blocking_task t = {
		.kind = TASK_CONNECT, .path = (char *)(uintptr_t)path, .fd = -1, .owner = *owner
	};

	return run(who, &t, ms);
}

void blocking_close(struct blocking_for who, int fd, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_CLOSE, .fd = fd };

	int ret = run(who, &t, ms);

	/* The thread could not be started: a close has no other errors. */
	if (ret && ret != -ETIMEDOUT)
		close(fd);
}

int blocking_fsync(struct blocking_for who, int fd, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_FSYNC, .fd = fd };

	return run(who, &t, ms);
}

int blocking_write_attribute(const char *export, const char *path, const char *text, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_WRITE,
				   .path = (char *)(uintptr_t)path,
				   .text = (char *)(uintptr_t)text,
				   .fd = -1 };

	return run((struct blocking_for){ export, BLOCKING_DEVICE }, &t, ms);
}

int blocking_find_holders(const char *export, const char *block, struct holders *holders,
			  unsigned ms)
{
	struct blocking_task t = { .kind = TASK_HOLDERS,
				   .path = (char *)(uintptr_t)block,
				   .fd = -1 };
	struct blocking_for who = { export, BLOCKING_HOLDERS };
	int ret = run_for(who, &t, ms, &t);

	*holders = ret ? (struct holders){ 0 } : t.holders;
	return ret;
}

int blocking_settle(struct blocking_for who, unsigned ms)
{
	struct blocking_task t = { .kind = TASK_SETTLE, .fd = -1 };

	return run(who, &t, ms);
}
