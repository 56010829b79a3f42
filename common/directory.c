/* SPDX-License-Identifier: MIT */
#include "common/directory.h"
#include "common/error.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

bool directory_only_root_writes(const struct stat *status)
{
	mode_t others = S_IWOTH | (status->st_gid ? S_IWGRP : 0);

	return (!status->st_uid || status->st_uid == geteuid()) && !(status->st_mode & others);
}

int directory_make(const char *path, mode_t mode, struct error *err)
{
	struct stat status;

	if (!mkdir(path, mode)) {
		if (chmod(path, mode))
			return error_set(err, errno, "cannot set the mode of %s: %m", path);
	} else if (errno != EEXIST) {
		return error_set(err, errno, "cannot create the directory %s: %m", path);
	}
	/* A directory that was there may be anybody's. */
	if (stat(path, &status))
		return error_set(err, errno, "%s: %m", path);
	if (!S_ISDIR(status.st_mode))
		return error_set(err, ENOTDIR, "%s is not a directory: move it away", path);
	if (!directory_only_root_writes(&status))
		return error_set(err, EPERM,
				 "%s is writable by users other than root: check its contents, "
				 "then make it root's alone (chown root, chmod go-w)",
				 path);
	return 0;
}

int directory_sync(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

	if (fd < 0 || fsync(fd))
		ret = error_set(err, errno, "cannot sync the directory %s: %m", path);
	if (fd >= 0)
		close(fd);
	return ret;
}
