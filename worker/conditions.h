/* SPDX-License-Identifier: MIT */
/*
 * The conditions that a worker reports (engine/health.h), as JSON of the link's:
 * [{"cause": NAME, "since": SECONDS, "detail": "..."}]. Any thread.
 */
#ifndef UBLKD_CONDITIONS_H
#define UBLKD_CONDITIONS_H

#include <jansson.h>

#include "engine/health.h"

/* Those of a worker; NULL: no memory. */
json_t *conditions_to_json(const struct health_condition conditions[CAUSES]);

/*
 * Replaces the worker's conditions by those of json (NULL: none), and leaves the others. The
 * worker is not trusted: what it says is cut and made printable, and a cause that is not a
 * worker's, or not known, is ignored.
 */
void conditions_from_json(const json_t *json, struct health_condition conditions[CAUSES]);

#endif
