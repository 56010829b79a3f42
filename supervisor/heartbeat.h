/* SPDX-License-Identifier: MIT */
/*
 * Finds workers that hang.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_HEARTBEAT_H
#define UBLKD_HEARTBEAT_H

#include <uv.h>

struct export;

/*
 * Checks each export of the list every few seconds, by memory alone unless there is I/O
 * that does not move, and has the reconciler probe those that may hang.
 */
void heartbeat_start(uv_loop_t *loop, struct export *const *list);

#endif
