/* SPDX-License-Identifier: MIT */
/*
 * The host of a backend in its own process, and the checks for a host that acts for an untrusted
 * worker.
 *
 * A backend never opens a file itself but asks its host. In `ublkctl run` that is host_here, which
 * calls open(2). A confined worker can open nothing; its host (worker/host_remote.c) asks ublkd,
 * which uses the checks here (supervisor/host.c).
 *
 * A second list of permitted paths in ublkd would drift from the backends. Instead, host_may_open()
 * and the others call the backend's own needs() for the export that ublkd knows, and grant only
 * paths, flags and modes that follow from it. A compromised worker thus gets its own export's files
 * and no others.
 *
 * Read host_here first, then host_may_open(), is_needed() and look_at_need().
 */
#include "engine/host_local.h"

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

static int open_file(struct instance *instance, const char *path, int flags, unsigned mode)
{
	int fd = open(path, flags, mode);

	(void)instance;
	return fd < 0 ? -errno : fd;
}

static void remove_file(struct instance *instance, const char *path)
{
	(void)instance;
	unlink(path);
}

static int keep_memory(struct instance *instance, unsigned flags)
{
	(void)instance;
	return host_memfd("ublkd-memory", flags);
}

static int connect_unix(const struct instance *instance, const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd, ret;

	(void)instance;
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

/* ---- what may be done for a backend that is not trusted ---- */

struct wish {
	const struct instance *instance;
	const char *path;
	int flags; /* of open() */
	bool open, remove, connect;
	bool granted;
};

/* "12:34" at the start of text; returns what is behind it, NULL: it is not there. */
static const char *skip_device_number(const char *text)
{
	size_t n = strspn(text, "0123456789");

	if (!n || text[n] != ':')
		return NULL;
	text += n + 1;
	n = strspn(text, "0123456789");
	return n ? text + n : NULL;
}

/*
 * /sys/dev/block/MAJOR:MINOR/[../]queue/NAME, or one that tells which disk it is. NAME has neither
 * '/' nor '.', or a worker could walk from there to any file.
 */
static bool is_queue_attribute(const char *path)
{
	static const char *const identifiers[] = { "/wwid",    "/device/wwid", "/dm/uuid",
						   "/md/uuid", "/serial",      "/device/cid",
						   "/diskseq", "/partition",   "/start" };
	static const char directory[] = "/sys/dev/block/";

	if (strncmp(path, directory, sizeof(directory) - 1) != 0)
		return false;
	path = skip_device_number(path + sizeof(directory) - 1);
	if (!path)
		return false;
	if (!strncmp(path, "/..", 3))
		path += 3;
	for (unsigned i = 0; i < sizeof(identifiers) / sizeof(*identifiers); i++)
		if (!strcmp(path, identifiers[i]))
			return true;
	if (strncmp(path, "/queue/", 7) != 0)
		return false;
	path += 7;
	return *path && !path[strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789_")];
}

static bool only_reads(int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY && !(flags & ~(O_CLOEXEC | O_DIRECTORY));
}

static bool fits_file(const struct wish *wish, bool may_create)
{
	int known = O_ACCMODE | O_CLOEXEC | O_DIRECT | O_NOATIME | O_EXCL | O_PATH;

	if (wish->instance->read_only && (wish->flags & O_ACCMODE) != O_RDONLY)
		return false;
	/* A file that is there already is never created again. */
	if (may_create && wish->flags & O_EXCL)
		known |= O_CREAT;
	return !(wish->flags & ~known);
}

static void look_at_need(void *context, enum backend_need need, const char *path)
{
	struct wish *wish = context;
	bool same = path && !strcmp(path, wish->path);

	switch (need) {
	case NEED_HOST_FILE:
		wish->granted |= same && wish->open && fits_file(wish, false);
		break;
	case NEED_HOST_NEW_FILE:
		wish->granted |= same && wish->remove;
		wish->granted |= same && wish->open && fits_file(wish, true);
		break;
	case NEED_HOST_READ:
		wish->granted |= same && wish->open && only_reads(wish->flags);
		break;
	case NEED_HOST_QUEUE:
		wish->granted |=
			wish->open && only_reads(wish->flags) && is_queue_attribute(wish->path);
		break;
	case NEED_HOST_SOCKET:
		wish->granted |= same && wish->connect;
		break;
	default:
		break; /* is none of the host's */
	}
}

static bool is_needed(struct wish *wish)
{
	const struct backend *backend = wish->instance->backend;

	if (backend->needs)
		backend->needs(wish->instance, look_at_need, wish);
	return wish->granted;
}

bool host_may_open(const struct instance *instance, const char *path, int flags, unsigned mode)
{
	struct wish wish = { .instance = instance, .path = path, .flags = flags, .open = true };

	return !(mode & ~0600u) && is_needed(&wish);
}

bool host_may_remove(const struct instance *instance, const char *path)
{
	struct wish wish = { .instance = instance, .path = path, .remove = true };

	return is_needed(&wish);
}

bool host_may_connect(const struct instance *instance, const char *path)
{
	struct wish wish = { .instance = instance, .path = path, .connect = true };

	return is_needed(&wish);
}
