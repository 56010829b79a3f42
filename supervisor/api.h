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

/* Tells the monitors; export_changed. */
void api_tell_change(struct export *export);

/* Ends the monitors' calls: ublkd ends. */
void api_end_monitors(void);

/* Called for Shutdown, when that was answered. */
extern void (*api_shut_down)(void);

#endif
