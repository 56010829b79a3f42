/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/stage.h"
#include "engine/host_local.h"
#include "engine/params.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct stage stage;

noreturn void stage_broken(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("broken: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}

/* ---- time, and what blocks ---- */

static int poll_now(struct pollfd *fds, nfds_t n)
{
	struct timespec none = { 0 };

	return (int)syscall(SYS_ppoll, fds, n, &none, NULL, 0);
}

/* In place of libc's, for the libraries too. */
int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	uint64_t until = stage.now_ns + (uint64_t)(timeout < 0 ? 0 : timeout) * STAGE_NS_PER_MS;
	int ret;

	if (!stage.running) {
		struct timespec t = { timeout / 1000, timeout % 1000 * 1000000l };

		return (int)syscall(SYS_ppoll, fds, n, timeout < 0 ? NULL : &t, NULL, 0);
	}
	for (;;) {
		bool moved = timeout && stage.others();

		ret = poll_now(fds, n);
		if (ret || stage.now_ns >= until)
			return ret;
		if (!moved)
			stage.now_ns += 50 * STAGE_NS_PER_MS;
		if (timeout < 0)
			stage_broken("it waits without bound");
	}
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!stage.running || clock != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, clock, t);
	t->tv_sec = (time_t)(stage.now_ns / 1000000000u);
	t->tv_nsec = (long)(stage.now_ns % 1000000000u);
	return 0;
}

/* In place of common/log.c's, which writes to stderr. */
void log_line(enum log_level level, const char *about, const char *fmt, ...)
{
	static int verbose = -1;
	char line[6000];
	va_list args;

	(void)level;
	if (verbose < 0)
		verbose = getenv("FUZZ_VERBOSE") != NULL;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (verbose)
		fprintf(stderr, "%10.3f %s: %s\n", (double)stage.now_ns / 1e9, about, line);
}

/* ---- what a backend calls ---- */

void *queue_private(struct queue *q)
{
	return q->private;
}

struct instance *queue_instance(struct queue *q)
{
	(void)q;
	return &stage.instance;
}

unsigned queue_index(const struct queue *q)
{
	return q->index;
}

uint64_t queue_round(const struct queue *q)
{
	return q->round;
}

uint64_t queue_now_ns(const struct queue *q)
{
	(void)q;
	return stage.now_ns;
}

void queue_wake(struct queue *q)
{
	if (!q->is_open)
		stage_broken("queue %u is woken, and is not there", q->index);
	q->woken = true;
}

static struct stage_wait *find_wait(struct queue *q, const struct ring_op *op)
{
	for (unsigned i = 0; i < q->nr_waits; i++)
		if (q->waits[i].op == op)
			return &q->waits[i];
	return NULL;
}

static void add_wait(struct queue *q, struct stage_wait wait)
{
	struct stage_wait *before = find_wait(q, wait.op);

	if (before)
		stage_broken("an op is given twice");
	if (q->nr_waits == STAGE_WAITS)
		stage_broken("more than %u ops wait: they are never cancelled", STAGE_WAITS);
	q->waits[q->nr_waits++] = wait;
}

void queue_poll(struct queue *q, struct ring_op *op, int fd, unsigned events)
{
	if (fd < 0)
		stage_broken("descriptor %d is watched", fd);
	add_wait(q, (struct stage_wait){ .op = op, .fd = fd, .events = (short)events });
}

void queue_timer(struct queue *q, struct queue_timer *timer, uint64_t ns)
{
	add_wait(q, (struct stage_wait){ .op = &timer->op, .fd = -1, .due_ns = stage.now_ns + ns });
}

void queue_send(struct queue *q, struct ring_op *op, int fd, const struct msghdr *message, bool all)
{
	(void)all;
	add_wait(q, (struct stage_wait){ .op = op, .fd = fd, .message = message });
}

void queue_receive(struct queue *q, struct ring_op *op, int fd, void *buffer, size_t length,
		   bool all)
{
	if (!length)
		stage_broken("nothing is to be received");
	add_wait(q, (struct stage_wait){
			    .op = op, .fd = fd, .buffer = buffer, .length = length, .all = all });
}

void queue_cancel_now(struct queue *q, struct ring_op *op)
{
	queue_cancel(q, op);
}

bool queue_run_until(struct queue *q, bool (*done)(const void *context), const void *context,
		     unsigned ms)
{
	uint64_t end = stage.now_ns + ms * STAGE_NS_PER_MS;

	while (!done(context) && stage.now_ns < end) {
		bool any = stage_take(q);

		/* Other queues' timers do not stop the clock, nor does a server that never rests. */
		stage.now_ns += (stage.others() || any ? 1 : 10) * STAGE_NS_PER_MS;
	}
	return done(context);
}

void queue_cancel(struct queue *q, struct ring_op *op)
{
	struct stage_wait *wait = find_wait(q, op);

	if (wait)
		wait->cancelled = true;
}

void instance_report(struct instance *instance, enum health_cause cause, const char *fmt, ...)
{
	char detail[sizeof(((struct health_condition *)0)->detail)];
	va_list args;

	(void)instance;
	if (cause >= WORKER_CAUSES)
		stage_broken("a backend reports cause %d", (int)cause);
	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
}

void instance_resolve(struct instance *instance, enum health_cause cause)
{
	(void)instance;
	(void)cause;
}

void instance_settle(struct instance *instance, enum health_cause cause, _Atomic uint64_t *last_ms)
{
	(void)instance;
	(void)cause;
	(void)last_ms;
}

void instance_grow(struct instance *instance, uint64_t size)
{
	size -= size % instance->limits.logical_block;
	if (size > instance->limits.size)
		instance->grown = size;
}

void *io_private(struct io *io)
{
	return (char *)io->queue->io_private + io->tag * stage.instance.backend->io_size;
}

void *io_data(struct io *io)
{
	struct stage_request *r = (struct stage_request *)io;

	if (!r->serving)
		stage_broken("the data of a request that is over");
	return r->buffer;
}

/* The place of a part in the application's data; NULL: its copy fails. */
static uint8_t *part_of(struct io *io, enum io_op op, uint32_t at, uint32_t length)
{
	struct stage_request *r = (struct stage_request *)io;

	if (!r->serving || io->op != op)
		stage_broken("the data of op %u is copied", io->op);
	if (at > io->length || length > io->length - at)
		stage_broken("%u bytes at %u are copied, of %u", length, at, io->length);
	if (stage.copies_fail && stage.user_copy && ++stage.copies % stage.copies_fail == 0)
		return NULL;
	return (uint8_t *)r->data + at;
}

int io_copy_to(struct io *io, uint32_t at, const void *from, uint32_t length)
{
	uint8_t *to = part_of(io, IO_READ, at, length);

	if (to && to != from)
		memcpy(to, from, length);
	return to ? 0 : -EFAULT;
}

int io_copy_from(struct io *io, uint32_t at, void *to, uint32_t length)
{
	const uint8_t *from = part_of(io, IO_WRITE, at, length);

	if (from && to != from)
		memcpy(to, from, length);
	return from ? 0 : -EFAULT;
}

int io_fill_zero(struct io *io, uint32_t at, uint32_t length)
{
	uint8_t *to = part_of(io, IO_READ, at, length);

	if (to)
		memset(to, 0, length);
	return to ? 0 : -EFAULT;
}

static void free_data(struct stage_request *r)
{
	if (r->buffer != r->data)
		free(r->buffer);
	free(r->data);
	r->buffer = r->data = NULL;
}

void io_complete(struct io *io, int result)
{
	struct stage_request *r = (struct stage_request *)io;

	_Static_assert(offsetof(struct stage_request, io) == 0, "io is first");
	if (!r->serving)
		stage_broken("tag %u of queue %u ends twice", io->tag, io->queue->index);
	if (result < -4095 || (io->op <= IO_WRITE && result > (int)io->length))
		stage_broken("a request of %u bytes ends with %d", io->length, result);
	stage.ended(io->queue, r, result);
	r->serving = false;
	free_data(r);
}

/* ---- requests ---- */

struct stage_request *stage_free_tag(struct queue *q)
{
	for (unsigned i = 0; i < STAGE_DEPTH; i++)
		if (!q->requests[i].serving)
			return &q->requests[i];
	return NULL;
}

void stage_data(struct stage_request *r)
{
	r->data = malloc(r->io.length ? r->io.length : 1);
	r->buffer = stage.user_copy ? malloc(r->io.length ? r->io.length : 1) : r->data;
	if (!r->data || !r->buffer)
		abort();
	memset(r->buffer, 0x5a, r->io.length);
	memset(r->data, 0xa5, r->io.length);
}

void stage_submit(struct stage_request *r)
{
	r->serving = true;
	r->began_ns = stage.now_ns;
	stage.instance.backend->submit(&r->io);
}

unsigned stage_serving(uint64_t *oldest_ns)
{
	unsigned n = 0;

	*oldest_ns = UINT64_MAX;
	for (unsigned i = 0; i < stage.instance.nr_queues; i++)
		for (unsigned tag = 0; tag < STAGE_DEPTH; tag++) {
			const struct stage_request *r = &stage.queues[i].requests[tag];

			if (!r->serving)
				continue;
			n++;
			if (r->began_ns < *oldest_ns)
				*oldest_ns = r->began_ns;
		}
	return n;
}

/* ---- rounds ---- */

/* Moves what can be moved; whether that is all, or the end. */
static bool move(struct stage_wait *wait, int *result)
{
	for (;;) {
		size_t skip = wait->moved, wanted = 0;
		struct iovec rest[64];
		struct msghdr part = { .msg_iov = rest };
		ssize_t n;

		for (size_t i = 0; wait->message && i < wait->message->msg_iovlen; i++) {
			struct iovec piece = wait->message->msg_iov[i];
			size_t gone = skip < piece.iov_len ? skip : piece.iov_len;

			skip -= gone;
			wanted += piece.iov_len;
			if (gone < piece.iov_len && part.msg_iovlen < 64)
				rest[part.msg_iovlen++] =
					(struct iovec){ (char *)piece.iov_base + gone,
							piece.iov_len - gone };
		}
		if (wait->message)
			n = sendmsg(wait->fd, &part, MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			n = recv(wait->fd, wait->buffer + wait->moved, wait->length - wait->moved,
				 MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (n <= 0) {
			*result = n < 0 && !wait->moved ? -errno : (int)wait->moved;
			return true;
		}
		wait->moved += (size_t)n;
		*result = (int)wait->moved;
		if (wait->moved == (wait->message ? wanted : wait->length) ||
		    (!wait->message && !wait->all))
			return true;
	}
}

/* Whether the wait has a result by now. */
static bool has_result(struct stage_wait *wait, int *result)
{
	struct pollfd fd = { .fd = wait->fd, .events = wait->events };

	*result = -ECANCELED;
	if (wait->cancelled)
		return true;
	if (wait->message || wait->buffer)
		return move(wait, result);
	*result = -ETIME;
	if (wait->fd < 0)
		return wait->due_ns <= stage.now_ns;
	if (poll_now(&fd, 1) <= 0)
		return false;
	if (fd.revents & POLLNVAL)
		stage_broken("descriptor %d is watched, and closed", wait->fd);
	*result = fd.revents;
	return true;
}

bool stage_take(struct queue *q)
{
	struct ring_op *ops[STAGE_WAITS];
	int results[STAGE_WAITS];
	unsigned n = 0;
	bool any = q->woken;

	q->woken = false;
	/* A ring's completions are all there when the first of them is dealt with. */
	for (unsigned i = 0; i < q->nr_waits;) {
		if (!has_result(&q->waits[i], &results[n])) {
			i++;
			continue;
		}
		ops[n++] = q->waits[i].op;
		q->waits[i] = q->waits[--q->nr_waits];
	}
	q->round++;
	for (unsigned i = 0; i < n; i++)
		ops[i]->done(ops[i], results[i]);
	return any || n;
}

void stage_round_end(struct queue *q)
{
	if (stage.instance.backend->round_end)
		stage.instance.backend->round_end(q);
}

void stage_follow_size(void)
{
	struct instance *e = &stage.instance;

	if (e->grown > e->limits.size)
		e->limits.size = e->grown;
}

int stage_resize(void)
{
	struct error err = { 0 };
	int ret;

	if (!stage.instance.backend->resize)
		return 0;
	ret = stage.instance.backend->resize(&stage.instance, &err);
	if (ret && (!err.code || !*err.text))
		stage_broken("not resized with %d, and without a word", ret);
	return ret;
}

void stage_let_pass(uint64_t most_ns)
{
	uint64_t next = stage.now_ns + most_ns;

	for (unsigned i = 0; i < stage.instance.nr_queues; i++)
		for (unsigned j = 0; j < stage.queues[i].nr_waits; j++) {
			const struct stage_wait *wait = &stage.queues[i].waits[j];

			if (wait->fd < 0 && wait->due_ns < next)
				next = wait->due_ns;
		}
	if (next > stage.now_ns)
		stage.now_ns = next;
}

/* ---- open and close ---- */

static int no_file(struct instance *instance, const char *path, int flags, unsigned mode)
{
	(void)instance;
	(void)path;
	(void)flags;
	(void)mode;
	return -EACCES;
}

/* Sockets are the fuzz target's own. */
static int connect_unix(const struct instance *instance, const char *path)
{
	return host_here.connect_unix(instance, path);
}

static const struct backend_host host = { .open_file = no_file, .connect_unix = connect_unix };

static void set_words(const char *words)
{
	char copy[1024], *word, *rest = copy;
	struct error err;

	snprintf(copy, sizeof(copy), "%s", words);
	word = strsep(&rest, " ");
	if (spec_open(&stage.spec, word, &err))
		stage_broken("%s", err.text);
	while ((word = strsep(&rest, " ")))
		if (*word && spec_set_backend(&stage.spec, word, &err))
			stage_broken("%s", err.text);
	if (spec_check(&stage.spec, &err))
		stage_broken("%s", err.text);
}

static int open_queue(struct queue *q, unsigned index, struct error *err)
{
	const struct backend *backend = stage.instance.backend;
	int ret;

	*q = (struct queue){ .index = index, .is_open = true };
	q->private = calloc(1, backend->queue_size ? backend->queue_size : 1);
	q->io_private = calloc(STAGE_DEPTH, backend->io_size ? backend->io_size : 1);
	if (!q->private || !q->io_private)
		abort();
	for (unsigned tag = 0; tag < STAGE_DEPTH; tag++)
		q->requests[tag].io = (struct io){ .queue = q, .tag = (uint16_t)tag, .op = IO_OPS };
	ret = backend->queue_open ? backend->queue_open(q, err) : 0;
	if (ret) {
		free(q->private);
		free(q->io_private);
		q->is_open = false;
	}
	return ret;
}

static void close_queue(struct queue *q)
{
	if (stage.instance.backend->queue_close)
		stage.instance.backend->queue_close(q);
	q->is_open = false;
	free(q->private);
	free(q->io_private);
	for (unsigned tag = 0; tag < STAGE_DEPTH; tag++)
		free_data(&q->requests[tag]);
}

void stage_close(void)
{
	for (unsigned i = 0; i < stage.instance.nr_queues; i++)
		if (stage.queues[i].is_open)
			close_queue(&stage.queues[i]);
	stage.instance.backend->close(&stage.instance);
	free(stage.instance.private);
	spec_close(&stage.spec);
	stage.running = false;
}

int stage_open(const char *words, unsigned queues, bool read_only, stage_others *others,
	       stage_ended *ended)
{
	struct instance *e = &stage.instance;
	struct error err = { 0 };
	int ret;

	memset(&stage, 0, sizeof(stage));
	stage.now_ns = 1000000000000ull;
	stage.others = others;
	stage.ended = ended;
	set_words(words);
	spec_to_instance(&stage.spec, e);
	e->host = &host;
	e->gauges = stage.gauges;
	e->lost = &stage.lost;
	e->nr_queues = queues;
	e->depth = STAGE_DEPTH;
	e->read_only = read_only;
	e->private = calloc(1, e->backend->instance_size ? e->backend->instance_size : 1);
	if (!e->private)
		abort();
	stage.running = true;
	ret = e->backend->open(e, &err);
	if (ret)
		goto forget;
	ret = params_complete_limits(&e->limits, &err);
	if (!ret && e->limits.max_queues && e->limits.max_queues < e->nr_queues)
		e->nr_queues = e->limits.max_queues;
	for (unsigned i = 0; !ret && i < e->nr_queues; i++)
		ret = open_queue(&stage.queues[i], i, &err);
	if (ret) {
		if (!err.code || !*err.text)
			stage_broken("refused with %d, and without a word", ret);
		stage_close();
		return ret;
	}
	e->was_live = true;
	return 0;

forget:
	if (ret > 0 || !err.code || !*err.text)
		stage_broken("refused with %d, and without a word", ret);
	free(e->private);
	spec_close(&stage.spec);
	stage.running = false;
	return ret;
}
