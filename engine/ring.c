/* SPDX-License-Identifier: MIT */
#include "engine/ring.h"
#include "engine/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	unsigned flags;
	const char *mode;
} ring_modes[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	  "single issuer, deferred task work" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "cooperative task work" },
	{ 0, "plain" },
};

int ring_refused(struct error *err, int code)
{
	char setting[16] = "";
	FILE *f;

	code = code < 0 ? -code : code;
	f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	if (f) {
		if (!fgets(setting, sizeof(setting), f))
			setting[0] = 0;
		fclose(f);
		setting[strcspn(setting, "\n")] = 0;
	}
	if (code == EPERM && *setting && strcmp(setting, "0"))
		return error_set(err, code,
				 "io_uring is switched off (kernel.io_uring_disabled is %s): "
				 "sysctl kernel.io_uring_disabled=0",
				 setting);
	if (code == EPERM)
		return error_set(
			err, code,
			"io_uring is not permitted here: a seccomp filter or a security module "
			"forbids it (container runtimes do by default)");
	if (code == ENOSYS)
		return error_set(err, code,
				 "this kernel has no io_uring: Linux 6.4 or later is needed");
	if (code == ENOMEM)
		return error_set(err, code,
				 "no memory for an io_uring: raise the limit of locked memory "
				 "(ulimit -l)");
	return error_set(err, code, "cannot set up an io_uring: %s", strerror(code));
}

int ring_open(struct ring *ring, unsigned entries, struct error *err)
{
	int ret = -EINVAL;

	for (unsigned i = 0; i < sizeof(ring_modes) / sizeof(*ring_modes) && ret == -EINVAL; i++) {
		struct io_uring_params params = { .flags = ring_modes[i].flags };

		ret = io_uring_queue_init_params(entries, &ring->uring, &params);
		ring->mode = ring_modes[i].mode;
	}
	if (ret < 0)
		return ring_refused(err, ret);
	/* Without it (before 5.18) each round looks the descriptor up again. */
	io_uring_register_ring_fd(&ring->uring);
	return 0;
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
