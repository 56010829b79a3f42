/* SPDX-License-Identifier: MIT */
/*
 * A backend's limits, as they cross the channel and lie in a record.
 * Pure; any thread.
 */
#ifndef UBLKD_LIMITS_H
#define UBLKD_LIMITS_H

#include <jansson.h>

#include "engine/backend.h"

json_t *limits_to_json(const struct backend_limits *limits);

/* Returns 0, or -EBADMSG: something is missing, or is no such number. */
int limits_from_json(const json_t *json, struct backend_limits *limits);

/*
 * Whether a device that was made for `made` can be served by storage that is
 * `now` (its size may have grown).  Returns 0, or -ESTALE with err naming what
 * differs.
 */
int limits_fit(const struct backend_limits *made, const struct backend_limits *now,
	       struct error *err);

#endif
