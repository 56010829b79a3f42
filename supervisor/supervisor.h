/* SPDX-License-Identifier: MIT */
/*
 * The table of exports, and where it comes from: what an earlier ublkd has left, what
 * the configuration declares, what clients ask for.
 *
 * Thread: the loop's.  What waits is called from fibers.
 */
#ifndef UBLKD_SUPERVISOR_H
#define UBLKD_SUPERVISOR_H

#include "supervisor/settings.h"
#include "supervisor/export.h"

/* Where things are; set once. */
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

/* "FILE:LINE: what is wrong", of an error in the configuration. */
void supervisor_error_text(const struct settings_error *e, char *out, size_t size);

/* Before anything else. */
void supervisor_setup(void);

/* The list of all, in no order. */
extern struct export *supervisor_exports;

/* By name, "/dev/ublk/NAME", "/dev/ublkbN" or "ublkbN"; NULL: there is none. */
struct export *supervisor_find(const char *name);

/*
 * Adds an export, and sets about making it; its files are opened with the rights of
 * owner (NULL: root's).  Returns 0, or -errno with err filled; options are released in
 * any case.
 */
int supervisor_add(const char *name, const char *uri, json_t *options, enum export_origin origin,
		   const struct owner *owner, struct export **made, struct error *err);

/* Has it in hand over a wait; it is not freed meanwhile, but may be `dropped`. */
void supervisor_hold(struct export *export);
void supervisor_release(struct export *export);

/* Waits until nothing is under way for it. */
void supervisor_settle(struct export *export);

/*
 * Takes descriptors that the service manager kept: content of memory exports.  fd is
 * the supervisor's from now on.
 */
void supervisor_take_memory(const char *name, int fd);

/* Finds and adopts all that an earlier ublkd has left. */
void supervisor_adopt(void);

/* Result for an export; the caller's list of them. */
typedef void supervisor_result(void *context, const char *name, bool done, const char *message);

/*
 * Reads the configuration again: adds what it declares, removes what it no longer
 * declares and nobody uses.  Does not wait for what it begins.
 */
void supervisor_reload(supervisor_result *result, void *context);

/* Waits until nothing is under way for any export, ms milliseconds at most. */
void supervisor_settle_all(unsigned ms);

/* Removes every export, and waits for that. */
void supervisor_remove_all(bool force, supervisor_result *result, void *context);

#endif
