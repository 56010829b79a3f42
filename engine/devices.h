/* SPDX-License-Identifier: MIT */
/*
 * The ublk devices that this kernel has, whoever serves them.  The driver has no
 * command that lists them; their character devices tell.
 *
 * Any thread.
 */
#ifndef UBLKD_DEVICES_H
#define UBLKD_DEVICES_H

#include <stdint.h>

/*
 * Returns 0 with the ids of all devices, sorted, in *ids, which the caller frees, and
 * their number in *nr; or -ENOMEM, or what the system said of /dev.
 */
int devices_find(uint32_t **ids, unsigned *nr);

/* The order of ids, for bsearch(3) and qsort(3). */
int devices_by_id(const void *a, const void *b);

/* "live" and so on, of a struct ublk_dev_info's state; "unknown" for what is none. */
const char *devices_state_name(unsigned state);

#endif
