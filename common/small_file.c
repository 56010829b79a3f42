/* SPDX-License-Identifier: MIT */
#include "common/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

ssize_t small_file_read(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -errno : read(fd, out, size - 1);

	if (fd >= 0) {
		if (n < 0)
			n = -errno;
		close(fd);
	}
	out[n < 0 ? 0 : n] = 0;
	return n;
}

ssize_t small_file_line(const char *path, char *out, size_t size)
{
	ssize_t n = small_file_read(path, out, size);

	if (n < 0)
		return n;
	out[strcspn(out, "\n")] = 0;
	return (ssize_t)strlen(out);
}
