/* SPDX-License-Identifier: MIT */
/*
 * Shared by the parts of the sandbox.
 */
#ifndef UBLKD_SANDBOX_PARTS_H
#define UBLKD_SANDBOX_PARTS_H

#include <stdbool.h>
#include <sys/types.h>

struct error;
struct sandbox;

/* The backend's needs, as its needs() told.  Owner: sandbox_enter(). */
struct sandbox_needs {
	bool network, names, authorities;
	bool opens;                  /* it opens files by itself */
	char **files, **directories; /* paths, as the backend has them */
	unsigned nr_files, nr_directories;
};

/*
 * Makes the root directory and moves the process there; copies are opened with the rights
 * of the export's owner, and belong to the sandbox's user.  As root.  Returns 0, or -errno with err filled.
 */
int sandbox_change_root(const struct sandbox_needs *needs, const struct sandbox *sandbox,
			struct error *err);

/* Leaves this process, and threads that it makes, the calls that it needs.  As above. */
int sandbox_limit_calls(const struct sandbox_needs *needs, struct error *err);

#endif
