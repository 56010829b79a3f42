/* SPDX-License-Identifier: MIT */
/*
 * The commands of /dev/ublk-control for fibers (engine/control.h), on one ring that the
 * loop watches: a command that never returns stops one fiber, for as long as its deadline
 * says, and nothing else.
 *
 * Thread: the loop's.  All but control_async_open() are called from fibers.
 */
#ifndef UBLKD_CONTROL_ASYNC_H
#define UBLKD_CONTROL_ASYNC_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "engine/control.h"

struct error;

/* Commands that may be waiting in the kernel at once. */
#define CONTROL_MAX_INFLIGHT 128u

/*
 * Opens the driver and learns its features.  deadline_ms: of a command that may
 * wait.  Returns 0, or -errno with err filled.
 */
int control_async_open(uv_loop_t *loop, unsigned deadline_ms, struct error *err);

/* The UBLK_FEAT_* of this kernel. */
uint64_t control_async_features(void);

/*
 * A control for one fiber's commands, whose hooks wait as fibers do.  export: whose device
 * its attributes are (it must stay); NULL: none are written.
 */
void control_async_init(struct control *control, const char *export);

#endif
