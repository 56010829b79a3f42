/* SPDX-License-Identifier: MIT */
#include "engine/ring.h"
#include "common/clock.h"
#include "common/error.h"
#include "engine/ring_policy.h"

#include <cap-ng.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	unsigned flags;
	const char *mode;
} ring_modes[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	  "single issuer, deferred task work" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "cooperative task work" },
	{ 0, "plain" },
};

static bool is_privileged(void)
{
	return !capng_get_caps_process() && capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
}

int ring_error(struct error *err, int code)
{
	code = code < 0 ? -code : code;
	ring_policy_read(NULL);
	if (code == EPERM && ring_policy_refuses(getegid(), is_privileged(), err))
		return -code;
	/*
	 * ENOSYS as well: whoever comes here has opened the ublk driver, which no kernel
	 * without io_uring can have.
	 */
	if (code == EPERM || code == ENOSYS)
		return error_set(
			err, code,
			"io_uring is not permitted here (%s): a seccomp filter or a security "
			"module forbids it (container runtimes do by default)",
			strerror(code));
	if (code == ENOMEM)
		return error_set(err, code,
				 "no memory for an io_uring: raise the limit of locked memory "
				 "(ulimit -l)");
	return error_set(err, code, "cannot set up an io_uring: %s", strerror(code));
}

/* Registrations of the queue, buffer.c and queue_cancel_now(), and liburing's of the ring's descriptor. */
static const uint8_t registrations[] = {
	IORING_REGISTER_FILES,          IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_BUFFERS2,
	IORING_REGISTER_BUFFERS_UPDATE, IORING_REGISTER_RING_FDS,     IORING_UNREGISTER_RING_FDS,
	IORING_REGISTER_SYNC_CANCEL,
};
#define REGISTRATIONS (sizeof(registrations) / sizeof(*registrations))

static int restrict_to(struct ring *ring, uint64_t ops)
{
	struct io_uring_restriction all[64 + REGISTRATIONS + 1] = { 0 };
	unsigned n = 0;
	int ret;

	for (uint8_t op = 0; op < 64; op++) {
		if (!(ops & RING_OP(op)))
			continue;
		all[n].opcode = IORING_RESTRICTION_SQE_OP;
		all[n++].sqe_op = op;
	}
	for (unsigned i = 0; i < REGISTRATIONS; i++) {
		all[n].opcode = IORING_RESTRICTION_REGISTER_OP;
		all[n++].register_op = registrations[i];
	}
	all[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	all[n++].sqe_flags = IOSQE_FIXED_FILE;
	/* liburing 2.3 declares functions of these two, and has none. */
	ret = io_uring_register(ring->uring.ring_fd, IORING_REGISTER_RESTRICTIONS, all, n);
	if (ret >= 0)
		ret = io_uring_register(ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	return ret;
}

int ring_open(struct ring *ring, unsigned entries, uint64_t ops, bool polls, struct error *err)
{
	int ret = -EINVAL;

	for (unsigned i = 0; i < sizeof(ring_modes) / sizeof(*ring_modes) && ret == -EINVAL; i++) {
		struct io_uring_params params = { .flags = ring_modes[i].flags |
							   IORING_SETUP_R_DISABLED };

		/* Without one of the modes that defer work, the kernel refuses the flag. */
		if (polls && ring_modes[i].flags)
			params.flags |= IORING_SETUP_TASKRUN_FLAG;
		ret = io_uring_queue_init_params(entries, &ring->uring, &params);
		ring->mode = ring_modes[i].mode;
	}
	if (ret < 0)
		return ring_error(err, ret);
	ret = restrict_to(ring, ops);
	if (ret < 0) {
		io_uring_queue_exit(&ring->uring);
		return error_set(err, ret, "cannot restrict the io_uring: %s", strerror(-ret));
	}
	/* Without it (before 5.18) each round looks the descriptor up again. */
	io_uring_register_ring_fd(&ring->uring);
	return 0;
}

void ring_leave(struct ring *ring)
{
	/* Registered descriptors are a thread's own: another's may have the same number. */
	io_uring_unregister_ring_fd(&ring->uring);
}

void ring_close(struct ring *ring)
{
	io_uring_queue_exit(&ring->uring);
}

struct io_uring_sqe *ring_sqe_late(struct ring *ring)
{
	struct io_uring_sqe *sqe;

	do {
		io_uring_submit(&ring->uring);
		sqe = io_uring_get_sqe(&ring->uring);
	} while (!sqe);
	return sqe;
}

static int soft_errors(int ret)
{
	/* EBUSY and EAGAIN: completions must be taken first, which the caller does next. */
	if (ret >= 0 || ret == -EINTR || ret == -EBUSY || ret == -EAGAIN)
		return 0;
	return ret;
}

int ring_submit(struct ring *ring)
{
	return soft_errors(io_uring_submit(&ring->uring));
}

int ring_wait(struct ring *ring)
{
	return soft_errors(io_uring_submit_and_wait(&ring->uring, 1));
}

/* One look at the clock costs as much as some dozen at the ring. */
#define LOOKS 32u

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield");
#endif
}

static bool has_news(const struct ring *ring)
{
	unsigned flags = __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED);

	return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW) ||
	       io_uring_cq_ready(&ring->uring);
}

bool ring_poll(const struct ring *ring, uint64_t until_ns)
{
	do {
		for (unsigned i = 0; i < LOOKS; i++) {
			if (has_news(ring))
				return true;
			relax();
		}
	} while (clock_ns() < until_ns);
	return false;
}
