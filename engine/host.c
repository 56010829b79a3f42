/* SPDX-License-Identifier: MIT */
#include "engine/host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
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

static int connect_unix(const struct export *export, const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd, ret;

	(void)export;
	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&at, sizeof(at))) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

const struct backend_host host_here = {
	.open_file = open_file,
	.remove_file = remove_file,
	.keep_memory = keep_memory,
	.connect_unix = connect_unix,
};
