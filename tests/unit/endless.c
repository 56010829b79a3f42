/* SPDX-License-Identifier: MIT */
#include "tests/unit/endless.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define PATIENCE 1000000u /* a reader that never stops must not hang the test */

int endless_fd = -1;
unsigned endless_reads;

ssize_t __real_recv(int fd, void *buffer, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags)
{
	if (fd != endless_fd)
		return __real_recv(fd, buffer, size, flags);
	if (++endless_reads > PATIENCE) {
		errno = EAGAIN;
		return -1;
	}
	memset(buffer, 0, size);
	return (ssize_t)size;
}
