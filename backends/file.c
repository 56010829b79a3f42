/* SPDX-License-Identifier: MIT */
/*
 * file: a regular file or a block device, by direct I/O where it has it.
 *
 * Every request is I/O on the queue's own ring.  A flush is fdatasync, FUA is
 * RWF_DSYNC, a discard punches a hole, write-zeroes zeroes the range and keeps
 * its blocks if it is told to.  What the file system or device cannot do is found
 * out at open and not offered.
 *
 * The kernel reports a failed write-back once to each open file description,
 * and has dropped the data by then: a second flush would succeed over the loss.
 * So each queue flushes through a description of its own, which nothing else
 * uses and no other queue can take the report from; and from the first failed
 * flush on every flush of the export fails, until it is opened again.
 */
#include "backends/file_content.h"
#include "backends/file_identity.h"
#include "common/clock.h"
#include "engine/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PROBE_BYTES      4096
#define RETRIES_MAX      100  /* of a transfer that the kernel interrupts without progress */
#define RELEASE_MS       5000 /* for the kernel to let go of an earlier server's files */
#define RELEASE_PAUSE_MS 20

enum direct {
	DIRECT_AUTO,
	DIRECT_ON,
	DIRECT_OFF
};

static const struct option_def file_options[] = {
	{ "create", OPTION_SIZE, NULL, NULL, 512, 0, "create a sparse file of this size" },
	{ "direct", OPTION_CHOICE, "auto|on|off", "auto", 0, 0,
	  "bypass the page cache; auto: where the file system supports it" },
	{ "discard", OPTION_CHOICE, "on|off", "on", 0, 0,
	  "off: refuse discards and never punch holes, so that allocated space stays allocated" },
	{ "disk", OPTION_TEXT, NULL, NULL, 0, 0,
	  "refuse a block device with another identifier (persist records it)" },
	{ .name = NULL },
};

struct file {
	const char *path;
	int fd;
	int *flush_fds; /* one a queue */
	unsigned nr_flush_fds;
	uint32_t device_block; /* a block device's own logical block size; else 0 */
	uint32_t block;        /* the exported device's */
	struct stat stat;
	bool created;
	bool direct;
	bool punches;                /* holes may be punched */
	bool zeroes_kept;            /* FALLOC_FL_ZERO_RANGE works */
	_Atomic uint64_t full_ms;    /* when a write last found no space; 0: reported as over */
	atomic_bool discard_command; /* a block device, and the ring takes discards for it */
};

struct file_queue {
	int file;  /* for data, in the queue's ring */
	int flush; /* for fdatasync */
};

struct file_io {
	uint32_t done; /* bytes of the transfer so far */
	unsigned retries;
};

/* ---- open ---- */

static const char *path_of(const struct instance *instance)
{
	/* "file:///x" and "file:/x" are the same file. */
	return strncmp(instance->locator, "///", 3) ? instance->locator : instance->locator + 2;
}

static int file_check(const struct instance *instance, struct error *err)
{
	if (!strncmp(instance->locator, "//", 2) && instance->locator[2] != '/')
		return error_set(
			err, EINVAL,
			"'%s' names a host: write file:PATH, or file:///PATH with three slashes",
			instance->name);
	if (!*path_of(instance))
		return error_set(err, EINVAL,
				 "'%s': the path is missing: give a path, as in "
				 "file:/var/lib/disk.img",
				 instance->name);
	if (instance_option(instance, "create")->set && instance->read_only)
		return error_set(err, EINVAL,
				 "create: a new file that is read-only would stay empty: leave "
				 "out create or read-only");
	return 0;
}

static void file_needs(const struct instance *instance, backend_need_callback *need, void *context)
{
	const char *path = path_of(instance);
	char *copy;

	need(context, NEED_HOST_QUEUE, NULL);
	if (!instance_option(instance, "create")->set) {
		need(context, NEED_HOST_FILE, path);
		return;
	}
	need(context, NEED_HOST_NEW_FILE, path);
	copy = strdup(path);
	if (copy)
		need(context, NEED_HOST_READ, dirname(copy));
	free(copy);
}

static int open_failed(const struct instance *instance, const char *path, int code,
		       struct error *err)
{
	switch (code) {
	case -ENOENT:
		if (instance->reason == OPEN_TAKEOVER)
			return error_set(err, code, "%s: the file is gone: restore it", path);
		if (instance_option(instance, "create")->set)
			return error_set(err, code,
					 "%s: the directory does not exist: create it first", path);
		return error_set(err, code,
				 "%s: no such file: check the path, or create one with the "
				 "option create=SIZE",
				 path);
	case -EEXIST:
		return error_set(err, code,
				 "%s exists, and the option create never touches an existing file: "
				 "leave it out, or use another path",
				 path);
	case -EACCES:
	case -EPERM:
		return error_set(err, code, "%s: no permission to open it for %s", path,
				 instance->read_only ? "reading"
						     : "writing (the option read-only needs less)");
	case -EROFS:
		return error_set(err, code,
				 "%s: the file system is read-only: use the option read-only",
				 path);
	case -ETXTBSY:
		return error_set(err, code, "%s is a running program or active swap", path);
	case -EBUSY:
		return error_set(err, code,
				 "%s is in use, mounted or opened by another program: unmount it, "
				 "or use the option read-only",
				 path);
	}
	return error_set(err, code, "cannot open %s: %s", path, strerror(-code));
}

static int check_type(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	/* Opening a FIFO or a tape for real can block or do things. */
	int fd = instance->host->open_file(instance, f->path, O_PATH | O_CLOEXEC, 0), ret = 0;

	if (fd < 0)
		return open_failed(instance, f->path, fd, err);
	if (fstat(fd, &f->stat))
		ret = error_set(err, errno, "%s: %s", f->path, strerror(errno));
	else if (S_ISDIR(f->stat.st_mode))
		ret = error_set(err, EISDIR, "%s is a directory: use a file or a block device",
				f->path);
	else if (!S_ISREG(f->stat.st_mode) && !S_ISBLK(f->stat.st_mode))
		ret = error_set(err, ENOTBLK, "%s is neither a regular file nor a block device",
				f->path);
	close(fd);
	return ret;
}

/* Makes a new file's name durable, as its content will be by the first flush. */
static void sync_directory(struct instance *instance, const char *path)
{
	char *copy = strdup(path);
	int fd;

	if (!copy)
		return;
	fd = instance->host->open_file(instance, dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC,
				       0);
	if (fd < 0 || fsync(fd))
		log_warning(instance->name,
			    "the new file's name may be lost in a crash: fsync of the directory: "
			    "%s",
			    strerror(fd < 0 ? -fd : errno));
	if (fd >= 0)
		close(fd);
	free(copy);
}

static int make_file(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	uint64_t size = instance_option(instance, "create")->number;
	int fd, ret = 0;

	fd = instance->host->open_file(instance, f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
				       0600);
	if (fd < 0)
		return open_failed(instance, f->path, fd, err);
	/* From here on a failed open removes the file again, so that no empty image is left. */
	f->created = true;
	if (ftruncate(fd, (off_t)size))
		ret = error_set(err, errno, "cannot resize %s to %llu bytes: %s", f->path,
				(unsigned long long)size, strerror(errno));
	else if (fsync(fd))
		ret = error_set(err, errno, "%s: %s", f->path, strerror(errno));
	close(fd);
	if (!ret)
		sync_directory(instance, f->path);
	return ret;
}

/*
 * Whether fd is the file that was looked at, which f->stat is of from then on: a number
 * may have gone to another file meanwhile, until the first descriptor holds it.
 */
static int check_same_file(struct file *f, int fd, struct error *err)
{
	struct stat was = f->stat;

	if (fstat(fd, &f->stat))
		return error_set(err, errno, "%s: %s", f->path, strerror(errno));
	if (was.st_dev != f->stat.st_dev || was.st_ino != f->stat.st_ino ||
	    was.st_rdev != f->stat.st_rdev || (was.st_mode & S_IFMT) != (f->stat.st_mode & S_IFMT))
		return error_set(err, ESTALE,
				 "%s was replaced while it was being opened: try again", f->path);
	return 0;
}

/* A read-only block device opens for writing all the same, and then refuses each write. */
static int check_writable(const struct instance *instance, struct error *err)
{
	const struct file *f = instance->private;
	int read_only = 0;

	if (instance->read_only || !S_ISBLK(f->stat.st_mode) ||
	    ioctl(f->fd, BLKROGET, &read_only) || !read_only)
		return 0;
	return error_set(err, EROFS, "%s is a read-only device: use the option read-only", f->path);
}

static int access_mode(const struct instance *instance)
{
	return (instance->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
}

static int lock_file(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;

	/* Block devices are held by O_EXCL; a lock would keep udev from them. */
	if (S_ISBLK(f->stat.st_mode))
		return 0;
	if (!flock(f->fd, (instance->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK) {
		f->created = false; /* who was faster owns it now */
		return error_set(
			err, EBUSY,
			"%s is locked by another program (is it already exported?): stop that "
			"program first",
			f->path);
	}
	log_warning(instance->name,
		    "cannot lock the file: %s: nothing prevents a second export of it",
		    strerror(errno));
	return 0;
}

/* The alignment of direct I/O, from the kernel (6.1) or by trying. */
static int direct_alignment(int fd, uint32_t *offset_align, uint32_t *memory_align)
{
	struct statx stx;
	void *block;
	ssize_t got;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) && stx.stx_mask & STATX_DIOALIGN) {
		*offset_align = stx.stx_dio_offset_align;
		*memory_align = stx.stx_dio_mem_align;
		return *offset_align ? 0 : -EINVAL;
	}
	block = aligned_alloc(PROBE_BYTES, PROBE_BYTES);
	if (!block)
		return -ENOMEM;
	got = pread(fd, block, 512, 0);
	free(block);
	*offset_align = *memory_align = got < 0 && errno == EINVAL ? PROBE_BYTES : 512;
	return 0;
}

/*
 * Reads of ours are no news about the file, so its access time stays, where that
 * is for us to say (its owner, or CAP_FOWNER).
 */
static int open_quietly(struct instance *instance, int flags)
{
	struct file *f = instance->private;
	int fd = instance->host->open_file(instance, f->path, flags | O_NOATIME, 0);

	return fd == -EPERM ? instance->host->open_file(instance, f->path, flags, 0) : fd;
}

/* Reads an image's start: the block size that its content was made for. */
static int learn_content(struct instance *instance, int fd, struct error *err)
{
	struct file *f = instance->private;
	uint8_t *head = aligned_alloc(PROBE_BYTES, CONTENT_HEAD);
	const char *reason;
	ssize_t n;

	if (!head)
		return error_set(err, ENOMEM, "no memory");
	do
		n = pread(fd, head, CONTENT_HEAD, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		error_set(err, errno, "cannot read the first %u bytes of %s: %s", CONTENT_HEAD,
			  f->path, strerror(errno));
		free(head);
		return -err->code;
	}
	f->block = content_block_size(head, (size_t)n, &reason);
	if (reason)
		log_info(instance->name, "blocks of %u bytes, because the content is %s", f->block,
			 reason);
	free(head);
	return 0;
}

/* The device's block size: as asked for, as the disk has it, or as the image was made. */
static int choose_block(struct instance *instance, int fd, struct error *err)
{
	struct file *f = instance->private;
	unsigned logical = 512;

	f->block = instance->block_size;
	if (S_ISBLK(f->stat.st_mode)) {
		if (ioctl(fd, BLKSSZGET, &logical))
			return error_set(err, errno, "cannot determine the block size of %s: %s",
					 f->path, strerror(errno));
		f->device_block = logical;
		if (!f->block)
			f->block = logical;
	}
	/* A device that lives keeps its block size, whatever was written to it since. */
	if (!f->block)
		f->block = instance->live_block;
	return f->block ? 0 : learn_content(instance, fd, err);
}

/*
 * Whether f->fd, opened with O_DIRECT, can serve: *refusal says why it cannot.  Returns 0,
 * or -errno with err filled where the storage cannot be served at all.
 */
static int try_direct(struct instance *instance, uint32_t *offset_align, const char **refusal,
		      struct error *err)
{
	struct file *f = instance->private;
	int ret = 0;

	*refusal = "direct I/O needs larger blocks than the device has";
	if (direct_alignment(f->fd, offset_align, &instance->limits.dma_align))
		*refusal = "its file system has no direct I/O";
	else if (*offset_align <= PROBE_BYTES)
		ret = choose_block(instance, f->fd, err);
	if (f->block && f->block >= *offset_align)
		*refusal = NULL;
	return ret;
}

static void log_page_cache(const struct instance *instance, const char *refusal,
			   uint32_t offset_align)
{
	const struct file *f = instance->private;

	if (instance->block_size || instance->reason == OPEN_TAKEOVER || f->block >= offset_align)
		log_info(instance->name, "using the page cache: %s", refusal);
	else
		log_warning(instance->name,
			    "using the page cache: direct I/O needs blocks of %u bytes here, and "
			    "the device has %u, the default of images; if the content was made "
			    "for blocks of %u, use the option block-size=%u",
			    offset_align, f->block, offset_align, offset_align);
}

/* Opens the file with direct I/O if that is wanted and there; else buffered. */
static int open_data(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	enum direct wanted = (enum direct)instance_option(instance, "direct")->word;
	int exclusive = 0, flags = access_mode(instance), ret;
	uint32_t offset_align = 512;
	const char *refusal = NULL;

	if (S_ISBLK(f->stat.st_mode) && !instance->read_only)
		exclusive = O_EXCL;
	f->fd = -EINVAL;
	f->block = 0;
	if (wanted != DIRECT_OFF) {
		f->fd = open_quietly(instance, flags | exclusive | O_DIRECT);
		if (f->fd == -EINVAL) {
			refusal = "its file system has no direct I/O";
		} else if (f->fd >= 0) {
			ret = try_direct(instance, &offset_align, &refusal, err);
			if (ret)
				goto close;
			if (refusal)
				close(f->fd);
		}
		if (refusal && wanted == DIRECT_ON)
			return error_set(err, EINVAL, "%s: direct=on: %s: %s", f->path, refusal,
					 offset_align > 512
						 ? "use a larger block-size, or direct=off"
						 : "use direct=auto or off");
	}
	f->direct = wanted != DIRECT_OFF && !refusal;
	if (!f->direct) {
		f->fd = open_quietly(instance, flags | exclusive);
		instance->limits.dma_align = 0;
	}
	if (f->fd < 0)
		return open_failed(instance, f->path, f->fd, err);
	if (!f->block) {
		ret = choose_block(instance, f->fd, err);
		if (ret)
			goto close;
	}
	if (refusal)
		log_page_cache(instance, refusal, offset_align);
	return 0;

close:
	close(f->fd);
	return ret;
}

/* ---- what it can do ---- */

static bool read_attribute(struct instance *instance, const char *name, uint64_t *value)
{
	const struct file *f = instance->private;
	dev_t dev = S_ISBLK(f->stat.st_mode) ? f->stat.st_rdev : f->stat.st_dev;
	static const char *const directories[] = { "queue",
						   "../queue" }; /* a disk's; a partition's */
	char path[128];
	bool found = false;

	for (unsigned i = 0; i < 2 && !found; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev),
			 directories[i], name);
		found = instance_read_number(instance, path, value);
	}
	return found;
}

static void learn_backing_device(struct instance *instance)
{
	const struct file *f = instance->private;
	struct backend_limits *l = &instance->limits;
	uint64_t value, size;

	if (read_attribute(instance, "rotational", &value))
		l->rotational = value;
	if (f->direct && read_attribute(instance, "max_segments", &value) &&
	    read_attribute(instance, "max_segment_size", &size) && value && size >= 4096) {
		l->max_segments = value > UINT16_MAX ? UINT16_MAX : (uint32_t)value;
		l->max_segment_size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
		l->seg_boundary_mask =
			UINT32_MAX; /* the kernel shows it nowhere; this is its usual one */
	}
}

static bool allows_discard(const struct instance *instance)
{
	return !instance_option(instance, "discard")->word;
}

/*
 * Gives back what was allocated from `behind` on. The file may have got another length
 * since it was opened: that one stays.
 */
static int cut_behind(int fd, uint64_t behind)
{
	struct stat now;

	if (fstat(fd, &now))
		return -1;
	return (uint64_t)now.st_size > behind ? 0 : ftruncate(fd, now.st_size);
}

/*
 * Each is tried behind the end of the file, which then has its length and content
 * as before (blocks that somebody preallocated there are given back).
 * A file system that cannot even say (no space left, say) counts as unable.
 */
static void learn_file_operations(struct instance *instance)
{
	struct file *f = instance->private;
	struct backend_limits *l = &instance->limits;
	uint64_t behind = ((uint64_t)f->stat.st_size + PROBE_BYTES) / PROBE_BYTES * PROBE_BYTES;
	bool allocates;

	if (behind > INT64_MAX - PROBE_BYTES)
		return;
	f->punches = allows_discard(instance) &&
		     !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)behind,
				PROBE_BYTES);
	f->zeroes_kept = !fallocate(f->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				    (off_t)behind, PROBE_BYTES);
	/* In place of that a hole, which is then allocated: tmpfs. */
	allocates = f->punches && !f->zeroes_kept &&
		    !fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)behind, PROBE_BYTES);
	/* ext4 punches nothing behind the end; cutting there frees what the try allocated. */
	if ((f->zeroes_kept || allocates) && cut_behind(f->fd, behind))
		log_warning(instance->name,
			    "cannot free the block that was allocated past the end of the file "
			    "for a test: %s",
			    strerror(errno));
	l->max_discard = f->punches ? 1u << 30 : 0;
	l->max_write_zeroes = f->zeroes_kept || allocates ? 1u << 30 : 0;
	l->discard_granularity = (uint32_t)f->stat.st_blksize;
	if (l->discard_granularity & (l->discard_granularity - 1) ||
	    l->discard_granularity > 1u << 20)
		l->discard_granularity = 4096;
}

static uint32_t bounded(uint64_t bytes)
{
	return bytes > 1u << 30 ? 1u << 30 : (uint32_t)bytes;
}

static void learn_device_operations(struct instance *instance)
{
	struct file *f = instance->private;
	struct backend_limits *l = &instance->limits;
	uint64_t discard = 0, zeroes = 0, granularity = 0;

	read_attribute(instance, "discard_max_bytes", &discard);
	read_attribute(instance, "write_zeroes_max_bytes", &zeroes);
	read_attribute(instance, "discard_granularity", &granularity);
	/* Through the page cache the device's blocks may be larger than ours. */
	if (l->logical_block < f->device_block)
		return;
	f->punches = allows_discard(instance);
	f->zeroes_kept = true;
	l->max_write_zeroes = bounded(zeroes);
	l->max_discard = f->punches ? bounded(discard) : 0;
	l->discard_granularity = bounded(granularity);
	f->discard_command = true;
}

static int learn_size(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	struct backend_limits *l = &instance->limits;
	off_t size = lseek(f->fd, 0, SEEK_END);
	unsigned physical = 4096, optimal = 0;
	uint64_t tail;

	if (size < 0)
		return error_set(err, errno, "cannot determine the size of %s: %s", f->path,
				 strerror(errno));
	if (S_ISBLK(f->stat.st_mode)) {
		physical = 0;
		ioctl(f->fd, BLKPBSZGET, &physical);
		ioctl(f->fd, BLKIOOPT, &optimal);
	}
	l->logical_block = f->block;
	l->physical_block = physical > l->logical_block ? physical : l->logical_block;
	l->opt_io = optimal;
	tail = (uint64_t)size % l->logical_block;
	l->size = (uint64_t)size - tail;
	if (l->size && tail)
		log_info(instance->name,
			 "the last %llu bytes are not exported: they are less than a block of %u",
			 (unsigned long long)tail, l->logical_block);
	return 0;
}

static int file_resize(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	off_t size = lseek(f->fd, 0, SEEK_END);

	if (size < 0)
		return error_set(err, errno, "cannot determine the size of %s: %s", f->path,
				 strerror(errno));
	if ((uint64_t)size < instance->limits.size)
		return error_set(err, ESTALE,
				 "%s has shrunk to %lld bytes: the device keeps its size, and I/O "
				 "past that end fails",
				 f->path, (long long)size);
	instance_grow(instance, (uint64_t)size);
	return 0;
}

static int file_set_size(struct instance *instance, uint64_t size, struct error *err)
{
	struct file *f = instance->private;

	if (!S_ISREG(f->stat.st_mode))
		return error_set(err, EOPNOTSUPP,
				 "%s is a block device: resize it with its own tools, then run "
				 "'ublkctl resize' without a size",
				 f->path);
	if (size && (ftruncate(f->fd, (off_t)size) || fsync(f->fd)))
		return error_set(err, errno, "cannot resize %s to %llu bytes: %s", f->path,
				 (unsigned long long)size, strerror(errno));
	return 0;
}

static void close_flush_fds(struct instance *instance)
{
	struct file *f = instance->private;

	for (unsigned i = 0; i < f->nr_flush_fds; i++)
		if (f->flush_fds[i] >= 0)
			close(f->flush_fds[i]);
	free(f->flush_fds);
}

static int open_flush_fds(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	int fd, ret;

	f->flush_fds = malloc(instance->nr_queues * sizeof(*f->flush_fds));
	if (!f->flush_fds)
		return error_set(err, ENOMEM, "no memory");
	for (unsigned i = 0; i < instance->nr_queues; i++) {
		fd = instance->read_only ? -1
					 : instance->host->open_file(instance, f->path,
								     access_mode(instance), 0);
		f->flush_fds[f->nr_flush_fds++] = fd;
		if (instance->read_only)
			continue;
		ret = fd < 0 ? open_failed(instance, f->path, fd, err)
			     : check_same_file(f, fd, err);
		if (ret) {
			close_flush_fds(instance);
			return ret;
		}
	}
	return 0;
}

/* Opens the data, for nobody else: -EBUSY where somebody has it. */
static int take_data(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	int ret = open_data(instance, err);

	if (ret)
		return ret;
	ret = check_same_file(f, f->fd, err);
	if (!ret)
		ret = check_writable(instance, err);
	if (!ret)
		ret = lock_file(instance, err);
	if (ret)
		close(f->fd);
	return ret;
}

/*
 * Of a server that has ended the kernel keeps the files a little longer: it frees a
 * ring, and what is registered there, when it comes to it.
 */
static int take_data_over(struct instance *instance, struct error *err)
{
	/* Only -EBUSY is retried: O_EXCL or the lock of the earlier worker. */
	static const struct timespec pause = { .tv_nsec = RELEASE_PAUSE_MS * 1000000 };
	int ret = take_data(instance, err);

	for (unsigned ms = 0; ret == -EBUSY && ms < RELEASE_MS; ms += RELEASE_PAUSE_MS) {
		nanosleep(&pause, NULL);
		ret = take_data(instance, err);
	}
	return ret;
}

/* The disk at this path may be another one than when the export was declared. */
static int check_disk(const struct instance *instance, struct error *err)
{
	const struct option_value *wanted = instance_option(instance, "disk");
	const struct file *f = instance->private;
	char disk[IDENTITY_BYTES];

	if (!wanted->set)
		return 0;
	if (!S_ISBLK(f->stat.st_mode))
		return error_set(err, EINVAL, "%s: disk=%s: not a block device: leave disk= out",
				 f->path, wanted->text);
	file_identity_fact(instance->identity, "disk", disk, sizeof(disk));
	if (!strcmp(disk, wanted->text))
		return 0;
	return error_set(err, ESTALE,
			 "%s is another disk (%s) than the export's (disk=%s): name the disk by "
			 "its path in /dev/disk/by-id, or remove the export and create it again",
			 f->path, *disk ? disk : "without an identifier", wanted->text);
}

static bool file_record(const char *option, const struct backend_limits *limits,
			const char *identity, char *value, size_t size)
{
	bool device = !strncmp(identity, "block device ", strlen("block device "));

	if (!strcmp(option, "disk"))
		return device && file_identity_fact(identity, "disk", value, size);
	snprintf(value, size, "%u", limits->logical_block);
	return !device;
}

static int file_open(struct instance *instance, struct error *err)
{
	struct file *f = instance->private;
	struct backend_limits *l = &instance->limits;
	int ret = 0;

	f->path = path_of(instance);
	f->fd = -1;
	if (instance_option(instance, "create")->set && instance->reason != OPEN_TAKEOVER)
		ret = make_file(instance, err);
	if (ret == -EEXIST && instance->reason == OPEN_AGAIN)
		ret = 0;
	if (!ret)
		ret = check_type(instance, err);
	if (ret)
		goto remove;
	ret = instance->reason == OPEN_TAKEOVER ? take_data_over(instance, err)
						: take_data(instance, err);
	if (ret)
		goto remove;
	file_identity(instance, f->fd, &f->stat);
	ret = check_disk(instance, err);
	if (!ret)
		ret = learn_size(instance, err);
	if (ret)
		goto close;
	l->read_only = instance->read_only;
	/*
	 * Data may stay in the page cache or the disk's cache until fdatasync(2), also with direct
	 * I/O.
	 */
	l->volatile_cache = l->fua = !instance->read_only;
	learn_backing_device(instance);
	if (S_ISBLK(f->stat.st_mode))
		learn_device_operations(instance);
	else if (!instance->read_only && l->size)
		learn_file_operations(instance);
	ret = open_flush_fds(instance, err);
	if (ret)
		goto close;
	return 0;

close:
	close(f->fd);
remove:
	if (f->created)
		instance->host->remove_file(instance, f->path);
	return ret;
}

static void file_close(struct instance *instance)
{
	struct file *f = instance->private;

	close_flush_fds(instance);
	close(f->fd);
	/* Made for a device that never was: as if nothing had happened. */
	if (f->created && !instance->was_live)
		instance->host->remove_file(instance, f->path);
}

static int add_file(struct queue *queue, int fd, const char *path, struct error *err)
{
	int file = queue_add_file(queue, fd);

	return file < 0 ? error_set(err, file, "registering %s with io_uring: %s", path,
				    strerror(-file))
			: file;
}

static int file_queue_open(struct queue *queue, struct error *err)
{
	struct file *f = queue_instance(queue)->private;
	struct file_queue *fq = queue_private(queue);
	int flush_fd = f->flush_fds[queue_index(queue)];

	fq->file = add_file(queue, f->fd, f->path, err);
	if (fq->file < 0)
		return fq->file;
	/* A read-only export has no descriptor of its own for flushes, which have nothing to do. */
	fq->flush = flush_fd < 0 ? fq->file : add_file(queue, flush_fd, f->path, err);
	return fq->flush < 0 ? fq->flush : 0;
}

/* ---- requests ---- */

static void transferred(struct io *io, int result);

/* A sparse file that is full takes some writes and refuses others. */
static void note_full(struct instance *instance)
{
	struct file *f = instance->private;

	atomic_store(&f->full_ms, clock_ms());
	instance_report(instance, CAUSE_NO_SPACE, "no space for %s: writes fail with ENOSPC",
			f->path);
}

/* A write found space. */
static inline void note_room(struct instance *instance)
{
	struct file *f = instance->private;

	if (__builtin_expect(atomic_load_explicit(&f->full_ms, memory_order_relaxed), 0))
		instance_settle(instance, CAUSE_NO_SPACE, &f->full_ms);
}

/* Transfers all but the first `done` bytes. */
static void transfer(struct io *io, uint32_t done)
{
	struct file_queue *fq = queue_private(io->queue);

	io_transfer(io, fq->file, io->offset, done,
		    io->op == IO_WRITE && io->flags & IO_FUA ? RWF_DSYNC : 0, transferred);
}

/* A transfer ended with an error, an interruption or a part of what was asked. */
static __attribute__((noinline)) void transferred_less(struct io *io, int result)
{
	struct instance *instance = queue_instance(io->queue);
	struct file *f = instance->private;
	struct file_io *fio = io_private(io);

	if ((result == -EINTR || result == -EAGAIN) && fio->retries++ < RETRIES_MAX) {
		transfer(io, fio->done);
		return;
	}
	if (result < 0) {
		if (result == -ENOSPC)
			note_full(instance);
		io_complete(io, result);
		return;
	}
	fio->done += (uint32_t)result;
	/*
	 * The file has become shorter.  Direct I/O cannot go on within a block; through
	 * the page cache it can.
	 */
	if (!result || (f->direct && fio->done % instance->limits.logical_block))
		io_complete(io, -EIO);
	else
		transfer(io, fio->done);
}

/*
 * The result of one transfer of the ring. A part is continued behind what was done; only the sum
 * completes the request.
 */
static void transferred(struct io *io, int result)
{
	const struct file_io *fio = io_private(io);

	if (__builtin_expect(result != (int)(io->length - fio->done), 0)) {
		transferred_less(io, result);
		return;
	}
	if (io->op != IO_READ)
		note_room(queue_instance(io->queue));
	io_complete(io, (int)io->length);
}

static void flushed(struct io *io, int result)
{
	struct instance *instance = queue_instance(io->queue);

	if (result < 0 && instance_set_lost(instance, result))
		log_error(instance->name,
			  "a flush failed: %s: data written since the previous flush may be lost; "
			  "every flush fails until the export is removed and created again",
			  strerror(-result));
	/* Lost by another queue's flush while this one ran. */
	if (result >= 0)
		result = instance_lost(instance);
	io_complete(io, result);
}

static void flush(struct io *io)
{
	struct file_queue *fq = queue_private(io->queue);
	int lost = instance_lost(queue_instance(io->queue));

	if (lost)
		io_complete(io, lost);
	else
		io_datasync(io, fq->flush, flushed);
}

static void deallocate(struct io *io);

static void deallocated(struct io *io, int result)
{
	io_complete(io, result);
}

static void discarded(struct io *io, int result)
{
	struct file *f = queue_instance(io->queue)->private;

	/* Before Linux 6.12 the ring has no such command; a hole serves, where it can be punched. */
	if (result != -EOPNOTSUPP) {
		io_complete(io, result);
		return;
	}
	/* The kernel will not learn the command while we run: no queue tries it again. */
	atomic_store(&f->discard_command, false);
	deallocate(io);
}

/* The range is a hole by now, which was to stay allocated. */
static void punched(struct io *io, int result)
{
	struct file_queue *fq = queue_private(io->queue);

	if (result < 0)
		io_complete(io, result);
	else
		io_fallocate(io, fq->file, FALLOC_FL_KEEP_SIZE, io->offset, io->length,
			     deallocated);
}

static void deallocate(struct io *io)
{
	struct file *f = queue_instance(io->queue)->private;
	struct file_queue *fq = queue_private(io->queue);
	/*
	 * Write-zeroes may leave a hole unless IO_KEEP asks for allocated blocks, or discard=off
	 * does.
	 */
	bool keep = io->op == IO_WRITE_ZEROES && (io->flags & IO_KEEP || !f->punches);
	int mode = FALLOC_FL_PUNCH_HOLE;

	/* Write-zeroes was not offered; a hole must not be punched for it in any case. */
	if (!f->punches && (io->op == IO_DISCARD || !f->zeroes_kept)) {
		io_complete(io, -EOPNOTSUPP);
	} else if (io->op == IO_DISCARD && f->discard_command) {
		io_blkdiscard(io, fq->file, io->offset, io->length, discarded);
	} else {
		if (keep && f->zeroes_kept)
			mode = FALLOC_FL_ZERO_RANGE;
		io_fallocate(io, fq->file, mode | FALLOC_FL_KEEP_SIZE, io->offset, io->length,
			     keep && !f->zeroes_kept ? punched : deallocated);
	}
}

static void file_submit(struct io *io)
{
	struct file_io *fio;

	switch (io->op) {
	case IO_READ:
	case IO_WRITE:
		fio = io_private(io);
		*fio = (struct file_io){ 0 };
		transfer(io, 0);
		break;
	case IO_FLUSH:
		flush(io);
		break;
	default:
		deallocate(io);
		break;
	}
}

static const char *const file_recorded[] = { "block-size", "disk", NULL };

static const struct backend file_backend = {
	.scheme = "file",
	.syntax = "file:PATH",
	.summary = "a regular file or a block device",
	.access = ACCESS_RING,
	.partitions = true,
	.options = file_options,
	.recorded = file_recorded,
	.instance_size = sizeof(struct file),
	.queue_size = sizeof(struct file_queue),
	.io_size = sizeof(struct file_io),
	.check = file_check,
	.needs = file_needs,
	.open = file_open,
	.close = file_close,
	.resize = file_resize,
	.set_size = file_set_size,
	.differs = file_identity_differs,
	.record = file_record,
	.queue_open = file_queue_open,
	.submit = file_submit,
};
BACKEND_REGISTER(file_backend);
