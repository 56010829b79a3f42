/* SPDX-License-Identifier: MIT */
/*
 * The calls that a backend makes (engine/backend.h), on its queue's thread. They prepare
 * SQEs, which go out with the round's one system call; io_complete() puts the request on
 * the round's list of completed ones.
 */
#include "engine/queue_parts.h"
#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* BLOCK_URING_CMD_DISCARD, include/uapi/linux/blkdev.h of Linux 6.12 */
#define BLKDEV_CMD_DISCARD _IO(0x12, 0)

void *queue_private(struct queue *q)
{
	return q->private;
}

struct instance *queue_instance(struct queue *q)
{
	return q->setup.instance;
}

unsigned queue_index(const struct queue *q)
{
	return q->setup.index;
}

/* Registered files spare the kernel a look-up with a reference count for each request. */
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

/*
 * The time is kept in *timer, the backend's memory: the kernel may read it only at the submission.
 */
void queue_timer(struct queue *q, struct queue_timer *timer, uint64_t ns)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	timer->sec = (long long)(ns / 1000000000u);
	timer->nsec = (long long)(ns % 1000000000u);
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)&timer->sec, 0, 0);
	ring_sqe_for(sqe, &timer->op);
}

#define CANCEL_NS        10000000
#define CANCEL_REPORT_MS 5000u

static void cancelled(struct ring_op *op, int result)
{
	(void)op;
	(void)result; /* the op hears of it, or has heard */
}

void queue_cancel(struct queue *q, struct ring_op *op)
{
	/* The cancelling SQE has a completion of its own, which nobody waits for. */
	static struct ring_op nobody = { .done = cancelled };
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_cancel(sqe, op, 0);
	ring_sqe_for(sqe, &nobody);
}

void queue_send(struct queue *q, struct ring_op *op, int fd, const struct msghdr *message, bool all)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	/* MSG_WAITALL: the kernel sends the rest of what a full socket took a part of. */
	io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL | (all ? MSG_WAITALL : 0));
	ring_sqe_for(sqe, op);
}

void queue_receive(struct queue *q, struct ring_op *op, int fd, void *buffer, size_t length,
		   bool all)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_recv(sqe, fd, buffer, length, all ? MSG_WAITALL : 0);
	ring_sqe_for(sqe, op);
}

/* Whether the op's completion is there; inside of ring_dispatch(), too, which takes them later. */
static bool has_completed(const struct queue *q, const struct ring_op *op)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	io_uring_for_each_cqe(&q->ring.uring, head, cqe)
	{
		if (cqe->user_data == (uint64_t)(uintptr_t)op)
			return true;
	}
	return false;
}

/*
 * The completion is the proof, and not what the kernel says of the cancel: ENOENT is also the
 * answer for an operation that waits to be tried once more, and with deferred task work a cancel
 * that waits for io-wq is woken by nobody. An operation that cannot be ended hangs the queue, and
 * so ends with its process: its buffers must not be given to the next request.
 */
void queue_cancel_now(struct queue *q, struct ring_op *op)
{
	uint64_t began = clock_ms();
	bool reported = false;

	/* What is prepared would else begin later. */
	ring_submit(&q->ring);
	while (!has_completed(q, op)) {
		struct io_uring_sync_cancel_reg cancel = {
			.addr = (uint64_t)(uintptr_t)op,
			.fd = -1,
			.timeout = { 0, CANCEL_NS },
		};

		io_uring_register(q->ring.uring.ring_fd, IORING_REGISTER_SYNC_CANCEL, &cancel, 1);
		io_uring_submit_and_get_events(&q->ring.uring);
		if (!reported && clock_ms() - began > CANCEL_REPORT_MS) {
			reported = true;
			log_error(q->setup.instance->name,
				  "queue %u: the kernel does not end an operation on a socket",
				  q->setup.index);
		}
	}
}

static void time_is_over(struct ring_op *op, int result)
{
	struct queue_timer *timer = container_of(op, struct queue_timer, op);

	(void)result;
	timer->sec = -1;
}

bool queue_run_until(struct queue *q, bool (*done)(const void *context), const void *context,
		     unsigned ms)
{
	struct queue_timer timer = { .op.done = time_is_over };
	bool was_draining = atomic_exchange(&q->drain, true);

	queue_timer(q, &timer, ms * 1000000ull);
	while (!done(context) && timer.sec >= 0) {
		if (ring_wait(&q->ring))
			break;
		q->now_ns = clock_ns();
		ring_dispatch(&q->ring);
	}
	/* It is on our stack. */
	if (timer.sec >= 0)
		queue_cancel_now(q, &timer.op);
	while (timer.sec >= 0 && !ring_wait(&q->ring))
		ring_dispatch(&q->ring);
	atomic_store(&q->drain, was_draining);
	return done(context);
}

uint64_t queue_now_ns(const struct queue *q)
{
	return q->now_ns;
}

uint64_t queue_round(const struct queue *q)
{
	return q->ring.rounds;
}

void queue_wake(struct queue *q)
{
	uint64_t one = 1;

	if (write(q->wake, &one, sizeof(one)) < 0)
		log_error(q->setup.instance->name, "cannot wake queue %u: %s", q->setup.index,
			  strerror(errno));
}

void *io_private(struct io *io)
{
	return request_of(io)->private;
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

void queue_work_finished(struct ring_op *op, int result)
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

/* What io_transfer() does where the ring is full or does not have the request's pages. */
static __attribute__((noinline)) void transfer_otherwise(struct io *io, int file,
							 uint64_t file_offset, uint32_t skip,
							 int rw_flags, io_callback *done)
{
	struct io_uring_sqe *sqe = ring_sqe(&io->queue->ring);
	struct buffers *buffers = &io->queue->buffers;

	if (buffers_registered(buffers, io))
		buffers_prep_pages(io, sqe, file, file_offset, skip);
	else
		buffers_prep_staged(buffers, io, sqe, file, file_offset, skip);
	sqe->rw_flags = rw_flags;
	start_work(request_of(io), sqe, done);
}

void io_transfer(struct io *io, int file, uint64_t file_offset, uint32_t skip, int rw_flags,
		 io_callback *done)
{
	struct ring *ring = &io->queue->ring;
	struct io_uring_sqe *sqe;

	/* No call but the last in each way, so that nothing is saved on the stack. */
	if (__builtin_expect(!ring_has_room(ring), 0) ||
	    __builtin_expect(!buffers_registered(&io->queue->buffers, io), 0)) {
		transfer_otherwise(io, file, file_offset, skip, rw_flags, done);
		return;
	}
	sqe = ring_sqe_in_room(ring);
	buffers_prep_pages(io, sqe, file, file_offset, skip);
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

	/* The kernel expects the length in addr and the mode in len. */
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

	/* A second completion would commit a tag that may have its next request by then. */
	assert(r->in_flight);
	r->in_flight = false;
	r->result = legal_result(io, result);
	q->done[q->nr_done++] = r;
}

/* /dev/zero gave less than was asked for, or an error: the rest is filled by a copy. */
static __attribute__((noinline)) void fill_rest(struct io *io, int result)
{
	uint32_t done = result > 0 ? (uint32_t)result : 0;
	int ret = io_fill_zero(io, done, io->length - done);

	io_complete(io, ret ? ret : (int)io->length);
}

static void zeroes_read(struct io *io, int result)
{
	if (__builtin_expect(result == (int)io->length, 1))
		io_complete(io, result);
	else
		fill_rest(io, result);
}

void io_complete_zeroes(struct io *io)
{
	if (io->queue->zero >= 0 && buffers_registered(&io->queue->buffers, io))
		io_transfer(io, io->queue->zero_file, 0, 0, 0, zeroes_read);
	else
		fill_rest(io, 0);
}
