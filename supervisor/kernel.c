/* SPDX-License-Identifier: MIT */
#include "supervisor/kernel.h"
#include "engine/error.h"
#include "engine/log.h"
#include "supervisor/fiber.h"
#include "supervisor/holders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A fiber that waits for a completion; on its stack. */
struct waiter {
	uint64_t number;
	int result;
	bool done;
	struct fiber_event event;
	struct waiter *next;
};

static uv_loop_t *loop;
static uv_poll_t watch;
static struct control driver;
static uint64_t features;
static struct waiter *waiters;

static void completions(uv_poll_t *handle, int status, int events)
{
	uint64_t number;
	int result;

	(void)handle;
	(void)status;
	(void)events;
	/* What nobody waits for any more is dropped. */
	while (control_take(&driver, &number, &result)) {
		for (struct waiter *w = waiters; w; w = w->next) {
			if (w->number != number)
				continue;
			w->result = result;
			w->done = true;
			fiber_raise(&w->event);
			break;
		}
	}
}

static int wait_for(struct control *control, uint64_t number, unsigned ms, int *result)
{
	struct waiter w = { .number = number, .next = waiters }, **at;

	(void)control;
	waiters = &w;
	/* It may be there already: inline completions come with the submission. */
	completions(NULL, 0, 0);
	if (!w.done)
		fiber_wait(&w.event, ms);
	for (at = &waiters; *at != &w; at = &(*at)->next)
		;
	*at = w.next;
	*result = w.result;
	return w.done ? 0 : -ETIME;
}

int kernel_open(uv_loop_t *of, unsigned deadline_ms, struct error *err)
{
	int ret = control_open(&driver, deadline_ms, err);

	if (ret)
		return ret;
	loop = of;
	/* Once, before there are fibers: it never waits for anybody. */
	ret = control_get_features(&driver, &features, err);
	if (ret) {
		control_close(&driver);
		return ret;
	}
	driver.wait = wait_for;
	if (control_at_once(&driver, KERNEL_AT_ONCE))
		log_debug(NULL, "io_uring's number of workers stays as it is");
	uv_poll_init(loop, &watch, control_event(&driver));
	uv_poll_start(&watch, UV_READABLE, completions);
	return 0;
}

void kernel_close(void)
{
	uv_close((uv_handle_t *)&watch, NULL);
	control_close(&driver);
}

uint64_t kernel_features(void)
{
	return features;
}

void kernel_control(struct control *control)
{
	control_share(control, &driver);
}

/* ---- what a thread of the pool does ---- */

enum task_kind {
	TASK_OPEN,
	TASK_UNLINK,
	TASK_FSYNC,
	TASK_TRUNCATE,
	TASK_WRITE,
	TASK_HOLDERS,
	TASK_CLOSE
};

/* Owner: the fiber until it gives up, then whoever sees its end. */
struct task {
	uv_work_t work;
	enum task_kind kind;
	char *path, *text;
	int fd, flags;
	unsigned mode;
	uint64_t size;
	struct holders holders;
	int result;
	bool done, abandoned;
	struct fiber_event event;
};

static int write_file(const struct task *t)
{
	int fd = open(t->path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, t->text, strlen(t->text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int find_holders(struct task *t)
{
	pid_t self = getpid();

	return holders_find(t->path, &self, 1, &t->holders);
}

/* Here, too, since the last close of a disk waits for what was written to it. */
static void close_own(struct task *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

static void work(uv_work_t *request)
{
	struct task *t = request->data;
	int ret = 0;

	switch (t->kind) {
	case TASK_OPEN:
		ret = open(t->path, t->flags | O_CLOEXEC | O_NOCTTY, t->mode);
		break;
	case TASK_UNLINK:
		ret = unlink(t->path);
		break;
	case TASK_FSYNC:
		ret = fsync(t->fd);
		break;
	case TASK_TRUNCATE:
		ret = ftruncate(t->fd, (off_t)t->size);
		break;
	case TASK_WRITE:
		t->result = write_file(t);
		return;
	case TASK_HOLDERS:
		t->result = find_holders(t);
		return;
	case TASK_CLOSE:
		break;
	}
	t->result = ret < 0 ? -errno : ret;
	close_own(t);
}

static void destroy(struct task *t)
{
	free(t->path);
	free(t->text);
	free(t);
}

static void worked(uv_work_t *request, int status)
{
	struct task *t = request->data;

	(void)status;
	t->done = true;
	if (!t->abandoned) {
		fiber_raise(&t->event);
		return;
	}
	if (t->kind == TASK_OPEN && t->result >= 0) {
		t->kind = TASK_CLOSE;
		t->fd = t->result;
		if (!uv_queue_work(loop, &t->work, work, worked))
			return;
	}
	if (t->kind == TASK_HOLDERS && !t->result)
		holders_close(&t->holders);
	destroy(t);
}

/* *done (may be NULL) is what it was when it was done. */
static int run_for(const struct task *what, unsigned ms, struct task *done)
{
	struct task *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return -ENOMEM;
	*t = *what;
	/* Its own, since it may outlast the fiber's patience. */
	t->path = what->path ? strdup(what->path) : NULL;
	t->text = what->text ? strdup(what->text) : NULL;
	if (what->fd >= 0 && what->kind != TASK_CLOSE)
		t->fd = fcntl(what->fd, F_DUPFD_CLOEXEC, 0);
	if ((what->path && !t->path) || (what->text && !t->text) || (what->fd >= 0 && t->fd < 0)) {
		close_own(t);
		destroy(t);
		return -ENOMEM;
	}
	t->work.data = t;
	uv_queue_work(loop, &t->work, work, worked);
	fiber_wait(&t->event, ms);
	if (!t->done) {
		t->abandoned = true;
		return -ETIMEDOUT;
	}
	ret = t->result;
	if (done)
		*done = *t;
	destroy(t);
	return ret;
}

static int run(const struct task *what, unsigned ms)
{
	return run_for(what, ms, NULL);
}

int kernel_open_file(const char *path, int flags, unsigned mode, unsigned ms)
{
	struct task t = { .kind = TASK_OPEN,
			  .path = (char *)(uintptr_t)path,
			  .fd = -1,
			  .flags = flags,
			  .mode = mode };

	return run(&t, ms);
}

int kernel_unlink(const char *path, unsigned ms)
{
	struct task t = { .kind = TASK_UNLINK, .path = (char *)(uintptr_t)path, .fd = -1 };

	return run(&t, ms);
}

void kernel_close_file(int fd, unsigned ms)
{
	struct task t = { .kind = TASK_CLOSE, .fd = fd };

	if (run(&t, ms) == -ENOMEM)
		close(fd);
}

int kernel_fsync(int fd, unsigned ms)
{
	struct task t = { .kind = TASK_FSYNC, .fd = fd };

	return run(&t, ms);
}

int kernel_truncate(int fd, uint64_t size, unsigned ms)
{
	struct task t = { .kind = TASK_TRUNCATE, .fd = fd, .size = size };

	return run(&t, ms);
}

int kernel_write_file(const char *path, const char *text, unsigned ms)
{
	struct task t = { .kind = TASK_WRITE,
			  .path = (char *)(uintptr_t)path,
			  .text = (char *)(uintptr_t)text,
			  .fd = -1 };

	return run(&t, ms);
}

int kernel_holders(const char *block, struct holders *holders, unsigned ms)
{
	struct task t = { .kind = TASK_HOLDERS, .path = (char *)(uintptr_t)block, .fd = -1 };
	int ret = run_for(&t, ms, &t);

	*holders = ret ? (struct holders){ 0 } : t.holders;
	return ret;
}
