/* SPDX-License-Identifier: MIT */
/*
 * JSON for the counters of an export, as io.ublkd's Statistics have them: ublkd and
 * `ublkctl run` say the same.
 *
 * Any thread.  Each returns a new JSON value; counters may be NULL, which gives an empty one.
 */
#ifndef UBLKD_DESCRIBE_COUNTERS_H
#define UBLKD_DESCRIBE_COUNTERS_H

#include <jansson.h>

struct counters;

json_t *describe_operations(struct counters *counters); /* []Operation */
json_t *describe_errors(struct counters *counters);     /* [string]int, by errno's name */
json_t *describe_facts(struct counters *counters);      /* [string]int, by the backend's name */

#endif
