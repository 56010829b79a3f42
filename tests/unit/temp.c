/* SPDX-License-Identifier: MIT */
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>

static char directory[256];

const char *temp_directory(void)
{
	const char *where = getenv("TMPDIR");

	if (!*directory) {
		snprintf(directory, sizeof(directory), "%s/ublkd-test.XXXXXX",
			 where ? where : "/tmp");
		if (!mkdtemp(directory))
			fail_msg("no directory for temporary files: %s", directory);
	}
	return directory;
}

const char *temp_path(const char *name)
{
	static char path[600];

	snprintf(path, sizeof(path), "%s/%s", temp_directory(), name);
	return path;
}

const char *temp_file(const char *name, uint64_t size)
{
	const char *path = temp_path(name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		fail_msg("%s: %s", path, strerror(errno));
	close(fd);
	return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void temp_remove(void)
{
	if (*directory)
		nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	*directory = 0;
}
