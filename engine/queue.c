/* SPDX-License-Identifier: MIT */
/*
 * The I/O path.  From QUEUE_READY on: no lock, no allocation, and no system call
 * but the ring's one a round (user copy's own, in buffer.c, aside).
 *
 * A round is: submit what the last one prepared and wait, take the completions
 * (new requests go to the backend, finished work back to it), then commit all
 * that was completed.  Latency counts from the moment a round took the request
 * to the moment a round committed it, so two readings of the clock a round do.
 *
 * Read from below: queue_serve() waits for completions, do_round() handles them.
 * A fetch that completes is a request: queue_command_finished(), take_request(),
 * serve_request(), the backend's submit(). A request that io_complete() has ended is
 * committed by commit_done(): one COMMIT_AND_FETCH (send_command()).
 */
#include "engine/queue_parts.h"
#include "common/clock.h"
#include "common/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/*
 * The first fault counts: those after it mostly follow from it. Other threads read the text under
 * the gate.
 */
static void queue_fault(struct queue *q, int code, const char *what)
{
	if (q->fault.code)
		return;
	pthread_mutex_lock(&q->gate);
	error_set(&q->fault, code, "queue %u: %s: %s", q->setup.index, what, strerror(abs(code)));
	pthread_mutex_unlock(&q->gate);
}

/* Of a request's op_flags: what only few have, and takes a closer look. */
#define UNUSUAL ((UBLK_OP_MASK & ~1u) | UBLK_REQ_FUA | UBLK_REQ_NOUNMAP | UBLK_REQ_NEED_REG_BUF)
_Static_assert(UBLK_OP_READ == 0 && IO_READ == 0 && UBLK_OP_WRITE == 1 && IO_WRITE == 1,
	       "reads and writes have the driver's numbers");

/* Returns 0, or -errno: no backend is to see it. */
static __attribute__((noinline)) int look_closer(struct queue *q, struct io *io, uint32_t op_flags)
{
	/*
	 * The driver's operations may grow: an unknown number, and WRITE_SAME, which no backend
	 * has, become IO_OPS and end with EOPNOTSUPP.
	 */
	static const uint8_t op_of[] = {
		[UBLK_OP_READ] = IO_READ,      [UBLK_OP_WRITE] = IO_WRITE,
		[UBLK_OP_FLUSH] = IO_FLUSH,    [UBLK_OP_DISCARD] = IO_DISCARD,
		[UBLK_OP_WRITE_SAME] = IO_OPS, [UBLK_OP_WRITE_ZEROES] = IO_WRITE_ZEROES,
	};
	const struct backend_limits *limits = &q->setup.instance->limits;
	uint32_t op = op_flags & UBLK_OP_MASK;

	io->op = op < sizeof(op_of) ? op_of[op] : IO_OPS;
	if (op_flags & UBLK_REQ_FUA)
		io->flags |= IO_FUA;
	if (op_flags & UBLK_REQ_NOUNMAP)
		io->flags |= IO_KEEP;
	if (op_flags & UBLK_REQ_NEED_REG_BUF) {
		io->flags |= IO_UNREGISTERED;
		counters_add(&q->counters->fallbacks, 1);
	}
	if (io->op == IO_FLUSH)
		io->offset = io->length = 0;
	if (io->op == IO_OPS || (io->op == IO_DISCARD && !limits->max_discard) ||
	    (io->op == IO_WRITE_ZEROES && !limits->max_write_zeroes))
		return -EOPNOTSUPP;
	return 0;
}

static inline __attribute__((always_inline)) void serve_request(struct queue *q, struct request *r)
{
	const struct ublk_io_desc *desc = &q->descs[r->io.tag];
	const struct backend_limits *limits = &q->setup.instance->limits;
	uint32_t op_flags = desc->op_flags;
	struct io *io = &r->io;
	uint64_t size;
	int ret = 0;

	io->op = op_flags & 1;
	io->flags = 0;
	io->offset = desc->start_sector << UBLK_SECTOR_SHIFT;
	io->length = desc->nr_sectors << UBLK_SECTOR_SHIFT;
	r->arrived_ns = q->now_ns;
	r->in_flight = true;
	counters_add(&q->counters->started, 1);

	if (__builtin_expect(op_flags & UNUSUAL, 0))
		ret = look_closer(q, io, op_flags);
	/*
	 * Atomic, because serving_set_size() changes it on the device's thread while requests
	 * arrive. The kernel checks the range too; this check keeps a backend safe from a driver
	 * that does not.
	 */
	size = __atomic_load_n(&limits->size, __ATOMIC_RELAXED);
	if (__builtin_expect(io->offset > size || io->length > size - io->offset, 0))
		ret = -EIO;
	if (__builtin_expect(limits->read_only, 0) && io->op != IO_READ && io->op != IO_FLUSH)
		ret = -EROFS;
	if (__builtin_expect(ret, 0))
		buffers_refuse(&q->buffers, io);
	else
		ret = buffers_arrive(&q->buffers, io);
	if (__builtin_expect(ret, 0))
		io_complete(io, ret);
	else
		q->backend->submit(io);
}

/*
 * While the queue drains, new requests stay with the driver's tags: parked and not started, so that
 * the next worker gets them as they came. serve_parked() takes them if the drain is called off.
 */
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
void queue_command_finished(struct ring_op *op, int result)
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

/* One SQE for a fetch, or for a commit that fetches the tag's next request. */
static inline void send_command(struct queue *q, struct request *r, uint32_t op, int result)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);
	struct ublk_io_cmd *payload = (struct ublk_io_cmd *)sqe->cmd;

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, CHAR_FILE, NULL, 0, 0);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->cmd_op = op;
	sqe->addr = r->sqe_addr;
	memcpy(payload, &r->payload, offsetof(struct ublk_io_cmd, result));
	payload->result = result;
	payload->addr = r->payload.addr;
	ring_sqe_for(sqe, &r->command);
}

/* Of completed requests in a row with one operation; and the last one's latency. */
struct tally {
	struct op_counters *op;
	uint64_t ended, bytes, latency_ns;
	uint64_t last_ns;
	unsigned bucket;
};

static inline void end_tally(const struct tally *tally)
{
	if (!tally->op)
		return;
	counters_add(&tally->op->completed, tally->ended);
	counters_add(&tally->op->bytes, tally->bytes);
	counters_add(&tally->op->latency_ns, tally->latency_ns);
}

static __attribute__((noinline)) void count_failure(struct queue *q, const struct request *r)
{
	counters_add(&q->counters->errors[counters_error_kind(-r->result)], 1);
	if (r->io.op != IO_OPS)
		counters_add(&q->counters->op[r->io.op].failed, 1);
}

static inline void count(struct queue *q, const struct request *r, uint64_t now_ns,
			 struct tally *tally)
{
	uint64_t latency_ns = now_ns - r->arrived_ns;

	if (__builtin_expect(r->result < 0, 0))
		count_failure(q, r);
	if (__builtin_expect(r->io.op == IO_OPS, 0))
		return;
	if (__builtin_expect(&q->counters->op[r->io.op] != tally->op, 0)) {
		end_tally(tally);
		tally->op = &q->counters->op[r->io.op];
		tally->ended = tally->bytes = tally->latency_ns = 0;
	}
	/* Most have come in one round. */
	if (latency_ns != tally->last_ns) {
		tally->last_ns = latency_ns;
		tally->bucket = counters_bucket(latency_ns);
	}
	tally->ended++;
	tally->bytes += r->result < 0 ? 0 : r->io.length; /* legal_result() */
	tally->latency_ns += latency_ns;
	counters_add(&tally->op->latency[tally->bucket], 1);
}

static void commit_done(struct queue *q)
{
	struct tally tally = { .op = NULL };
	uint64_t now_ns;

	if (!q->nr_done)
		return;
	now_ns = clock_ns();
	for (unsigned i = 0; i < q->nr_done; i++) {
		struct request *r = q->done[i];

		/*
		 * Staged data of a read is copied to the kernel before the commit, after which the
		 * tag may belong to the next request. A copy that fails changes the result.
		 */
		r->result = buffers_finish(&q->buffers, &r->io, r->result);
		count(q, r, now_ns, &tally);
		send_command(q, r, UBLK_IO_COMMIT_AND_FETCH, r->result);
	}
	end_tally(&tally);
	counters_add(&q->counters->completed, q->nr_done);
	q->nr_done = 0;
}

/*
 * A read of the eventfd waits on the ring all the time, so that queue_wake() of any thread ends the
 * ring's wait. A read that fails, as when the ring is closed, is not repeated.
 */
static void wait_for_wake(struct queue *q)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	io_uring_prep_read(sqe, q->wake, &q->wake_value, sizeof(q->wake_value), 0);
	ring_sqe_for(sqe, &q->wake_op);
}

void queue_woken(struct ring_op *op, int result)
{
	struct queue *q = container_of(op, struct queue, wake_op);

	if (result > 0)
		wait_for_wake(q);
}

/* Completions are there: takes them, and commits what was completed over them; their number. */
static unsigned do_round(struct queue *q)
{
	unsigned completions;

	/*
	 * The order matters: round_end() may complete requests, and its SQEs and the commits leave
	 * with the next ring_wait(), in one system call.
	 */
	q->now_ns = clock_ns();
	completions = ring_dispatch(&q->ring);
	if (__builtin_expect(q->nr_parked && !q->drain, 0))
		serve_parked(q);
	if (q->backend->round_end)
		q->backend->round_end(q);
	commit_done(q);
	return completions;
}

int queue_fetch_all(struct queue *q, struct error *err)
{
	unsigned depth = q->setup.instance->depth;
	int ret;

	/*
	 * START_DEV waits in the driver until every tag of every queue was fetched, so a tag that
	 * cannot be fetched must fail the start here and not hang there.
	 */
	for (unsigned tag = 0; tag < depth; tag++) {
		struct request *r = &q->requests[tag];

		r->payload = (struct ublk_io_cmd){
			.q_id = (uint16_t)q->setup.index,
			.tag = (uint16_t)tag,
			.addr = buffers_cmd_addr(&q->buffers, tag),
		};
		r->sqe_addr = buffers_sqe_addr(&q->buffers, tag);
		send_command(q, r, UBLK_IO_FETCH, 0);
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

/* Submits, and spins for the next completion.  Returns 0 or -errno. */
static int poll_ring(struct queue *q)
{
	uint64_t began, ended;
	int ret = ring_submit(&q->ring);
	struct rusage usage;
	bool paid;

	if (ret)
		return ret;
	began = clock_ns();
	paid = ring_poll(&q->ring, began + q->poll.bound_ns);
	ended = clock_ns();
	getrusage(RUSAGE_THREAD, &usage);
	busy_poll_ended(&q->poll, paid, usage.ru_nivcsw);
	counters_add(&q->counters->polls, 1);
	counters_add(&q->counters->poll_hits, paid);
	counters_add(&q->counters->poll_ns, ended - began);
	return 0;
}

void queue_serve(struct queue *q)
{
	unsigned completions = 0;
	int ret;

	while (q->nr_serving && !q->fault.code &&
	       !atomic_load_explicit(&q->quit, memory_order_relaxed)) {
		ret = 0;
		if (__builtin_expect(busy_poll_is_due(&q->poll, completions), 0))
			ret = poll_ring(q);
		if (!ret)
			ret = ring_wait(&q->ring);
		if (ret) {
			queue_fault(q, ret, "io_uring_enter");
			return;
		}
		completions = do_round(q);
		counters_add(&q->counters->rounds, 1);
	}
	/* Commits go out, so that the next worker need not do the requests again. */
	if (atomic_load(&q->drain))
		ring_submit(&q->ring);
}
