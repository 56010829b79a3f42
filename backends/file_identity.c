/* SPDX-License-Identifier: MIT */
/*
 * An inode number alone is no identity: ext4 gives the number of a file that was removed
 * to the next one, and a device number is no identity of a file system or a disk: btrfs,
 * overlayfs and NFS get another with each mount, and the next disk that is plugged in gets
 * that of the last one.  So all facts are collected that tell one file from another or
 * know it again, and a later server's are compared with those that the device was made
 * with.  Where they do not show that it is the same storage it counts as another: an
 * administrator who knows better can say so.
 *
 * Every fact that was there must be there again and be equal.  One that is new (from a
 * newer version) is not looked at.
 */
#include "backends/file_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef EXFAT_SUPER_MAGIC
#define EXFAT_SUPER_MAGIC 0x2011BAB0 /* linux/magic.h of 5.14 */
#endif
#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#define BLOCK_DEVICE "block device"
#define FILE_KIND    "file"
#define DISK_ID_MAX  128u
#define FAT_EPOCH    315705600 /* 1980-01-03: earlier is what FAT has where nobody set it */
#define HANDLE_MAX   128       /* MAX_HANDLE_SZ */

/* ---- the facts ---- */

__attribute__((format(printf, 2, 3))) static void add(struct instance *instance, const char *format,
						      ...)
{
	size_t length = strlen(instance->identity);
	va_list args;

	va_start(args, format);
	vsnprintf(instance->identity + length, sizeof(instance->identity) - length, format, args);
	va_end(args);
}

/* The kernel's old_encode of a device number in statfs(2): no news beside st_dev. */
static uint64_t fsid_of_dev(dev_t dev)
{
	return (minor(dev) & 0xff) | (uint64_t)major(dev) << 8 |
	       ((uint64_t)minor(dev) & ~0xffull) << 12;
}

/* FNV-1a, of 64 bits. */
static uint64_t hash_handle(const struct file_handle *handle)
{
	uint64_t hash = 0xcbf29ce484222325ull ^ (uint32_t)handle->handle_type;

	for (unsigned i = 0; i < handle->handle_bytes; i++)
		hash = (hash ^ handle->f_handle[i]) * 0x100000001b3ull;
	return hash;
}

static void add_handle(struct instance *instance, int fd)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + HANDLE_MAX];
	} h = { .handle.handle_bytes = HANDLE_MAX };
	int mount;

	if (!name_to_handle_at(fd, "", &h.handle, &mount, AT_EMPTY_PATH))
		add(instance, " handle=%016" PRIx64, hash_handle(&h.handle));
}

static void add_birth(struct instance *instance, int fd, bool fat)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) || !(stx.stx_mask & STATX_BTIME))
		return;
	if (!fat || stx.stx_btime.tv_sec >= FAT_EPOCH)
		add(instance, " born=%lld.%09u", (long long)stx.stx_btime.tv_sec,
		    stx.stx_btime.tv_nsec);
}

static void add_file_facts(struct instance *instance, int fd, const struct stat *st)
{
	struct statfs fs = { 0 };
	uint64_t id;
	bool fat;

	if (fstatfs(fd, &fs))
		return;
	fat = (unsigned)fs.f_type == MSDOS_SUPER_MAGIC || (unsigned)fs.f_type == EXFAT_SUPER_MAGIC;
	id = (uint32_t)fs.f_fsid.__val[0] | (uint64_t)(uint32_t)fs.f_fsid.__val[1] << 32;
	if ((unsigned)fs.f_type == NFS_SUPER_MAGIC)
		add(instance, " fs=nfs"); /* the handle is the server's word */
	else if (id && id != fsid_of_dev(st->st_dev))
		add(instance, " fs=%016" PRIx64, id);
	if (fat)
		add(instance, " renumbers");
	/* Made up again whenever the inode is read: no fact. */
	else if ((unsigned)fs.f_type != FUSE_SUPER_MAGIC)
		add_handle(instance, fd);
	add_birth(instance, fd, fat);
}

/* ---- the disk ---- */

/* An attribute of the disk, a partition's whole disk; one word, as a fact needs it. */
static bool read_attribute(struct instance *instance, dev_t dev, const char *in, const char *name,
			   char *text, size_t size)
{
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s%s", major(dev), minor(dev), in, name);
	fd = instance->host->open_file(instance, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	while (n > 0 && (text[n - 1] <= ' ' || text[n - 1] == 0x7f))
		n--;
	if (n <= 0)
		return false;
	text[n] = 0;
	for (char *c = text; *c; c++)
		if (*c <= ' ' || *c >= 0x7f)
			*c = '_';
	return true;
}

static void add_disk_facts(struct instance *instance, dev_t dev, bool itself)
{
	static const char *const identifiers[] = { "wwid",    "device/wwid", "dm/uuid",
						   "md/uuid", "serial",      "device/cid" };
	char text[DISK_ID_MAX], number[24], start[24];
	bool partition;
	const char *in;

	partition = read_attribute(instance, dev, "", "partition", number, sizeof(number));
	in = partition ? "../" : "";
	for (unsigned i = 0; i < sizeof(identifiers) / sizeof(*identifiers); i++) {
		if (!read_attribute(instance, dev, in, identifiers[i], text, sizeof(text)))
			continue;
		add(instance, " disk=%s%s%s", text, partition ? "-part" : "",
		    partition ? number : "");
		break;
	}
	if (itself && read_attribute(instance, dev, in, "diskseq", text, sizeof(text)))
		add(instance, " seq=%s", text);
	if (partition && read_attribute(instance, dev, "", "start", start, sizeof(start)))
		add(instance, " start=%s", start);
}

void file_identity(struct instance *instance, int fd, const struct stat *st)
{
	bool device = S_ISBLK(st->st_mode);
	dev_t disk = device ? st->st_rdev : st->st_dev;

	snprintf(instance->identity, sizeof(instance->identity), "%s %llu:%llu:%llu",
		 device ? BLOCK_DEVICE : FILE_KIND, (unsigned long long)st->st_dev,
		 (unsigned long long)st->st_ino, (unsigned long long)st->st_rdev);
	if (!device)
		add_file_facts(instance, fd, st);
	if (major(disk))
		add_disk_facts(instance, disk, device);
}

/* ---- the comparison ---- */

bool file_identity_fact(const char *identity, const char *key, char *value, size_t size)
{
	size_t length = strlen(key);

	for (const char *at = strchr(identity, ' '); at; at = strchr(at, ' ')) {
		at++;
		if (strncmp(at, key, length) != 0 ||
		    (at[length] && at[length] != '=' && at[length] != ' '))
			continue;
		at += length + (at[length] == '=');
		snprintf(value, size, "%.*s", (int)strcspn(at, " "), at);
		return true;
	}
	*value = 0;
	return false;
}

struct numbers {
	bool device;
	unsigned long long dev, ino, rdev;
	bool has_facts;
};

static bool read_numbers(const char *identity, struct numbers *n)
{
	int end = 0;

	*n = (struct numbers){ .device =
				       !strncmp(identity, BLOCK_DEVICE " ", sizeof(BLOCK_DEVICE)) };
	if (!n->device && strncmp(identity, FILE_KIND " ", sizeof(FILE_KIND)) != 0)
		return false;
	identity += n->device ? sizeof(BLOCK_DEVICE) : sizeof(FILE_KIND);
	if (sscanf(identity, "%llu:%llu:%llu%n", &n->dev, &n->ino, &n->rdev, &end) != 3 || !end)
		return false;
	n->has_facts = identity[end] == ' ';
	return n->has_facts || !identity[end];
}

static bool has(const char *identity, const char *key)
{
	char value[IDENTITY_BYTES];

	return file_identity_fact(identity, key, value, sizeof(value));
}

/* Whether a fact that was there is there again, and equal. */
static bool holds(const char *was, const char *now, const char *key)
{
	char before[IDENTITY_BYTES], after[IDENTITY_BYTES];

	return !file_identity_fact(was, key, before, sizeof(before)) ||
	       (file_identity_fact(now, key, after, sizeof(after)) && !strcmp(before, after));
}

static const char *device_differs(const char *was, const struct numbers *w, const char *now,
				  const struct numbers *n)
{
	if (!holds(was, now, "disk"))
		return "it is another disk";
	if (!holds(was, now, "start") || has(was, "start") != has(now, "start"))
		return "it is another partition";
	if (has(was, "disk"))
		return NULL;
	/* A number of the kernel's, which no other disk gets until the next boot. */
	if (!holds(was, now, "seq"))
		return "it is another disk, or was removed and came back, and has no identifier "
		       "to prove that it is the same";
	if (w->rdev != n->rdev || (!has(was, "seq") && (w->dev != n->dev || w->ino != n->ino)))
		return "it is another disk";
	return NULL;
}

static const char *file_differs(const char *was, const struct numbers *w, const char *now,
				const struct numbers *n)
{
	bool told = has(was, "handle") || has(was, "born");

	if (!holds(was, now, "fs") || !holds(was, now, "disk"))
		return "it is on another file system";
	/* Anonymous device numbers (major 0) change with each mount. */
	if (w->dev != n->dev &&
	    (!told || !major(w->dev) != !major(n->dev) || !has(was, major(w->dev) ? "disk" : "fs")))
		return "it is on another file system, or that was mounted again, and nothing "
		       "proves that it is the same file";
	if (w->ino != n->ino && !(has(was, "renumbers") && has(was, "born")))
		return "it is another file";
	if (!holds(was, now, "handle") || !holds(was, now, "born"))
		return "it is another file, created later";
	return NULL;
}

const char *file_identity_differs(const char *was, const char *now)
{
	struct numbers w, n;

	if (!read_numbers(was, &w) || !read_numbers(now, &n))
		return strcmp(was, now) ? "it is another kind of storage" : NULL;
	if (w.device != n.device)
		return n.device ? "it is a block device" : "it is a file";
	/* A record of the first version. */
	if (!w.has_facts)
		return w.dev == n.dev && w.ino == n.ino && w.rdev == n.rdev ? NULL
									    : "it is another file "
									      "or disk";
	return w.device ? device_differs(was, &w, now, &n) : file_differs(was, &w, now, &n);
}
