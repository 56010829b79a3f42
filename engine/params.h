/* SPDX-License-Identifier: MIT */
/*
 * A backend's limits, made the kernel's device parameters.  Pure; any thread.
 */
#ifndef UBLKD_PARAMS_H
#define UBLKD_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/backend.h"
#include "engine/ublk_abi.h"

#define PARAMS_BLOCK_MIN 512u
#define PARAMS_BLOCK_MAX 4096u

/*
 * Checks what a backend said of itself against what the kernel takes, and fills
 * in what it left open (0).  Returns 0, or -EINVAL with err naming the limit.
 */
int params_complete_limits(struct backend_limits *limits, struct error *err);

/*
 * The device's parameters for limits (completed) and requests of at most max_io
 * bytes (a multiple of the page size, as many as the buffers hold).  direct: the
 * backing device does I/O on the requests' own memory, so that its demands on
 * memory count.  Lengths that are no multiple of 512 bytes are rounded down.
 */
void params_make(const struct backend_limits *limits, uint32_t max_io, bool direct,
		 struct ublk_dev_params *params);

/*
 * Whether the driver kept what it was asked for (it clears what it does not
 * know).  Returns 0, or -EOPNOTSUPP with err naming what it lacks.
 */
int params_check_kept(const struct ublk_dev_params *asked, const struct ublk_dev_params *kept,
		      struct error *err);

#endif
