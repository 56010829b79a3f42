/* SPDX-License-Identifier: MIT */
/*
 * The ways on which a request's data can cross between the kernel and the server,
 * and the choice among them.  Pure; any thread.
 *
 *   copy       the driver copies to and from a buffer of ours, one a tag
 *   user-copy  we copy with pread and pwrite on /dev/ublkcN (6.5)
 *   zero-copy  the driver registers the request's own pages in our ring, and
 *              I/O goes straight to them (6.16); what needs addresses, or finds
 *              the registration failed, is copied as user-copy does
 */
#ifndef UBLKD_IO_PATH_H
#define UBLKD_IO_PATH_H

#include <stdint.h>

#include "engine/backend.h"

enum io_path {
	IO_PATH_COPY,
	IO_PATH_USER_COPY,
	IO_PATH_ZERO_COPY,
	IO_PATHS,
	IO_PATH_AUTO = IO_PATHS,
};

/* "copy", "user-copy", "zero-copy"; "auto". */
const char *io_path_name(enum io_path path);

/* The UBLK_FEAT_* that a device needs for a path. */
uint64_t io_path_features(enum io_path path);

/*
 * Picks the path for a backend's access: wanted itself if the kernel's features
 * allow it (EOPNOTSUPP with err filled if not), and for IO_PATH_AUTO the
 * cheapest one there is.  *reason (static) says why.  Pure.
 */
int io_path_choose(enum io_path wanted, enum backend_access access, uint64_t features,
		   enum io_path *path, const char **reason, struct error *err);

#endif
