/* SPDX-License-Identifier: MIT */
#include "engine/host.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int open_file(struct export *export, const char *path, int flags, unsigned mode)
{
	int fd = open(path, flags, mode);

	(void)export;
	return fd < 0 ? -errno : fd;
}

static void remove_file(struct export *export, const char *path)
{
	(void)export;
	unlink(path);
}

const struct backend_host host_here = {
	.open_file = open_file,
	.remove_file = remove_file,
};
