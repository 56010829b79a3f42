/* SPDX-License-Identifier: MIT */
#include "supervisor/folder.h"
#include "engine/error.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int folder_make(const char *path, mode_t mode, struct error *err)
{
	if (!mkdir(path, mode))
		chmod(path, mode);
	else if (errno != EEXIST)
		return error_set(err, errno, "%s: it cannot be made: %m", path);
	return 0;
}

int folder_sync(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

	if (fd < 0 || fsync(fd))
		ret = error_set(err, errno, "%s: it cannot be written to disk: %m", path);
	if (fd >= 0)
		close(fd);
	return ret;
}
