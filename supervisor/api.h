/* SPDX-License-Identifier: MIT */
/*
 * io.ublkd: the methods of io.ublkd.varlink.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_API_H
#define UBLKD_API_H

#include "varlink/varlink.h"

struct export;

extern const struct varlink_interface api_interface;

/* Permissions: a struct varlink_setup's may. */
bool api_may(const struct varlink_peer *peer, bool changes, void *context);

/* Reports the latest change to monitors and progress calls; for export_changed. */
void api_report_change(struct export *export);

/* Ends the calls of all monitors when ublkd stops. */
void api_end_monitors(void);

/* Called after Shutdown has been answered. */
extern void (*api_stop)(void);

#endif
