/* SPDX-License-Identifier: MIT */
/*
 * The ublk devices that this kernel has, whoever serves them.  The driver has no
 * command that lists them; their character devices tell.
 *
 * Any thread.
 */
#ifndef UBLKD_DEVICE_LIST_H
#define UBLKD_DEVICE_LIST_H

#include <stdint.h>

/*
 * Returns 0 with the ids of all devices, sorted, in *ids, which the caller frees, and
 * their number in *nr; or -ENOMEM, or what the system said of /dev.
 */
int device_list_find(uint32_t **ids, unsigned *nr);

/* The order of ids, for bsearch(3) and qsort(3). */
int device_list_by_id(const void *a, const void *b);

/* "live" and so on, of a struct ublk_dev_info's state; "unknown" for what is none. */
const char *devices_state_name(unsigned state);

#endif
