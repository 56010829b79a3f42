/* SPDX-License-Identifier: MIT */
#include "engine/io_path.h"
#include "engine/ublk_abi.h"

#include <errno.h>
#include <stdbool.h>

static const struct {
	const char *name;
	uint64_t features; /* that the device is made with */
	const char *since;
} paths[IO_PATHS] = {
	[IO_PATH_COPY] = { "copy", 0, "6.0" },
	[IO_PATH_USER_COPY] = { "user-copy", UBLK_FEAT_USER_COPY, "6.5" },
	/* User copy too: for what must be copied after all. */
	[IO_PATH_ZERO_COPY] = { "zero-copy",
				UBLK_FEAT_ZERO_COPY | UBLK_FEAT_AUTO_BUF_REG | UBLK_FEAT_USER_COPY,
				"6.16" },
};

const char *io_path_name(enum io_path path)
{
	return path < IO_PATHS ? paths[path].name : "auto";
}

uint64_t io_path_features(enum io_path path)
{
	return paths[path].features;
}

static bool path_possible(enum io_path path, uint64_t features)
{
	return (paths[path].features & ~features) == 0;
}

int io_path_choose(enum io_path wanted, enum backend_access access, uint64_t features,
		   enum io_path *path, const char **reason, struct error *err)
{
	if (wanted != IO_PATH_AUTO) {
		if (!path_possible(wanted, features))
			return error_set(
				err, EOPNOTSUPP,
				"io-path %s: this kernel's ublk driver does not support it "
				"(Linux %s or later is needed): leave io-path out",
				paths[wanted].name, paths[wanted].since);
		*path = wanted;
		*reason = "asked for";
		return 0;
	}
	*path = IO_PATH_COPY;
	switch (access) {
	case ACCESS_NONE:
		*reason = "the backend reads no data: the driver copies zeroes from a buffer";
		if (path_possible(IO_PATH_ZERO_COPY, features)) {
			*path = IO_PATH_ZERO_COPY;
			*reason = "the backend reads no data: the kernel itself zeroes the "
				  "request's pages";
		}
		break;
	case ACCESS_RING:
		*reason = "the kernel registers no buffers by itself (Linux 6.16 or later would)";
		if (path_possible(IO_PATH_ZERO_COPY, features)) {
			*path = IO_PATH_ZERO_COPY;
			*reason = "the backend does I/O on a file, straight to the request's pages";
		}
		break;
	case ACCESS_MEMORY:
		*reason = "the kernel has no user copy (Linux 6.5 or later would)";
		if (path_possible(IO_PATH_USER_COPY, features)) {
			*path = IO_PATH_USER_COPY;
			*reason = "the backend is memory: one copy between it and the request's "
				  "pages";
		}
		break;
	case ACCESS_POINTER:
		*reason = "the backend's library needs the data at an address";
		break;
	case ACCESS_SOCKET:
		*reason = "the kernel has no user copy (Linux 6.5 or later would)";
		if (path_possible(IO_PATH_USER_COPY, features)) {
			*path = IO_PATH_USER_COPY;
			*reason = "the backend sends and receives the data: one copy between its "
				  "memory and the request's pages";
		}
		break;
	}
	return 0;
}
