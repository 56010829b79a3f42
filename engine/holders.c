/* SPDX-License-Identifier: MIT */
/*
 * Holders of a block device: the processes, mounts, swap areas and devices that have it open.
 *
 * The kernel has no query for them. The search combines sysfs (partitions, holders, backing files
 * of loop devices), the mounts of every mount namespace, /proc/swaps and the descriptors of every
 * process. It reads symlinks without following them, so that a dead network file system cannot
 * block it.
 *
 * The result is a snapshot. A caller that stops a device on the strength of it must also have the
 * driver refuse an open device (TRY_STOP_DEV, Linux 7.0) or claim the device (O_EXCL). Processes
 * that the caller may not inspect are skipped, so an unprivileged caller gets fewer holders.
 *
 * Read holders_find_in() first. find_devices() runs first, since a mount or a swap area names the
 * partition or mapping that it uses and not the device below; then find_swap(), find_processes().
 */
#include "engine/holders.h"
#include "common/error.h"
#include "common/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES_MAX 256 /* one stack of partitions, mappings and so on */

struct disk {
	char name[64];   /* "ublkb0p1" */
	char number[24]; /* "259:1" */
};

struct search {
	const char *root;
	const pid_t *ignored;
	unsigned nr_ignored;
	struct disk devices[DEVICES_MAX]; /* the device, and what stands on it */
	unsigned nr_devices;
	char **spaces; /* mount namespaces whose mounts were looked at */
	unsigned nr_spaces;
	struct holders *holders;
};

static bool make_path(char path[PATH_MAX], const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static bool make_path(char path[PATH_MAX], const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(path, PATH_MAX, fmt, args);
	va_end(args);
	return n >= 0 && n < PATH_MAX;
}

static int add_holder(struct search *s, enum holder_kind kind, pid_t pid, const char *path,
		      const char *device)
{
	struct holders *h = s->holders;
	struct holder *holder;
	char file[PATH_MAX];

	for (unsigned i = 0; i < h->nr; i++) {
		holder = &h->list[i];
		if (holder->kind != kind || (path && strcmp(holder->path, path) != 0))
			continue;
		if (path || holder->pid == pid)
			return 0;
	}
	if (h->nr == HOLDERS_MAX) {
		h->more++;
		return 0;
	}
	holder = &h->list[h->nr];
	*holder = (struct holder){ .kind = kind, .pid = pid };
	snprintf(holder->device, sizeof(holder->device), "%s", device);
	if (pid && make_path(file, "%s/proc/%d/comm", s->root, (int)pid))
		small_file_line(file, holder->command, sizeof(holder->command));
	if (path) {
		holder->path = strdup(path);
		if (!holder->path)
			return -ENOMEM;
	}
	h->nr++;
	return 0;
}

/* ---- devices ---- */

static const struct disk *device_by_name(const struct search *s, const char *name)
{
	for (unsigned i = 0; i < s->nr_devices; i++)
		if (!strcmp(s->devices[i].name, name))
			return &s->devices[i];
	return NULL;
}

/* "/dev/ublkb0p1" */
static const struct disk *device_by_path(const struct search *s, const char *path)
{
	return strncmp(path, "/dev/", 5) ? NULL : device_by_name(s, path + 5);
}

static const struct disk *device_by_number(const struct search *s, const char *number)
{
	for (unsigned i = 0; i < s->nr_devices; i++)
		if (!strcmp(s->devices[i].number, number))
			return &s->devices[i];
	return NULL;
}

static bool add_device(struct search *s, const char *name)
{
	struct disk *device = &s->devices[s->nr_devices];
	char path[PATH_MAX];

	if (s->nr_devices == DEVICES_MAX || strlen(name) >= sizeof(device->name) ||
	    device_by_name(s, name) || !make_path(path, "%s/sys/class/block/%s/dev", s->root, name))
		return false;
	small_file_line(path, device->number, sizeof(device->number));
	if (!*device->number)
		return false;
	snprintf(device->name, sizeof(device->name), "%s", name);
	s->nr_devices++;
	return true;
}

/* Each entry of a directory that is not hidden; one that is not there has none. */
#define for_each_entry(dir, entry)            \
	while (dir && (entry = readdir(dir))) \
		if (*entry->d_name != '.')

static void add_partitions(struct search *s, const char *name)
{
	char path[PATH_MAX], file[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	if (!make_path(path, "%s/sys/class/block/%s", s->root, name))
		return;
	dir = opendir(path);
	for_each_entry(dir, entry)
	{
		if (make_path(file, "%s/%s/partition", path, entry->d_name) && !access(file, F_OK))
			add_device(s, entry->d_name);
	}
	if (dir)
		closedir(dir);
}

/* A device that stands on another one, and its partitions. */
static int add_upper(struct search *s, const char *name, const char *on)
{
	if (!add_device(s, name))
		return 0;
	add_partitions(s, name);
	return add_holder(s, HOLDER_DEVICE, 0, name, on);
}

static int add_holders(struct search *s, const char *name)
{
	char path[PATH_MAX];
	struct dirent *entry;
	int ret = 0;
	DIR *dir;

	if (!make_path(path, "%s/sys/class/block/%s/holders", s->root, name))
		return 0;
	dir = opendir(path);
	for_each_entry(dir, entry)
	{
		if (!ret)
			ret = add_upper(s, entry->d_name, name);
	}
	if (dir)
		closedir(dir);
	return ret;
}

/* A loop device opens its backing file in the kernel; only it knows. */
static int add_loops(struct search *s, const char *name)
{
	char path[PATH_MAX], file[PATH_MAX], backing[PATH_MAX];
	struct dirent *entry;
	int ret = 0;
	DIR *dir;

	if (!make_path(path, "%s/sys/block", s->root))
		return 0;
	dir = opendir(path);
	for_each_entry(dir, entry)
	{
		if (ret || strncmp(entry->d_name, "loop", 4) ||
		    !make_path(file, "%s/%s/loop/backing_file", path, entry->d_name))
			continue;
		small_file_line(file, backing, sizeof(backing));
		if (!strncmp(backing, "/dev/", 5) && !strcmp(backing + 5, name))
			ret = add_upper(s, entry->d_name, name);
	}
	if (dir)
		closedir(dir);
	return ret;
}

/* s->devices grows meanwhile. */
static int find_devices(struct search *s, const char *block)
{
	int ret = 0;

	if (!add_device(s, block))
		return -ENODEV;
	add_partitions(s, block);
	for (unsigned i = 0; i < s->nr_devices && !ret; i++) {
		char name[sizeof(s->devices[i].name)];

		memcpy(name, s->devices[i].name, sizeof(name));
		ret = add_holders(s, name);
		if (!ret)
			ret = add_loops(s, name);
	}
	return ret;
}

/* ---- mounts and swap ---- */

/* Blanks and such are written as \ooo there. */
static void unescape(char *text)
{
	char *out = text;

	for (; *text; text++) {
		if (*text == '\\' && strspn(text + 1, "01234567") >= 3) {
			*out++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
					(text[3] - '0'));
			text += 3;
		} else {
			*out++ = *text;
		}
	}
	*out = 0;
}

/* A line of mountinfo: ID PARENT MAJOR:MINOR ROOT DIRECTORY OPTIONS… - TYPE SOURCE … */
static int look_at_mount(struct search *s, char *line, pid_t pid)
{
	const struct disk *device;
	char *number = NULL, *directory = NULL, *source = NULL, *rest = line, *word;

	for (unsigned i = 0; (word = strsep(&rest, " ")); i++) {
		if (i == 2)
			number = word;
		else if (i == 4)
			directory = word;
		else if (i > 4 && !strcmp(word, "-"))
			break;
	}
	strsep(&rest, " ");
	source = strsep(&rest, " \n");
	if (!source)
		return 0;
	unescape(directory);
	unescape(source);
	/* Some file systems (btrfs) have a number of their own, and name the device. */
	device = device_by_number(s, number);
	if (!device)
		device = device_by_path(s, source);
	return device ? add_holder(s, HOLDER_MOUNT, pid, directory, device->name) : 0;
}

static int look_at_mounts(struct search *s, const char *process, pid_t pid)
{
	char path[PATH_MAX], *line = NULL;
	size_t size = 0;
	int ret = 0;
	FILE *f;

	if (!make_path(path, "%s/proc/%s/mountinfo", s->root, process))
		return 0;
	f = fopen(path, "re");
	while (f && !ret && getline(&line, &size, f) > 0)
		ret = look_at_mount(s, line, pid);
	free(line);
	if (f)
		fclose(f);
	return ret;
}

/*
 * The mounts that a process sees. Most processes share a mount namespace, and a host can have
 * thousands of both: each namespace is read once.
 */
static int look_at_space(struct search *s, const char *process, pid_t pid)
{
	char path[PATH_MAX], space[64], **more;
	ssize_t n;

	if (!make_path(path, "%s/proc/%s/ns/mnt", s->root, process))
		return 0;
	n = readlink(path, space, sizeof(space) - 1);
	if (n < 0)
		return 0; /* gone, a kernel thread, or not ours to see */
	space[n] = 0;
	for (unsigned i = 0; i < s->nr_spaces; i++)
		if (!strcmp(s->spaces[i], space))
			return 0;
	more = realloc(s->spaces, (s->nr_spaces + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	s->spaces = more;
	more[s->nr_spaces] = strdup(space);
	if (!more[s->nr_spaces])
		return -ENOMEM;
	s->nr_spaces++;
	return look_at_mounts(s, process, pid);
}

static int find_swap(struct search *s)
{
	char path[PATH_MAX], *line = NULL;
	const struct disk *device;
	size_t size = 0;
	int ret = 0;
	FILE *f;

	if (!make_path(path, "%s/proc/swaps", s->root))
		return 0;
	f = fopen(path, "re");
	while (f && !ret && getline(&line, &size, f) > 0) {
		line[strcspn(line, " \t\n")] = 0;
		unescape(line);
		device = device_by_path(s, line);
		if (device)
			ret = add_holder(s, HOLDER_SWAP, 0, device->name, device->name);
	}
	free(line);
	if (f)
		fclose(f);
	return ret;
}

/* ---- processes ---- */

static int look_at_descriptors(struct search *s, const char *process, pid_t pid)
{
	const struct disk *device = NULL;
	char path[PATH_MAX], target[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	if (!make_path(path, "%s/proc/%s/fd", s->root, process))
		return 0;
	dir = opendir(path);
	for_each_entry(dir, entry)
	{
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		device = device_by_path(s, target);
		if (device)
			break;
	}
	if (dir)
		closedir(dir);
	return device ? add_holder(s, HOLDER_PROCESS, pid, NULL, device->name) : 0;
}

static bool is_ignored(const struct search *s, pid_t pid)
{
	for (unsigned i = 0; i < s->nr_ignored; i++)
		if (s->ignored[i] == pid)
			return true;
	return false;
}

static int find_processes(struct search *s)
{
	char path[PATH_MAX];
	struct dirent *entry;
	int ret;
	DIR *dir;

	/* First the machine's own view, and ours, whose mounts need nobody's name. */
	ret = look_at_space(s, "1", 0);
	if (!ret)
		ret = look_at_space(s, "self", 0);
	if (ret)
		return ret;
	if (!make_path(path, "%s/proc", s->root))
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return -errno;
	for_each_entry(dir, entry)
	{
		char *end;
		pid_t pid = (pid_t)strtol(entry->d_name, &end, 10);

		if (ret || *end || pid <= 0 || is_ignored(s, pid))
			continue;
		ret = look_at_space(s, entry->d_name, pid);
		if (!ret)
			ret = look_at_descriptors(s, entry->d_name, pid);
	}
	closedir(dir);
	return ret;
}

/* ---- all of them ---- */

int holders_find_in(const char *root, const char *block, const pid_t *ignored, unsigned nr_ignored,
		    struct holders *holders)
{
	struct search *s;
	int ret;

	*holders = (struct holders){ 0 };
	if (!*block || *block == '.' || strchr(block, '/'))
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	holders->list = calloc(HOLDERS_MAX, sizeof(*holders->list));
	if (!s || !holders->list) {
		ret = -ENOMEM;
		goto out;
	}
	s->root = root;
	s->ignored = ignored;
	s->nr_ignored = nr_ignored;
	s->holders = holders;
	ret = find_devices(s, block);
	if (!ret)
		ret = find_swap(s);
	if (!ret)
		ret = find_processes(s);
	for (unsigned i = 0; i < s->nr_spaces; i++)
		free(s->spaces[i]);
	free(s->spaces);
out:
	free(s);
	if (ret)
		holders_close(holders);
	return ret;
}

int holders_find(const char *block, const pid_t *ignored, unsigned nr_ignored,
		 struct holders *holders)
{
	return holders_find_in("", block, ignored, nr_ignored, holders);
}

void holders_close(struct holders *holders)
{
	for (unsigned i = 0; i < holders->nr; i++)
		free(holders->list[i].path);
	free(holders->list);
	*holders = (struct holders){ 0 };
}

const char *holders_text(const struct holders *holders, char *out, size_t size)
{
	size_t used = 0;

	out[0] = 0;
	for (unsigned i = 0; i < holders->nr && used < size; i++) {
		const struct holder *h = &holders->list[i];
		char command[80], path[400], pid[24] = "";

		if (h->pid)
			snprintf(pid, sizeof(pid), " %d", (int)h->pid);
		used += (size_t)snprintf(out + used, size - used, "%s%s%s%s%s%s%s%s", i ? ", " : "",
					 holder_kind_name(h->kind), pid, h->pid ? " (" : "",
					 h->pid ? text_escape(h->command, command, sizeof(command))
						: "",
					 h->pid ? ")" : "", h->path ? " " : "",
					 h->path ? text_escape(h->path, path, sizeof(path)) : "");
	}
	return out;
}

bool holders_are_processes(const struct holders *holders)
{
	for (unsigned i = 0; i < holders->nr; i++)
		if (holders->list[i].kind != HOLDER_PROCESS)
			return false;
	return true;
}

const char *holder_kind_name(enum holder_kind kind)
{
	static const char *const names[] = {
		[HOLDER_PROCESS] = "process",
		[HOLDER_MOUNT] = "mount",
		[HOLDER_SWAP] = "swap",
		[HOLDER_DEVICE] = "device",
	};

	return names[kind];
}
