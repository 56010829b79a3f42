/* SPDX-License-Identifier: MIT */
/*
 * Requests of a worker's backend, carried out by ublkd.
 *
 * A worker runs without privileges in a sandbox, so ublkd opens its files and connects its sockets.
 * A server may have compromised the worker: ublkd serves only requests that the export's own URI
 * and options call for (host_may_open() and so on), with the rights of the export's owner, and only
 * for regular files, block devices and directories (blocking_open_as()).
 *
 * The content of a memory export is a memfd that ublkd creates here. ublkd keeps it, stores a copy
 * with the service manager (FDSTORE), and gives the worker another copy. So the content survives
 * the worker and a restart of ublkd.
 *
 * Read host_answer() first, then open_file() and keep_memory().
 */
#include "supervisor/host.h"
#include "common/log.h"
#include "engine/host_local.h"
#include "supervisor/blocking.h"
#include "supervisor/export.h"
#include "supervisor/worker_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define FILE_MS 8000 /* shorter than a worker's wait for an answer */

/* Files of sysfs that backends themselves read, whatever the user named. */
static bool is_attribute(const char *path, int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY && !strstr(path, "..") &&
	       (!strncmp(path, "/sys/dev/block/", 15) || !strncmp(path, "/sys/kernel/mm/", 15));
}

static int open_file(struct blocking_for who, const struct export *export,
		     const struct instance *instance, const char *path, const json_t *question)
{
	int flags = (int)json_integer_value(json_object_get(question, "flags"));
	unsigned mode = (unsigned)json_integer_value(json_object_get(question, "mode"));

	if (!host_may_open(instance, path, flags, mode))
		return -EACCES;
	return blocking_open_as(who, &export->owner, path, flags, mode, !is_attribute(path, flags),
				FILE_MS);
}

static int copy_of(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

bool host_has_memory(const struct export *export)
{
	return !strcmp(export->spec.backend->scheme, "memory");
}

static void memory_name(const struct export *export, char *out, size_t size)
{
	snprintf(out, size, HOST_MEMORY_PREFIX "%s", export->name);
}

void host_take_memory(struct export *export, int fd)
{
	char name[NAME_MAX_LENGTH + 16], text[NAME_MAX_LENGTH + 48];

	export->storage.memory_fd = fd;
	/* Store a duplicate with the service manager, so that the content outlives ublkd. */
	memory_name(export, name, sizeof(name));
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	sd_pid_notify_with_fds(0, 0, text, &export->storage.memory_fd, 1);
}

void host_unstore_memory(const struct export *export)
{
	char name[NAME_MAX_LENGTH + 16], text[NAME_MAX_LENGTH + 48];

	memory_name(export, name, sizeof(name));
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	sd_notify(0, text);
}

static int keep_memory(struct export *export, const json_t *question)
{
	unsigned flags = (unsigned)json_integer_value(json_object_get(question, "flags"));
	int fd;

	if (!host_has_memory(export))
		return -EACCES;
	/* A recovery needs the old content (-ENODATA: lost); only a new device starts empty. */
	if (export->state == EXPORT_RECOVERING)
		return export->storage.memory_fd < 0 ? -ENODATA
						     : copy_of(export->storage.memory_fd);
	/* Never replace the content of a device that exists. */
	if (export->state != EXPORT_OPENING)
		return -EACCES;
	if (flags & ~(MFD_HUGETLB | (unsigned)MFD_HUGE_2MB | (unsigned)MFD_HUGE_1GB))
		return -EINVAL;
	if (export->storage.memory_fd >= 0) {
		host_unstore_memory(export);
		close(export->storage.memory_fd);
	}
	export->storage.memory_fd = -1;
	fd = host_memfd(WORKER_MEMORY, flags);
	if (fd < 0)
		return fd;
	host_take_memory(export, fd);
	return copy_of(export->storage.memory_fd);
}

void host_save_memory(struct export *export, const struct worker *worker)
{
	int fd;

	if (!host_has_memory(export) || export->storage.memory_fd >= 0 || !export->device.exists)
		return;
	fd = worker_open_memory(worker, export->storage.limits.size);
	if (fd < 0) {
		log_warning(
			export->name,
			"only worker %d holds this export's memory; its contents are lost if that worker "
			"exits: %s%s",
			(int)worker_pid(worker), strerror(-fd),
			fd == -EACCES ? ": ublkd must be root, with CAP_SYS_PTRACE" : "");
		return;
	}
	host_take_memory(export, fd);
}

int host_answer(struct export *export, const char *kind, const json_t *question)
{
	const char *path = json_string_value(json_object_get(question, "path"));
	struct blocking_for who = { export->name, BLOCKING_STORAGE };
	struct instance instance;

	if (!strcmp(kind, "memory"))
		return keep_memory(export, question);
	if (!path)
		return -EINVAL;
	spec_to_instance(&export->spec, &instance);
	if (!strcmp(kind, "open"))
		return open_file(who, export, &instance, path, question);
	if (!strcmp(kind, "remove"))
		return host_may_remove(&instance, path)
			       ? blocking_unlink_as(who, &export->owner, path, FILE_MS)
			       : -EACCES;
	if (!strcmp(kind, "connect"))
		return host_may_connect(&instance, path)
			       ? blocking_connect_as(who, &export->owner, path, FILE_MS)
			       : -EACCES;
	return -ENOSYS;
}
