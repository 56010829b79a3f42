/* SPDX-License-Identifier: MIT */
#include "engine/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* linux/memfd.h of 6.3; vm.memfd_noexec may demand it */
#endif

int host_memfd(const char *name, unsigned flags)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL | flags);

	if (fd < 0 && errno == EINVAL) /* before 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | flags);
	return fd < 0 ? -errno : fd;
}

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

static int keep_memory(struct export *export, unsigned flags)
{
	(void)export;
	return host_memfd("ublkd-memory", flags);
}

const struct backend_host host_here = {
	.open_file = open_file,
	.remove_file = remove_file,
	.keep_memory = keep_memory,
};
