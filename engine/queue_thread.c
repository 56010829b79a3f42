/* SPDX-License-Identifier: MIT */
/*
 * The life of a queue's thread, queue_main(): open_queue() opens ring, buffers, descriptors
 * and the backend's part, queue.c fetches every tag (queue_fetch_all()) and serves
 * (queue_serve()), close_queue() lets go. Other threads see it through the gate: its phase,
 * its fault, and whether somebody waits for its end.
 *
 * The order of the end is the delicate part: when the ring, the buffers and the mapped
 * descriptors may be released, and by which thread, is said at close_queue().
 */
#include "engine/queue_parts.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the thread ---- */

static int drop_sys_admin(struct error *err)
{
	/* Of this thread only: capabilities are a thread's own. */
	if (capng_get_caps_process() ||
	    capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN) ||
	    capng_apply(CAPNG_SELECT_CAPS))
		return error_set(err, EPERM,
				 "partitions=off: cannot drop CAP_SYS_ADMIN, so the kernel "
				 "would scan for partitions: leave the option out");
	return 0;
}

/*
 * A table of QUEUE_FILES places from the start: it cannot grow later, and backends add files one by
 * one. Place 0 is ublkcN, which every command uses.
 */
static int open_files(struct queue *q)
{
	int files[QUEUE_FILES];
	int ret;

	for (unsigned i = 0; i < QUEUE_FILES; i++)
		files[i] = -1;
	files[CHAR_FILE] = q->setup.char_fd;
	ret = io_uring_register_files(&q->ring.uring, files, QUEUE_FILES);
	q->nr_files = CHAR_FILE + 1;
	return ret;
}

/* Reads of zeroes need no copy where the ring has the requests' own pages. */
static void open_zero(struct queue *q)
{
	if (q->backend->access != ACCESS_NONE || q->setup.path != IO_PATH_ZERO_COPY)
		return;
	q->zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	if (q->zero < 0)
		return;
	q->zero_file = queue_add_file(q, q->zero);
	if (q->zero_file < 0) {
		close(q->zero);
		q->zero = -1;
	}
}

static void close_zero(struct queue *q)
{
	if (q->zero >= 0)
		close(q->zero);
}

/*
 * Everything that the I/O path needs, so that it never allocates: lists with room for each tag, and
 * the backend's memory for the queue and each of its requests.
 */
static int alloc_requests(struct queue *q)
{
	const struct backend *backend = q->backend;
	unsigned depth = q->setup.instance->depth;

	q->requests = calloc(depth, sizeof(*q->requests));
	q->done = calloc(depth, sizeof(*q->done));
	q->parked = calloc(depth, sizeof(*q->parked));
	q->private = calloc(1, backend->queue_size ? backend->queue_size : 1);
	q->io_private = calloc(depth, backend->io_size ? backend->io_size : 1);
	if (!q->requests || !q->done || !q->parked || !q->private || !q->io_private)
		return -ENOMEM;
	for (unsigned tag = 0; tag < depth; tag++) {
		q->requests[tag] = (struct request){
			.io = { .queue = q, .tag = (uint16_t)tag, .op = IO_OPS },
			.command.done = queue_command_finished,
			.work.done = queue_work_finished,
			.private = (char *)q->io_private + tag * backend->io_size,
		};
	}
	return 0;
}

static void free_requests(struct queue *q)
{
	free(q->io_private);
	free(q->private);
	free(q->parked);
	free(q->done);
	free(q->requests);
}

static size_t desc_bytes(const struct queue *q)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	/* The driver takes this very length and no other. */
	return (q->setup.instance->depth * sizeof(struct ublk_io_desc) + page - 1) / page * page;
}

/* Operations of the queue on its ring, and those of a backend with that access. */
static uint64_t ring_ops(enum backend_access access)
{
	uint64_t ops = RING_OP(IORING_OP_URING_CMD) | RING_OP(IORING_OP_READ) |
		       RING_OP(IORING_OP_POLL_ADD) | RING_OP(IORING_OP_TIMEOUT) |
		       RING_OP(IORING_OP_ASYNC_CANCEL) | RING_OP(IORING_OP_FSYNC);

	if (access == ACCESS_RING || access == ACCESS_NONE)
		ops |= RING_OP(IORING_OP_READ_FIXED);
	if (access == ACCESS_RING || access == ACCESS_MEMORY)
		ops |= RING_OP(IORING_OP_FALLOCATE);
	if (access == ACCESS_POINTER || access == ACCESS_SOCKET)
		ops |= RING_OP(IORING_OP_SENDMSG) | RING_OP(IORING_OP_RECV);
	if (access == ACCESS_RING)
		ops |= RING_OP(IORING_OP_WRITE) | RING_OP(IORING_OP_WRITE_FIXED);
	return ops;
}

/*
 * Each step needs those before it: the backend's queue_open() may add files to the ring and start
 * polls, and the fetches come last, since a request may arrive as soon as the device is started.
 */
static int open_queue(struct queue *q, struct error *err)
{
	const struct queue_setup *s = &q->setup;
	unsigned depth = s->instance->depth;
	void *descs;
	int ret;

	ret = alloc_requests(q);
	if (ret) {
		error_set(err, ret, "no memory for %u tags", depth);
		goto free_requests;
	}
	/* A tag has one SQE at most: its command, or its work; then there is the wake-up. */
	ret = ring_open(&q->ring, depth + 8, ring_ops(q->backend->access), q->poll.bound_ns, err);
	if (ret)
		goto free_requests;
	ret = open_files(q);
	if (ret < 0) {
		error_set(err, ret, "registering files with io_uring: %s", strerror(-ret));
		goto close_ring;
	}
	open_zero(q);
	ret = buffers_open(&q->buffers, s->path, q->backend->access, s->index, s->char_fd, depth,
			   s->max_io, &q->ring);
	if (ret) {
		error_set(err, ret, "buffers for %u requests of %u bytes: %s", depth, s->max_io,
			  strerror(-ret));
		goto close_ring;
	}
	descs = mmap(NULL, desc_bytes(q), PROT_READ, MAP_SHARED | MAP_POPULATE, s->char_fd,
		     (off_t)(s->index * UBLK_DESC_STRIDE((size_t)sysconf(_SC_PAGESIZE))));
	if (descs == MAP_FAILED) {
		ret = error_set(err, errno, "mapping the kernel's requests: %s", strerror(errno));
		goto close_buffers;
	}
	q->descs = descs;
	q->now_ns = clock_ns();
	if (q->backend->queue_open) {
		ret = q->backend->queue_open(q, err);
		if (ret)
			goto unmap;
	}
	ret = queue_fetch_all(q, err);
	if (ret)
		goto close_backend;
	return 0;

close_backend:
	if (q->backend->queue_close)
		q->backend->queue_close(q);
unmap:
	munmap(descs, desc_bytes(q));
close_buffers:
	/* The ring first: the kernel may still be at work on the buffers. */
	ring_close(&q->ring);
	buffers_close(&q->buffers);
	close_zero(q);
	goto free_requests;
close_ring:
	ring_close(&q->ring);
	close_zero(q);
free_requests:
	free_requests(q);
	return ret;
}

/* Whether a request is with the backend. */
static bool has_work(const struct queue *q)
{
	for (unsigned tag = 0; tag < q->setup.instance->depth; tag++)
		if (q->requests[tag].in_flight)
			return true;
	return false;
}

static void release_queue(struct queue *q)
{
	/* The ring first: the kernel may still be at work on the buffers. */
	ring_close(&q->ring);
	munmap((void *)(uintptr_t)q->descs, desc_bytes(q));
	buffers_close(&q->buffers);
	close_zero(q);
	free_requests(q);
}

/*
 * The rest is released after the thread's end.  A request that comes while the ring is
 * being closed becomes work of the thread that has fetched: where that lives, Linux 6.12
 * gives it to the ring that nobody looks at any more, after having taken back what was
 * there, and waits for its end for ever.  A queue that has failed lets go at once all the
 * same: whoever waits for START_DEV does not know of it before.
 */
static void close_queue(struct queue *q)
{
	int none[QUEUE_FILES];

	for (unsigned i = 0; i < QUEUE_FILES; i++)
		none[i] = -1;
	if (q->backend->queue_close)
		q->backend->queue_close(q);
	/*
	 * The table's hold on ublkcN and the backend's files ends here, and not when the
	 * ring's own end is worked off.  (To unregister the table would wait for the
	 * fetches, before 6.13.)  Unless the ring has a backend's I/O still and another
	 * server may come: it must not begin before that has ended.
	 */
	if (!q->setup.recoverable || !has_work(q))
		io_uring_register_files_update(&q->ring.uring, 0, none, QUEUE_FILES);
	pthread_mutex_lock(&q->gate);
	q->releases = !q->fault.code && !q->abandoned;
	pthread_mutex_unlock(&q->gate);
	if (q->releases)
		ring_leave(&q->ring);
	else
		release_queue(q);
}

/* fault NULL leaves the one that queue_fault() may have set. */
static void move_to(struct queue *q, enum queue_phase phase, const struct error *fault)
{
	pthread_mutex_lock(&q->gate);
	if (fault)
		q->fault = *fault;
	q->phase = phase;
	pthread_cond_broadcast(&q->moved);
	pthread_mutex_unlock(&q->gate);
}

/*
 * The device decides how many queues there are, CPUs only where their threads run: where
 * none of the wanted CPUs is online or allowed, the thread runs where it may.
 */
static void pin_thread(const struct queue *q)
{
	struct cpus cpus = q->setup.cpus;

	if (cpus_empty(&cpus))
		return;
	cpus_limit(&cpus);
	if (cpus_empty(&cpus) || cpus_pin(&cpus))
		log_debug(q->setup.instance->name,
			  "queue %u: not pinned: none of its CPUs is online and allowed",
			  q->setup.index);
}

static void *queue_main(void *arg)
{
	struct queue *q = arg;
	struct error err = { 0 };
	uint64_t one = 1;
	sigset_t all;
	char name[16];

	atomic_store(&q->thread_id, gettid());
	/* Signals are for the main thread: a handler here would interrupt the ring's wait. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	snprintf(name, sizeof(name), "ublk-queue%u", q->setup.index);
	pthread_setname_np(pthread_self(), name);
	pin_thread(q);
	/* With one CPU, who spins keeps those from it whom he waits for. */
	if (cpus_available() > 1)
		q->poll.bound_ns = q->setup.poll_us * 1000ull;
	if ((q->setup.unprivileged && drop_sys_admin(&err)) || open_queue(q, &err)) {
		error_prefix(&err, "queue %u", q->setup.index);
		move_to(q, QUEUE_ENDED, &err);
	} else {
		log_debug(q->setup.instance->name, "queue %u: %u tags, ring: %s", q->setup.index,
			  q->setup.instance->depth, q->ring.mode);
		move_to(q, QUEUE_READY, NULL);
		queue_serve(q);
		close_queue(q);
		move_to(q, QUEUE_ENDED, NULL);
	}
	/* After move_to(), so that whoever is woken by the event finds the phase QUEUE_ENDED. */
	if (write(q->setup.end_event, &one, sizeof(one)) < 0)
		log_error(q->setup.instance->name, "cannot report the end of queue %u: %s",
			  q->setup.index, strerror(errno));
	return NULL;
}

int queue_start(struct queue *q, const struct queue_setup *setup, struct error *err)
{
	int ret;

	*q = (struct queue){
		.setup = *setup,
		.backend = setup->instance->backend,
		.counters = setup->counters,
		.wake_op.done = queue_woken,
		.zero = -1,
	};
	q->wake = eventfd(0, EFD_CLOEXEC);
	if (q->wake < 0)
		return error_set(err, errno, "eventfd: %s", strerror(errno));
	pthread_mutex_init(&q->gate, NULL);
	clock_condition(&q->moved);
	ret = pthread_create(&q->thread, NULL, queue_main, q);
	if (ret) {
		pthread_cond_destroy(&q->moved);
		pthread_mutex_destroy(&q->gate);
		close(q->wake);
		return error_set(err, ret, "starting a thread for queue %u: %s", setup->index,
				 strerror(ret));
	}
	return 0;
}

/* ---- other threads ---- */

/* Waits until the phase is past `from`.  Returns the phase. */
static enum queue_phase wait_past(struct queue *q, enum queue_phase from, unsigned timeout_ms)
{
	struct timespec until = clock_in_ms(timeout_ms);
	enum queue_phase phase;

	pthread_mutex_lock(&q->gate);
	while (q->phase <= from)
		if (pthread_cond_timedwait(&q->moved, &q->gate, &until))
			break;
	phase = q->phase;
	pthread_mutex_unlock(&q->gate);
	return phase;
}

int queue_wait_ready(struct queue *q, unsigned timeout_ms, struct error *err)
{
	switch (wait_past(q, QUEUE_OPENING, timeout_ms)) {
	case QUEUE_OPENING:
		return error_set(err, ETIMEDOUT, "queue %u: not ready within %u s", q->setup.index,
				 timeout_ms / 1000);
	case QUEUE_READY:
		return 0;
	case QUEUE_ENDED:
		break;
	}
	*err = q->fault;
	if (!err->code)
		error_set(err, ENODEV, "the device was removed while it was being started");
	return -err->code;
}

bool queue_has_failed(struct queue *q)
{
	bool failed;

	pthread_mutex_lock(&q->gate);
	failed = q->phase == QUEUE_ENDED && q->fault.code;
	pthread_mutex_unlock(&q->gate);
	return failed;
}

static uint64_t rounds_of(const struct queue *q)
{
	return __atomic_load_n(&q->counters->rounds, __ATOMIC_ACQUIRE);
}

/* The round's number is read before the flag is set: queue_is_drained() counts from there. */
void queue_drain(struct queue *q, bool on)
{
	q->drain_round = rounds_of(q);
	atomic_store(&q->drain, on);
	queue_wake(q);
}

bool queue_is_drained(struct queue *q)
{
	const struct queue_counters *c = q->counters;

	/* The round that was under way may not have seen it yet; the next one has. */
	if (rounds_of(q) < q->drain_round + 2) {
		queue_wake(q);
		return false;
	}
	return atomic_load(&q->drain) && __atomic_load_n(&c->started, __ATOMIC_ACQUIRE) ==
						 __atomic_load_n(&c->completed, __ATOMIC_ACQUIRE);
}

void queue_quit(struct queue *q)
{
	atomic_store(&q->quit, true);
	queue_wake(q);
}

/* Whether the thread is left to itself: it is not about to end. */
/*
 * Decided under the gate, against close_queue(): either this thread releases the queue after a
 * join, or the queue's own thread does, never both.
 */
static bool abandon(struct queue *q)
{
	bool abandoned;

	pthread_mutex_lock(&q->gate);
	abandoned = q->abandoned = q->phase != QUEUE_ENDED && !q->releases;
	pthread_mutex_unlock(&q->gate);
	return abandoned;
}

int queue_join(struct queue *q, unsigned timeout_ms, struct error *fault)
{
	if (wait_past(q, QUEUE_READY, timeout_ms) != QUEUE_ENDED && abandon(q))
		return -ETIMEDOUT;
	pthread_join(q->thread, NULL);
	if (q->releases)
		release_queue(q);
	if (fault)
		*fault = q->fault;
	pthread_cond_destroy(&q->moved);
	pthread_mutex_destroy(&q->gate);
	close(q->wake);
	return 0;
}
