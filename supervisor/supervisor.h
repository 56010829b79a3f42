/* SPDX-License-Identifier: MIT */
/*
 * The table of exports and its sources: what an earlier ublkd left, what the configuration
 * declares, what clients request.
 *
 * Thread: the loop's.  Functions that wait are called from fibers.
 */
#ifndef UBLKD_SUPERVISOR_H
#define UBLKD_SUPERVISOR_H

#include "supervisor/settings.h"
#include "supervisor/export.h"

/* Directories; set once. */
struct supervisor_paths {
	const char *settings; /* the directory of ublkd.conf */
	const char *state;    /* /run/ublkd */
};
extern struct supervisor_paths supervisor_paths;

/* The section [ublkd] of the configuration. */
extern struct settings supervisor_settings;
/* Changes with it; never 0. */
extern unsigned supervisor_settings_number;
/* When it was read, in seconds since 1970. */
extern int64_t supervisor_settings_read_s;

/* Before anything else. */
void supervisor_setup(void);

/* The list of all, in no order. */
extern struct export *supervisor_exports;

/* By name, "/dev/ublk/NAME", "/dev/ublkbN" or "ublkbN"; NULL: there is none. */
struct export *supervisor_find(const char *name);

/*
 * Adds an export and begins to start it; its files are opened with the rights of owner (NULL:
 * root's).  Returns 0, or -errno with err filled; options are released in
 * any case.
 */
int supervisor_add(const char *name, const char *uri, json_t *options, enum export_origin origin,
		   const struct owner *owner, struct export **made, struct error *err);

/* Keeps an export from being freed over a wait; it may be `dropped` from the table meanwhile. */
void supervisor_hold(struct export *export);
void supervisor_release(struct export *export);

/* Waits until the export's reconciler is idle. */
void supervisor_settle(struct export *export);

/*
 * Takes descriptors that the service manager kept: content of memory exports.  fd is
 * the supervisor's from now on.
 */
void supervisor_take_memory(const char *name, int fd);

/* Finds and adopts all exports that an earlier ublkd left. */
void supervisor_adopt(void);

/* Result for an export; the caller's list of them. */
typedef void supervisor_result(void *context, const char *name, bool done, const char *message);

/*
 * Reads the configuration again: adds what it declares, removes what it no longer
 * declares and is not in use.  Does not wait for the starts and removals.
 */
void supervisor_reload(supervisor_result *result, void *context);

/* Waits until nothing is under way for any export, ms milliseconds at most. */
void supervisor_settle_all(unsigned ms);

/* Removes every export, and waits for that. */
void supervisor_remove_all(bool force, supervisor_result *result, void *context);

#endif
