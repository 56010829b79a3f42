/* SPDX-License-Identifier: MIT */
/*
 * The kernel's settings of who may have an io_uring: kernel.io_uring_disabled and
 * kernel.io_uring_group, since 6.6.
 *
 * Thread: the process's first, before there are others; ring_policy_refuses(): any.
 */
#ifndef UBLKD_RING_POLICY_H
#define UBLKD_RING_POLICY_H

#include <stdbool.h>
#include <sys/types.h>

struct error;

/*
 * Reads them from that directory (NULL: /proc/sys/kernel).  Where they cannot be read,
 * what was read before stays.
 */
void ring_policy_read(const char *directory);

/*
 * Whether they refuse an io_uring to a process of that group, privileged with
 * CAP_SYS_ADMIN or not; err says so.
 */
bool ring_policy_refuses(gid_t gid, bool privileged, struct error *err);

#endif
