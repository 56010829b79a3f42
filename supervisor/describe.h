/* SPDX-License-Identifier: MIT */
/*
 * JSON for the types of io.ublkd.varlink: exports and devices.
 *
 * Thread: the loop's; from fibers.  Each returns a new JSON value.
 */
#ifndef UBLKD_DESCRIBE_H
#define UBLKD_DESCRIBE_H

#include <jansson.h>

struct export;

json_t *describe_export(struct export *export);                    /* Export */
json_t *describe_details(struct export *export);                   /* Details */
json_t *describe_stats(struct export *export);                     /* Stats */
json_t *describe_change(const struct export *export, unsigned at); /* Change, of history's at */

/* Details of an export whose declaration is wrong, so that there is none; NULL: no such one. */
json_t *describe_refused(const char *name);

/* []Export: all, and the devices of other servers. */
json_t *describe_all(void);

#endif
