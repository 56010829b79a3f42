/* SPDX-License-Identifier: MIT */
/*
 * stuck-command: commands to the driver that never return, and cannot be cancelled.
 * Loaded into ublkd by LD_PRELOAD.
 *
 * The file that STUCK_COMMAND names has a line "COMMAND ID" for each, such as
 * "START_DEV 7"; it may change at any time.  In place of the command the kernel gets a
 * wait for what never comes.  What ublkd tells its service manager is appended to
 * STUCK_COMMAND.notify, a line each, after the seconds since the machine's start.
 */
#include "engine/ublk_abi.h"

#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#define STUCK_MAX 64

static const struct {
	const char *name;
	uint32_t op;
} commands[] = {
	{ "ADD_DEV", UBLK_CTRL_ADD_DEV },
	{ "DEL_DEV", UBLK_CTRL_DEL_DEV },
	{ "DEL_DEV_ASYNC", UBLK_CTRL_DEL_DEV_ASYNC },
	{ "START_DEV", UBLK_CTRL_START_DEV },
	{ "STOP_DEV", UBLK_CTRL_STOP_DEV },
	{ "TRY_STOP_DEV", UBLK_CTRL_TRY_STOP_DEV },
	{ "START_USER_RECOVERY", UBLK_CTRL_START_USER_RECOVERY },
	{ "END_USER_RECOVERY", UBLK_CTRL_END_USER_RECOVERY },
};

static const char *file;
static int never = -1;            /* an eventfd that is never raised */
static uint64_t stuck[STUCK_MAX]; /* their numbers */
static unsigned nr_stuck;

/* Children have nothing to do with it. */
static __attribute__((constructor)) void begin(void)
{
	if (!strcmp(program_invocation_short_name, "ublkd"))
		file = getenv("STUCK_COMMAND");
	unsetenv("LD_PRELOAD");
	if (file)
		never = eventfd(0, EFD_CLOEXEC);
}

static bool is_to_be_stuck(const struct io_uring_sqe *sqe)
{
	struct ublk_ctrl_cmd payload;
	char name[32];
	unsigned id;
	bool found = false;
	FILE *f;

	memcpy(&payload, sqe->cmd, sizeof(payload));
	f = fopen(file, "re");
	while (f && !found && fscanf(f, "%31s %u", name, &id) == 2)
		for (unsigned i = 0; i < sizeof(commands) / sizeof(*commands); i++)
			found |= id == payload.dev_id && commands[i].op == sqe->cmd_op &&
				 !strcmp(commands[i].name, name);
	if (f)
		fclose(f);
	return found && nr_stuck < STUCK_MAX;
}

static bool is_stuck(uint64_t number)
{
	for (unsigned i = 0; i < nr_stuck; i++)
		if (stuck[i] == number)
			return true;
	return false;
}

static void look_at(struct io_uring_sqe *sqe)
{
	uint64_t number = sqe->user_data;

	if (sqe->opcode == IORING_OP_URING_CMD && is_to_be_stuck(sqe)) {
		stuck[nr_stuck++] = number;
		memset(sqe, 0, 2 * sizeof(*sqe));
		io_uring_prep_poll_add(sqe, never, POLLIN);
		sqe->user_data = number;
	} else if (sqe->opcode == IORING_OP_ASYNC_CANCEL && is_stuck(sqe->addr)) {
		memset(sqe, 0, 2 * sizeof(*sqe));
		io_uring_prep_nop(sqe);
		sqe->user_data = number;
	}
}

int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_submit");
	unsigned shift = ring->flags & IORING_SETUP_SQE128 ? 1 : 0;

	for (unsigned i = ring->sq.sqe_head; file && shift && i != ring->sq.sqe_tail; i++)
		look_at(&ring->sq.sqes[(i & *ring->sq.kring_mask) << shift]);
	return real(ring);
}

int sd_notify(int unset, const char *state)
{
	int (*real)(int, const char *) = dlsym(RTLD_NEXT, "sd_notify");
	struct timespec t;
	char path[200];
	FILE *f;

	if (file) {
		clock_gettime(CLOCK_BOOTTIME, &t);
		snprintf(path, sizeof(path), "%s.notify", file);
		f = fopen(path, "ae");
		if (!f)
			abort();
		fprintf(f, "%lld %s\n", (long long)t.tv_sec, state);
		fclose(f);
	}
	return real(unset, state);
}
