/* SPDX-License-Identifier: MIT */
/*
 * Names of exports, the symlinks /dev/ublk/NAME, and the records from which udev's rule makes the
 * same symlinks.
 *
 * rename(2) replaces a symlink, so that the path resolves at every moment. Removal first checks
 * that the symlink still points to the expected device: udev and an earlier ublkd work in the same
 * directory, and the kernel reuses a device's number at once.
 *
 * udev reads a record when the kernel announces the disk, and removes its symlinks if the record
 * is missing. Hence ublkd writes the record before START_DEV and keeps it until the device is gone.
 *
 * Read name_check() first: names hold neither '/' nor a leading dot, so that they can be joined to
 * a directory, and ".NAME" is free for temporary files. Then read name_from_uri(), name_link_in()
 * and name_record().
 */
#include "supervisor/name.h"
#include "common/directory.h"
#include "common/error.h"
#include "engine/ublk_abi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_name_char(char c)
{
	return isascii(c) && (isalnum((unsigned char)c) || strchr(".-_", c));
}

static bool is_number(const char *text)
{
	return *text && !text[strspn(text, "0123456789")];
}

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "ublkb0": a block device of ublk. */
static bool is_block_name(const char *text)
{
	const char *prefix = last_component(UBLK_BLOCK_PREFIX);
	size_t length = strlen(prefix);

	return !strncmp(text, prefix, length) && is_number(text + length);
}

static bool is_char_name(const char *text)
{
	const char *prefix = last_component(UBLK_CHAR_PREFIX);
	size_t length = strlen(prefix);

	return !strncmp(text, prefix, length) && is_number(text + length);
}

static bool is_partition_link(const char *name)
{
	const char *dash = strrchr(name, '-');

	return dash && !strncmp(dash, "-part", 5) && is_number(dash + 5);
}

int name_check(const char *name, struct error *err)
{
	char shown[200];

	text_escape(name, shown, sizeof(shown));
	if (!*name)
		return error_set(err, EINVAL, "the name is empty: use a name such as data");
	for (const char *c = name; *c; c++)
		if (!is_name_char(*c))
			return error_set(
				err, EINVAL,
				"'%s' is not a valid name: use only letters, digits, '.', '-' "
				"and '_'",
				shown);
	if (strlen(name) > NAME_MAX_LENGTH)
		return error_set(err, EINVAL,
				 "'%s' is too long for a name: use at most %u characters", shown,
				 NAME_MAX_LENGTH);
	if (*name == '.' || *name == '-')
		return error_set(err, EINVAL,
				 "'%s' is not a valid name: a name cannot begin with '%c'", shown,
				 *name);
	if (is_number(name))
		return error_set(err, EINVAL,
				 "'%s' is the number of a device: use a name with a letter", shown);
	if (is_block_name(name) || is_char_name(name) ||
	    !strcmp(name, last_component(UBLK_CONTROL_PATH)))
		return error_set(err, EINVAL, "'%s' is the name of a device: use another name",
				 shown);
	if (is_partition_link(name))
		return error_set(err, EINVAL,
				 "'%s' would be the link of a partition: use another name", shown);
	return 0;
}

/* FNV-1a. */
static uint32_t hash(const char *text)
{
	uint32_t h = 2166136261u;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 16777619u;
	return h;
}

/* The part of a URI from which its name is made. */
static const char *distinctive_part(const char *uri)
{
	const char *path = uri, *component;
	static const char file[] = "file:";

	if (!strncmp(uri, file, strlen(file)))
		path += strlen(file);
	else if (uri[strcspn(uri, ":/")] == ':')
		return uri;
	component = last_component(path);
	return *component ? component : path;
}

void name_from_uri(const char *uri, char name[NAME_MAX_LENGTH + 1])
{
	const unsigned suffix = 9; /* "-%08x" */
	unsigned n = 0;
	bool cut = false;

	for (const char *c = distinctive_part(uri); *c && !cut; c++) {
		char next = '-';

		if (is_name_char(*c))
			next = *c;
		if (next == '-' && n && name[n - 1] == '-')
			continue;
		if (!n && (next == '-' || next == '.'))
			continue;
		cut = n == NAME_MAX_LENGTH;
		if (!cut)
			name[n++] = next;
	}
	while (n && name[n - 1] == '-')
		n--;
	name[n] = 0;
	/* The names of two URIs could be equal if cut or altered; the hash makes them distinct. */
	if (!cut && !name_check(name, NULL))
		return;
	if (n > NAME_MAX_LENGTH - suffix)
		n = NAME_MAX_LENGTH - suffix;
	if (!n)
		n = (unsigned)snprintf(name, NAME_MAX_LENGTH, "export");
	snprintf(name + n, suffix + 1, "-%08x", hash(uri));
}

/* ---- links ---- */

/* Reads the target of the symlink at path, or "": there is none.  Returns 0 or -errno. */
static int read_link(const char *path, char target[PATH_MAX])
{
	ssize_t n = readlink(path, target, PATH_MAX - 1);

	target[n < 0 ? 0 : n] = 0;
	return n < 0 && errno != ENOENT ? -errno : 0;
}

static bool is_ours(const char *target)
{
	return !strncmp(target, "../", 3) && is_block_name(target + 3);
}

static int name_path(char path[PATH_MAX], const char *directory, const char *name,
		     struct error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
		return error_set(err, ENAMETOOLONG, "%s: the path is too long", directory);
	return 0;
}

/* udev may make the same symlink at the same time, and an earlier ublkd may have left one. */
int name_link_in(const char *directory, const char *name, const char *device, struct error *err)
{
	char path[PATH_MAX], found[PATH_MAX], temporary[PATH_MAX + 16], target[PATH_MAX];
	int ret = name_check(name, err);

	if (ret)
		return ret;
	if (!is_block_name(last_component(device)))
		return error_set(err, EINVAL, "'%s' is not a ublk device", device);
	ret = name_path(path, directory, name, err);
	if (!ret)
		ret = directory_make(directory, 0755, err);
	if (ret)
		return ret;
	snprintf(target, sizeof(target), "../%s", last_component(device));
	ret = read_link(path, found);
	if (!ret && !strcmp(found, target))
		return 0;
	if (ret == -EINVAL || (!ret && *found && !is_ours(found)))
		return error_set(err, EEXIST,
				 "%s exists and is not a link to a ublk device: move it away",
				 path);
	if (ret)
		return error_set(err, ret, "%s: %s", path, strerror(-ret));
	/* No export's name begins with a dot, so this temporary name is free. */
	snprintf(temporary, sizeof(temporary), "%s/.%s", directory, name);
	if (unlink(temporary) && errno != ENOENT)
		return error_set(err, errno, "cannot remove %s: %m", temporary);
	if (symlink(target, temporary))
		return error_set(err, errno, "cannot create %s: %m", temporary);
	if (rename(temporary, path)) {
		ret = error_set(err, errno, "cannot create %s: %m", path);
		unlink(temporary);
		return ret;
	}
	return 0;
}

int name_unlink_in(const char *directory, const char *name, const char *device, struct error *err)
{
	char path[PATH_MAX], found[PATH_MAX];
	int ret = name_check(name, err);

	if (ret || (ret = name_path(path, directory, name, err)))
		return ret;
	ret = read_link(path, found);
	if (ret == -EINVAL || ret == -ENOTDIR)
		return 0;
	if (ret)
		return error_set(err, ret, "%s: %s", path, strerror(-ret));
	if (!is_ours(found) || strcmp(found + 3, last_component(device)) != 0)
		return 0;
	if (unlink(path) && errno != ENOENT)
		return error_set(err, errno, "cannot remove %s: %m", path);
	return 0;
}

int name_link(const char *name, const char *device, struct error *err)
{
	return name_link_in(NAME_DIRECTORY, name, device, err);
}

int name_unlink(const char *name, const char *device, struct error *err)
{
	return name_unlink_in(NAME_DIRECTORY, name, device, err);
}

/* ---- records ---- */

/* The properties that the udev rule imports from a record. */
static const char record_key[] = "UBLKD_NAME=", backend_key[] = "UBLKD_BACKEND=";
static const char partitions_key[] = "UBLKD_PARTITIONS=";

static int record_path(char path[PATH_MAX], const char *directory, const char *device,
		       struct error *err)
{
	const char *block = last_component(device);
	char shown[200];

	if (!is_block_name(block))
		return error_set(err, EINVAL, "'%s' is not a ublk device",
				 text_escape(device, shown, sizeof(shown)));
	return name_path(path, directory, block, err);
}

int name_record(const char *directory, const char *device, const char *name, const char *backend,
		bool partitions, struct error *err)
{
	char path[PATH_MAX], temporary[PATH_MAX + 16],
		line[sizeof(record_key) + NAME_MAX_LENGTH + sizeof(backend_key) +
		     sizeof(partitions_key) + 32];
	int fd, length, ret = name_check(name, err);
	ssize_t n;

	if (!ret)
		ret = record_path(path, directory, device, err);
	if (!ret)
		ret = directory_make(directory, 0755, err);
	if (ret)
		return ret;
	length = snprintf(line, sizeof(line), "%s%s\n%s%.24s\n%s%d\n", record_key, name,
			  backend_key, backend, partitions_key, partitions);
	snprintf(temporary, sizeof(temporary), "%s/.%s", directory, last_component(device));
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return error_set(err, errno, "cannot create %s: %m", temporary);
	n = write(fd, line, (size_t)length);
	ret = n == length ? 0 : n < 0 ? -errno : -EIO;
	close(fd);
	if (!ret && rename(temporary, path))
		ret = -errno;
	if (!ret)
		return 0;
	unlink(temporary);
	return error_set(err, ret, "cannot write %s: %s", path, strerror(-ret));
}

int name_forget(const char *directory, const char *device, struct error *err)
{
	char path[PATH_MAX];
	int ret = record_path(path, directory, device, err);

	if (!ret && unlink(path) && errno != ENOENT && errno != ENOTDIR)
		ret = error_set(err, errno, "cannot remove %s: %m", path);
	return ret;
}

int name_lookup(const char *directory, const char *device, char name[NAME_MAX_LENGTH + 1],
		struct error *err)
{
	char path[PATH_MAX], line[sizeof(record_key) + NAME_MAX_LENGTH + 2];
	int fd, ret = record_path(path, directory, device, err);
	const char *found;
	ssize_t n;

	if (ret)
		return ret;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? error_set(err, ENOENT, "%s is not a device of ublkd",
						   last_component(device))
				       : error_set(err, errno, "%s: %m", path);
	n = read(fd, line, sizeof(line) - 1);
	ret = n < 0 ? error_set(err, errno, "%s: %m", path) : 0;
	close(fd);
	if (ret)
		return ret;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	found = line + strlen(record_key);
	if (strncmp(line, record_key, strlen(record_key)) != 0 || name_check(found, NULL))
		return error_set(err, EINVAL, "%s does not contain a valid name", path);
	memcpy(name, found, strlen(found) + 1);
	return 0;
}
