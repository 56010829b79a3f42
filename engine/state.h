/* SPDX-License-Identifier: MIT */
/*
 * The states of an export, and the one table of legal transitions.  Pure.
 */
#ifndef UBLKD_STATE_H
#define UBLKD_STATE_H

#include <stdbool.h>

enum export_state {
	EXPORT_DECLARED,   /* wanted; nothing is done yet */
	EXPORT_OPENING,    /* its backend is being opened */
	EXPORT_ADDED,      /* the kernel has the device, with its parameters */
	EXPORT_STARTING,   /* every tag is fetched, START_DEV is under way */
	EXPORT_LIVE,       /* the block device is there and served */
	EXPORT_RECOVERING, /* the server is gone, a new one is being put in place */
	EXPORT_SUSPENDED,  /* I/O waits, on purpose or for the backend */
	EXPORT_STOPPING,   /* STOP_DEV, then DEL_DEV */
	EXPORT_GONE,       /* nothing of it is left */
	EXPORT_FAILED,     /* given up, with a reason; what was made is undone */
	EXPORT_STATES
};

/* "live" and so on; "?" for what is no state. */
const char *export_state_name(enum export_state state);

/* True where an export may go from one state to the other. */
bool export_state_may(enum export_state from, enum export_state to);

#endif
