/* SPDX-License-Identifier: MIT */
/*
 * JSON for the types of io.ublkd.varlink: exports and devices.
 *
 * Thread: the loop's; from fibers.  Each returns a new JSON value.
 */
#ifndef UBLKD_DESCRIBE_H
#define UBLKD_DESCRIBE_H

#include <jansson.h>

struct holders;
struct managed;

json_t *describe_export(struct managed *m);                    /* Export */
json_t *describe_details(struct managed *m);                   /* Details */
json_t *describe_stats(struct managed *m);                     /* Stats */
json_t *describe_change(const struct managed *m, unsigned at); /* Change, of history's at */
json_t *describe_holders(const struct holders *holders);       /* []Holder */

/* []Export: all, and the devices of other servers. */
json_t *describe_all(void);

#endif
