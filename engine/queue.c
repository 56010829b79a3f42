/* SPDX-License-Identifier: MIT */
/*
 * The I/O path.  From QUEUE_READY on: no lock, no allocation, and no system call
 * but the ring's one a round (user copy's own, in buffer.c, aside).
 *
 * A round is: submit what the last one prepared and wait, take the completions
 * (new requests go to the backend, finished work back to it), then commit all
 * that was completed.  Latency counts from the moment a round took the request
 * to the moment a round committed it, so two readings of the clock a round do.
 */
#include "engine/queue.h"
#include "common/clock.h"
#include "common/container_of.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHAR_FILE 0 /* the registered file that is /dev/ublkcN */

/* BLOCK_URING_CMD_DISCARD, include/uapi/linux/blkdev.h of Linux 6.12 */
#define BLKDEV_CMD_DISCARD _IO(0x12, 0)

struct request {
	struct io io;
	struct ring_op command; /* the fetch or commit that is with the kernel */
	struct ring_op work;    /* the backend's I/O on our ring */
	io_callback *work_done;
	uint64_t arrived_ns;
	int result;
	bool in_service; /* between submit() and io_complete() */
};

static struct request *request_of(struct io *io)
{
	return container_of(io, struct request, io);
}

/* ---- what a backend calls ---- */

void *queue_private(struct queue *q)
{
	return q->private;
}

struct export *queue_export(struct queue *q)
{
	return q->setup.export;
}

unsigned queue_index(const struct queue *q)
{
	return q->setup.index;
}

int queue_add_file(struct queue *q, int fd)
{
	int ret;

	if (q->nr_files == QUEUE_FILES)
		return -ENFILE;
	ret = io_uring_register_files_update(&q->ring.uring, q->nr_files, &fd, 1);
	return ret < 0 ? ret : (int)q->nr_files++;
}

void queue_poll(struct queue *q, struct ring_op *op, int fd, unsigned events)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_poll_add(sqe, fd, events);
	ring_sqe_for(sqe, op);
}

_Static_assert(sizeof(struct __kernel_timespec) == 2 * sizeof(long long), "queue_timer's");

void queue_timer(struct queue *q, struct queue_timer *timer, uint64_t ns)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	timer->sec = (long long)(ns / 1000000000u);
	timer->nsec = (long long)(ns % 1000000000u);
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)&timer->sec, 0, 0);
	ring_sqe_for(sqe, &timer->op);
}

static void cancelled(struct ring_op *op, int result)
{
	(void)op;
	(void)result; /* the op hears of it, or has heard */
}

void queue_cancel(struct queue *q, struct ring_op *op)
{
	static struct ring_op nobody = { .done = cancelled };
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_cancel(sqe, op, 0);
	ring_sqe_for(sqe, &nobody);
}

uint64_t queue_now_ns(const struct queue *q)
{
	return q->now_ns;
}

void queue_wake(struct queue *q)
{
	uint64_t one = 1;

	if (write(q->wake, &one, sizeof(one)) < 0)
		log_error(q->setup.export->name, "queue %u: cannot be woken: %s", q->setup.index,
			  strerror(errno));
}

void *io_private(struct io *io)
{
	return (char *)io->queue->io_private + io->tag * io->queue->backend->io_size;
}

void *io_data(struct io *io)
{
	return buffers_data(&io->queue->buffers, io);
}

int io_copy_to(struct io *io, uint32_t at, const void *from, uint32_t length)
{
	return buffers_copy_to(&io->queue->buffers, io, at, from, length);
}

int io_copy_from(struct io *io, uint32_t at, void *to, uint32_t length)
{
	return buffers_copy_from(&io->queue->buffers, io, at, to, length);
}

int io_fill_zero(struct io *io, uint32_t at, uint32_t length)
{
	return buffers_fill_zero(&io->queue->buffers, io, at, length);
}

static void work_finished(struct ring_op *op, int result)
{
	struct request *r = container_of(op, struct request, work);

	r->work_done(&r->io, result);
}

/* An SQE for the backend's work on a registered file is prepared: sends it. */
static void start_work(struct request *r, struct io_uring_sqe *sqe, io_callback *done)
{
	r->work_done = done;
	sqe->flags |= IOSQE_FIXED_FILE;
	ring_sqe_for(sqe, &r->work);
}

void io_transfer(struct io *io, int file, uint64_t file_offset, uint32_t skip, int rw_flags,
		 io_callback *done)
{
	struct io_uring_sqe *sqe = ring_sqe(&io->queue->ring);

	buffers_prep_transfer(&io->queue->buffers, io, sqe, file, file_offset, skip);
	sqe->rw_flags = rw_flags;
	start_work(request_of(io), sqe, done);
}

void io_datasync(struct io *io, int file, io_callback *done)
{
	struct io_uring_sqe *sqe = ring_sqe(&io->queue->ring);

	io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
	start_work(request_of(io), sqe, done);
}

void io_fallocate(struct io *io, int file, int mode, uint64_t offset, uint64_t length,
		  io_callback *done)
{
	struct io_uring_sqe *sqe = ring_sqe(&io->queue->ring);

	io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, file, NULL, (unsigned)mode, offset);
	sqe->addr = length;
	start_work(request_of(io), sqe, done);
}

void io_blkdiscard(struct io *io, int file, uint64_t offset, uint64_t length, io_callback *done)
{
	struct io_uring_sqe *sqe = ring_sqe(&io->queue->ring);

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, file, NULL, 0, 0);
	sqe->cmd_op = BLKDEV_CMD_DISCARD;
	sqe->addr = offset;
	sqe->addr3 = length;
	start_work(request_of(io), sqe, done);
}

/* The kernel's rules for results, ublk_drv.c: __ublk_complete_rq() of 7.2. */
static int legal_result(const struct io *io, int result)
{
	if (result < 0)
		/* EAGAIN would make the block layer believe that it asked for no waiting. */
		return result == -EAGAIN || result < -4095 ? -EIO : result;
	if (io->op > IO_WRITE)
		return 0;
	if ((uint32_t)result >= io->length)
		return (int)io->length;
	/*
	 * Up to 7.2 the rest came back as a request.  Linux 7.3 does so only where it
	 * copies the data itself; with user copy and zero copy it takes a part for all.
	 */
	return -EIO;
}

void io_complete(struct io *io, int result)
{
	struct request *r = request_of(io);
	struct queue *q = io->queue;

	assert(r->in_service);
	r->in_service = false;
	r->result = legal_result(io, result);
	q->done[q->nr_done++] = r;
}

static void zeroes_read(struct io *io, int result)
{
	uint32_t done = result > 0 ? (uint32_t)result : 0;
	int ret = 0;

	if (done < io->length)
		ret = io_fill_zero(io, done, io->length - done);
	io_complete(io, ret ? ret : (int)io->length);
}

void io_complete_zeroes(struct io *io)
{
	if (io->queue->zero >= 0 && buffers_registered(&io->queue->buffers, io))
		io_transfer(io, io->queue->zero_file, 0, 0, 0, zeroes_read);
	else
		zeroes_read(io, 0);
}

/* ---- requests ---- */

static void queue_fault(struct queue *q, int code, const char *what)
{
	if (q->fault.code)
		return;
	pthread_mutex_lock(&q->gate);
	error_set(&q->fault, code, "queue %u: %s: %s", q->setup.index, what, strerror(abs(code)));
	pthread_mutex_unlock(&q->gate);
}

static void serve_request(struct queue *q, struct request *r)
{
	static const uint8_t op_of[] = {
		[UBLK_OP_READ] = IO_READ,      [UBLK_OP_WRITE] = IO_WRITE,
		[UBLK_OP_FLUSH] = IO_FLUSH,    [UBLK_OP_DISCARD] = IO_DISCARD,
		[UBLK_OP_WRITE_SAME] = IO_OPS, [UBLK_OP_WRITE_ZEROES] = IO_WRITE_ZEROES,
	};
	const struct ublk_io_desc *desc = &q->descs[r->io.tag];
	const struct backend_limits *limits = &q->setup.export->limits;
	uint32_t op_flags = desc->op_flags, op = op_flags & UBLK_OP_MASK;
	struct io *io = &r->io;
	uint64_t size;
	int ret = 0;

	io->op = op < sizeof(op_of) ? op_of[op] : IO_OPS;
	io->flags = (uint8_t)((op_flags & UBLK_REQ_FUA ? IO_FUA : 0) |
			      (op_flags & UBLK_REQ_NOUNMAP ? IO_KEEP : 0));
	io->offset = desc->start_sector << UBLK_SECTOR_SHIFT;
	io->length = desc->nr_sectors << UBLK_SECTOR_SHIFT;
	r->arrived_ns = q->now_ns;
	r->in_service = true;
	counters_add(&q->counters->started, 1);

	if (__builtin_expect(io->op > IO_WRITE, 0)) {
		if (io->op == IO_FLUSH)
			io->offset = io->length = 0;
		else if (io->op == IO_OPS ||
			 !(io->op == IO_DISCARD ? limits->max_discard : limits->max_write_zeroes))
			ret = -EOPNOTSUPP;
	}
	size = __atomic_load_n(&limits->size, __ATOMIC_RELAXED);
	if (__builtin_expect(io->offset > size || io->length > size - io->offset, 0))
		ret = -EIO;
	if (__builtin_expect(limits->read_only && io->op != IO_READ && io->op != IO_FLUSH, 0))
		ret = -EROFS;
	if (__builtin_expect(op_flags & UBLK_REQ_NEED_REG_BUF, 0))
		counters_add(&q->counters->fallbacks, 1);
	if (__builtin_expect(ret, 0))
		buffers_refuse(&q->buffers, io);
	else
		ret = buffers_arrive(&q->buffers, io, op_flags);
	if (__builtin_expect(ret, 0))
		io_complete(io, ret);
	else
		q->backend->submit(io);
}

static void take_request(struct queue *q, struct request *r)
{
	if (__builtin_expect(atomic_load_explicit(&q->drain, memory_order_relaxed), 0))
		q->parked[atomic_fetch_add(&q->nr_parked, 1)] = r;
	else
		serve_request(q, r);
}

static void serve_parked(struct queue *q)
{
	unsigned nr = atomic_exchange(&q->nr_parked, 0);

	for (unsigned i = 0; i < nr; i++)
		serve_request(q, q->parked[i]);
}

/* A fetch, or commit and fetch, came back. */
static void command_finished(struct ring_op *op, int result)
{
	struct request *r = container_of(op, struct request, command);
	struct queue *q = r->io.queue;

	if (__builtin_expect(result == UBLK_RES_OK, 1)) {
		take_request(q, r);
		return;
	}
	q->nr_serving--;
	if (result != UBLK_RES_ABORT)
		queue_fault(q, result, "the kernel refused a fetch or commit");
}

static void send_command(struct queue *q, struct request *r, uint32_t op, int result)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);
	struct ublk_io_cmd cmd = {
		.q_id = (uint16_t)q->setup.index,
		.tag = r->io.tag,
		.result = result,
		.addr = buffers_cmd_addr(&q->buffers, r->io.tag),
	};

	memcpy(sqe, &q->command, sizeof(*sqe));
	sqe->cmd_op = op;
	sqe->addr = buffers_sqe_addr(&q->buffers, r->io.tag);
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ring_sqe_for(sqe, &r->command);
}

static void count(struct queue *q, const struct request *r, uint64_t now_ns)
{
	struct queue_counters *c = q->counters;
	uint64_t latency = now_ns - r->arrived_ns;
	struct op_counters *op;

	counters_add(&c->completed, 1);
	if (__builtin_expect(r->result < 0, 0))
		counters_add(&c->errors[counters_error_kind(-r->result)], 1);
	if (__builtin_expect(r->io.op == IO_OPS, 0))
		return;
	op = &c->op[r->io.op];
	counters_add(&op->completed, 1);
	if (__builtin_expect(r->result < 0, 0))
		counters_add(&op->failed, 1);
	else
		counters_add(&op->bytes, r->io.op > IO_WRITE ? r->io.length : (uint32_t)r->result);
	counters_add(&op->latency_ns, latency);
	counters_add(&op->latency[counters_bucket(latency)], 1);
}

static void commit_done(struct queue *q)
{
	uint64_t now_ns;

	if (!q->nr_done)
		return;
	now_ns = clock_ns();
	for (unsigned i = 0; i < q->nr_done; i++) {
		struct request *r = q->done[i];

		r->result = buffers_finish(&q->buffers, &r->io, r->result);
		count(q, r, now_ns);
		send_command(q, r, UBLK_IO_COMMIT_AND_FETCH, r->result);
	}
	q->nr_done = 0;
}

static void wait_for_wake(struct queue *q)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_read(sqe, q->wake, &q->wake_value, sizeof(q->wake_value), 0);
	ring_sqe_for(sqe, &q->wake_op);
}

static void woken(struct ring_op *op, int result)
{
	struct queue *q = container_of(op, struct queue, wake_op);

	if (result > 0)
		wait_for_wake(q);
}

/* Completions are there: takes them, and commits what was completed over them. */
static void do_round(struct queue *q)
{
	q->now_ns = clock_ns();
	ring_dispatch(&q->ring);
	if (__builtin_expect(q->nr_parked && !q->drain, 0))
		serve_parked(q);
	if (q->backend->round_end)
		q->backend->round_end(q);
	commit_done(q);
}

static void serve(struct queue *q)
{
	int ret;

	while (q->nr_serving && !q->fault.code &&
	       !atomic_load_explicit(&q->quit, memory_order_relaxed)) {
		ret = ring_wait(&q->ring);
		if (ret) {
			queue_fault(q, ret, "io_uring_enter");
			return;
		}
		do_round(q);
		counters_add(&q->counters->rounds, 1);
	}
	/* What is done need not be done again by the next server. */
	if (atomic_load(&q->drain))
		ring_submit(&q->ring);
}

/* ---- start and end ---- */

static int drop_sys_admin(struct error *err)
{
	/* Of this thread only: capabilities are a thread's own. */
	if (capng_get_caps_process() ||
	    capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN) ||
	    capng_apply(CAPNG_SELECT_CAPS))
		return error_set(err, EPERM,
				 "--partitions off: CAP_SYS_ADMIN cannot be dropped, so the "
				 "kernel would look for partitions: leave it out");
	return 0;
}

static int fetch_all(struct queue *q, struct error *err)
{
	unsigned depth = q->setup.export->depth;
	int ret;

	for (unsigned tag = 0; tag < depth; tag++) {
		send_command(q, &q->requests[tag], UBLK_IO_FETCH, 0);
		q->nr_serving++;
	}
	wait_for_wake(q);
	ret = ring_submit(&q->ring);
	if (!ret && io_uring_sq_ready(&q->ring.uring))
		ret = -EAGAIN; /* the kernel had no memory for all of them */
	if (ret)
		return error_set(err, ret, "fetching tags: io_uring_enter: %s", strerror(-ret));
	/* A refused fetch is answered at once; a request cannot come before START_DEV. */
	do_round(q);
	if (q->nr_serving == depth && !q->fault.code)
		return 0;
	*err = q->fault;
	if (!err->code)
		error_set(err, ENODEV, "the device was removed while it was being started");
	return -err->code;
}

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

static int alloc_requests(struct queue *q)
{
	const struct backend *backend = q->backend;
	unsigned depth = q->setup.export->depth;

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
			.command.done = command_finished,
			.work.done = work_finished,
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
	return (q->setup.export->depth * sizeof(struct ublk_io_desc) + page - 1) / page * page;
}

/* What the queue does on its ring, and what a backend with that access can have it do. */
static uint64_t ring_ops(enum backend_access access)
{
	uint64_t ops = RING_OP(IORING_OP_URING_CMD) | RING_OP(IORING_OP_READ) |
		       RING_OP(IORING_OP_POLL_ADD) | RING_OP(IORING_OP_TIMEOUT) |
		       RING_OP(IORING_OP_ASYNC_CANCEL) | RING_OP(IORING_OP_FSYNC);

	if (access == ACCESS_RING || access == ACCESS_NONE)
		ops |= RING_OP(IORING_OP_READ_FIXED);
	if (access == ACCESS_RING || access == ACCESS_MEMORY)
		ops |= RING_OP(IORING_OP_FALLOCATE);
	if (access == ACCESS_RING)
		ops |= RING_OP(IORING_OP_WRITE) | RING_OP(IORING_OP_WRITE_FIXED);
	return ops;
}

static int open_queue(struct queue *q, struct error *err)
{
	const struct queue_setup *s = &q->setup;
	unsigned depth = s->export->depth;
	void *descs;
	int ret;

	ret = alloc_requests(q);
	if (ret) {
		error_set(err, ret, "no memory for %u tags", depth);
		goto free_requests;
	}
	/* A tag has one SQE at most: its command, or its work; then there is the wake-up. */
	ret = ring_open(&q->ring, depth + 8, ring_ops(q->backend->access), err);
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
	ret = fetch_all(q, err);
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
	for (unsigned tag = 0; tag < q->setup.export->depth; tag++)
		if (q->requests[tag].in_service)
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
		log_debug(q->setup.export->name,
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
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	snprintf(name, sizeof(name), "ublk-queue%u", q->setup.index);
	pthread_setname_np(pthread_self(), name);
	pin_thread(q);
	if ((q->setup.unprivileged && drop_sys_admin(&err)) || open_queue(q, &err)) {
		error_prefix(&err, "queue %u", q->setup.index);
		move_to(q, QUEUE_ENDED, &err);
	} else {
		log_debug(q->setup.export->name, "queue %u: %u tags, ring: %s", q->setup.index,
			  q->setup.export->depth, q->ring.mode);
		move_to(q, QUEUE_READY, NULL);
		serve(q);
		close_queue(q);
		move_to(q, QUEUE_ENDED, NULL);
	}
	if (write(q->setup.end_event, &one, sizeof(one)) < 0)
		log_error(q->setup.export->name, "queue %u: its end cannot be told: %s",
			  q->setup.index, strerror(errno));
	return NULL;
}

int queue_start(struct queue *q, const struct queue_setup *setup, struct error *err)
{
	int ret;

	*q = (struct queue){
		.setup = *setup,
		.backend = setup->export->backend,
		.counters = setup->counters,
		.wake_op.done = woken,
		.zero = -1,
		.command = { .opcode = IORING_OP_URING_CMD,
			     .flags = IOSQE_FIXED_FILE,
			     .fd = CHAR_FILE },
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
