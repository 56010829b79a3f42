/* SPDX-License-Identifier: MIT */
/*
 * The root directory of a worker: a small file system in memory, read-only once it is
 * complete, in a mount namespace of its own.  No mount of the host's is left in it,
 * but three devices, and directories of /etc and /run that its resolver reads: a file
 * system on a device that this worker, or another, serves can be unmounted, and the
 * worker never waits for one.
 *
 * It is put together at BUILD in the new namespace, where nothing is that it is made
 * of, and takes the root's place then.
 */
#include "common/error.h"
#include "worker/sandbox.h"
#include "worker/sandbox_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000 /* Linux 5.8 */
#endif

#define BUILD      "/sys"
#define STAGE      "/.copies" /* in it */
#define COPIES_MAX 256u
#define BYTES_MAX  (4u << 20) /* of all copies */

/* The root that is being made.  The paths are those of the finished root. */
struct root {
	uid_t uid;
	gid_t gid;
	const struct owner *owner;
	char *targets[COPIES_MAX]; /* of the copies, which are in STAGE/N until then */
	unsigned nr_copies;
	size_t bytes;
};

/* ---- directories and what is bound ---- */

/* Makes the directories above path, in `in`. */
static int make_directories(const char *in, const char *path)
{
	char whole[PATH_MAX];
	size_t start = strlen(in);

	if (snprintf(whole, sizeof(whole), "%s%s", in, path) >= (int)sizeof(whole))
		return -ENAMETOOLONG;
	for (char *p = whole + start + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		if (mkdir(whole, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* The same as `from` at `to`, for reading only. */
static int bind(const char *from, const char *to)
{
	if (mount(from, to, NULL, MS_BIND, NULL) ||
	    mount(NULL, to, NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return -errno;
	return 0;
}

/* Where it is not there, or a file, it is left out. */
static int bind_directory(const char *path, struct error *err)
{
	char to[PATH_MAX];
	struct stat st;
	int ret;

	if (lstat(path, &st) || !S_ISDIR(st.st_mode))
		return 0;
	snprintf(to, sizeof(to), BUILD "%s/", path);
	ret = make_directories("", to);
	if (!ret)
		ret = bind(path, to);
	return ret ? error_set(err, ret, "cannot bind-mount %s for the worker: %s", path,
			       strerror(-ret))
		   : 0;
}

/* A file of a directory that is bound, where it is a mount itself, as in containers. */
static int bind_mounted_file(const char *path, struct error *err)
{
	char to[PATH_MAX];
	struct statx stx;
	int ret;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &stx) ||
	    !S_ISREG(stx.stx_mode) || !(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return 0;
	snprintf(to, sizeof(to), BUILD "%s", path);
	ret = bind(path, to);
	return ret ? error_set(err, ret, "cannot bind-mount %s for the worker: %s", path,
			       strerror(-ret))
		   : 0;
}

/*
 * Files that the resolver reads.  Directories and not files, which are replaced by others of
 * their names when the network changes.
 */
static int show_names(struct error *err)
{
	static const char *const directories[] = { "/etc",
						   "/run/systemd/resolve",
						   "/run/NetworkManager",
						   "/run/resolvconf",
						   "/run/avahi-daemon",
						   "/run/nscd" };
	static const char *const files[] = { "/etc/resolv.conf", "/etc/hosts",
					     "/etc/nsswitch.conf" };
	char real[PATH_MAX], *slash;
	int ret = 0;

	for (unsigned i = 0; !ret && i < sizeof(directories) / sizeof(*directories); i++)
		ret = bind_directory(directories[i], err);
	for (unsigned i = 0; !ret && i < sizeof(files) / sizeof(*files); i++)
		ret = bind_mounted_file(files[i], err);
	/* Somebody's own place for it, as in WSL. */
	if (!ret && realpath(files[0], real) && strncmp(real, "/etc/", 5) != 0 &&
	    strncmp(real, "/run/", 5) != 0 && (slash = strrchr(real, '/')) != real) {
		*slash = 0;
		ret = bind_directory(real, err);
	}
	/* Links of an older time lead through it. */
	if (!ret && !mkdir(BUILD "/var", 0755) && symlink("/run", BUILD "/var/run"))
		ret = error_set(err, errno, "/var/run: %s", strerror(errno));
	return ret;
}

/* Files of the system that the TLS library reads. */
static int show_authorities(struct error *err)
{
	static const char *const directories[] = { "/etc/ssl", "/etc/pki", "/etc/gnutls",
						   "/usr/share/ca-certificates",
						   "/usr/local/share/ca-certificates" };
	int ret = 0;

	for (unsigned i = 0; !ret && i < sizeof(directories) / sizeof(*directories); i++)
		ret = bind_directory(directories[i], err);
	return ret;
}

/* Bound, as to make them takes a right more. */
static int show_devices(struct error *err)
{
	static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/urandom" };
	char to[PATH_MAX];
	int fd;

	if (mkdir(BUILD "/dev", 0755))
		return error_set(err, errno, "/dev: %s", strerror(errno));
	for (unsigned i = 0; i < sizeof(devices) / sizeof(*devices); i++) {
		snprintf(to, sizeof(to), BUILD "%s", devices[i]);
		fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || mount(devices[i], to, NULL, MS_BIND, NULL))
			return error_set(err, errno, "cannot bind-mount %s for the worker: %s",
					 devices[i], strerror(errno));
		close(fd);
	}
	return 0;
}

/* ---- copies ---- */

static int too_much(const char *path, struct error *err)
{
	return error_set(
		err, EFBIG,
		"%s has more than %u files or %u MiB, too much to copy for a worker: use a "
		"directory of its own",
		path, COPIES_MAX, BYTES_MAX >> 20);
}

static int copy_bytes(struct root *root, int from, int to, const char *path, struct error *err)
{
	char buffer[4096];
	ssize_t n;

	while ((n = read(from, buffer, sizeof(buffer))) > 0) {
		root->bytes += (size_t)n;
		if (root->bytes > BYTES_MAX)
			return too_much(path, err);
		if (write(to, buffer, (size_t)n) != n)
			return error_set(err, EIO, "cannot copy %s for the worker", path);
	}
	return n < 0 ? error_set(err, errno, "%s: %s", path, strerror(errno)) : 0;
}

/* With the rights of the export's owner.  -1: it cannot be opened. */
static int open_as_owner(const struct root *root, const char *path, int flags)
{
	int fd = owner_become(root->owner) ? -1 : open(path, flags | O_CLOEXEC);

	if (!owner_leave(root->owner))
		return fd;
	/* Neither root nor the owner: it must not go on as that. */
	_exit(EXIT_FAILURE);
}

/* Into the stage.  What cannot be opened is left out: the backend will say so. */
static int copy_file(struct root *root, const char *path, struct error *err)
{
	char stage[64];
	struct stat st;
	int from = open_as_owner(root, path, O_RDONLY | O_NONBLOCK), to = -1, ret = 0;

	if (from < 0 || fstat(from, &st) || !S_ISREG(st.st_mode))
		goto close;
	if (root->nr_copies == COPIES_MAX) {
		ret = too_much(path, err);
		goto close;
	}
	snprintf(stage, sizeof(stage), BUILD STAGE "/%u", root->nr_copies);
	to = open(stage, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (to < 0 || fchown(to, root->uid, root->gid) || fchmod(to, 0400)) {
		ret = error_set(err, errno, "cannot copy %s for the worker: %s", path,
				strerror(errno));
		goto close;
	}
	ret = copy_bytes(root, from, to, path, err);
	if (ret)
		goto close;
	if (asprintf(&root->targets[root->nr_copies], "%s%s", *path == '/' ? "" : "/", path) < 0)
		ret = error_set(err, ENOMEM, "no memory");
	else
		root->nr_copies++;

close:
	if (to >= 0)
		close(to);
	if (from >= 0)
		close(from);
	return ret;
}

static int copy_directory(struct root *root, const char *path, struct error *err)
{
	int fd = open_as_owner(root, path, O_RDONLY | O_DIRECTORY), ret = 0;
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	char *file;

	if (!directory && fd >= 0)
		close(fd);
	if (!directory)
		return 0;
	while (!ret && (entry = readdir(directory))) {
		if (asprintf(&file, "%s/%s", path, entry->d_name) < 0) {
			ret = error_set(err, ENOMEM, "no memory");
			break;
		}
		ret = copy_file(root, file, err);
		free(file);
	}
	closedir(directory);
	return ret;
}

/* To its place, in the finished root.  In a directory that is bound it hides what is there. */
static int place_copy(const char *stage, const char *target)
{
	int ret = make_directories("", target);

	if (!ret && !rename(stage, target))
		return 0;
	if (ret && ret != -EROFS)
		return ret;
	if (!ret && errno != EXDEV && errno != EROFS && errno != EBUSY)
		return -errno;
	return mount(stage, target, NULL, MS_BIND, NULL) ? -errno : 0;
}

static int place_copies(struct root *root, struct error *err)
{
	char stage[32];
	int ret;

	for (unsigned i = 0; i < root->nr_copies; i++) {
		snprintf(stage, sizeof(stage), STAGE "/%u", i);
		ret = place_copy(stage, root->targets[i]);
		if (ret)
			return error_set(err, ret, "cannot bind-mount %s for the worker: %s",
					 root->targets[i], strerror(-ret));
	}
	return 0;
}

/* ---- the root's place ---- */

/* A path as mountinfo writes it: some characters as \ooo.  In place. */
static char *decode_octal(char *path)
{
	char *to = path;

	for (char *from = path; *from; from++) {
		if (*from == '\\' && strspn(from + 1, "01234567") >= 3) {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 |
				       (from[3] - '0'));
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = 0;
	return path;
}

/*
 * The kernel's first root (an initramfs that is stayed in) cannot be exchanged.  So
 * what is mounted on it goes away, one by one, and the new root comes to lie on it.
 */
static int cover_first_root(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *paths[1024], where[PATH_MAX];
	size_t size = 0;
	unsigned nr = 0;
	int id, parent, root = -1;

	if (!f)
		return -errno;
	while (getline(&line, &size, f) > 0) {
		if (sscanf(line, "%d %d %*s %*s %4095s", &id, &parent, where) != 3)
			continue;
		decode_octal(where);
		if (!strcmp(where, "/"))
			root = id;
		else if (parent == root && strcmp(where, BUILD) != 0 &&
			 nr < sizeof(paths) / sizeof(*paths) && (paths[nr] = strdup(where)))
			nr++;
	}
	free(line);
	fclose(f);
	while (nr) {
		umount2(paths[--nr], MNT_DETACH | UMOUNT_NOFOLLOW);
		free(paths[nr]);
	}
	/* A chroot's: what it is a part of cannot be let go of. */
	if (root < 0)
		return -EINVAL;
	if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot("."))
		return -errno;
	return 0;
}

static int become_root(struct error *err)
{
	int ret = 0;

	if (chdir(BUILD))
		ret = -errno;
	/* The old root comes to lie on the new one, and goes away from there. */
	else if (!syscall(SYS_pivot_root, ".", "."))
		ret = umount2(".", MNT_DETACH) ? -errno : 0;
	else
		ret = errno == EINVAL ? cover_first_root() : -errno;
	if (!ret && chdir("/"))
		ret = -errno;
	return ret ? error_set(
			     err, ret,
			     "cannot change the worker's root directory (%s): pivot_root fails in "
			     "a chroot, so run ublkd in a mount namespace",
			     strerror(-ret))
		   : 0;
}

static int begin_root(struct error *err)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return error_set(err, errno, "cannot create a mount namespace for the worker: %s",
				 strerror(errno));
	/* Onto the root itself, where that is possible. */
	while (!umount2(BUILD, MNT_DETACH))
		;
	if (mount("ublkd-worker", BUILD, "tmpfs", MS_NOSUID | MS_NOEXEC,
		  "mode=0755,size=8m,nr_inodes=2k") ||
	    mkdir(BUILD STAGE, 0755))
		return error_set(err, errno, "cannot mount a file system for the worker's root: %s",
				 strerror(errno));
	return 0;
}

static int fill(struct root *root, const struct sandbox_needs *needs, struct error *err)
{
	int ret = needs->opens ? show_devices(err) : 0;

	for (unsigned i = 0; !ret && i < needs->nr_files; i++)
		ret = copy_file(root, needs->files[i], err);
	for (unsigned i = 0; !ret && i < needs->nr_directories; i++)
		ret = copy_directory(root, needs->directories[i], err);
	if (!ret && needs->names)
		ret = show_names(err);
	/* All of /etc is there with the names. */
	if (!ret && needs->authorities && !needs->names)
		ret = show_authorities(err);
	return ret;
}

int sandbox_change_root(const struct sandbox_needs *needs, const struct sandbox *sandbox,
			struct error *err)
{
	struct root root = { .uid = sandbox->uid, .gid = sandbox->gid, .owner = &sandbox->owner };
	mode_t mask = umask(022);
	int ret = begin_root(err);

	if (!ret)
		ret = fill(&root, needs, err);
	if (!ret)
		ret = become_root(err);
	if (!ret)
		ret = place_copies(&root, err);
	/* Where nothing has stayed in it. */
	rmdir(STAGE);
	if (!ret && mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL))
		ret = error_set(err, errno, "cannot make the worker's root directory read-only: %s",
				strerror(errno));
	for (unsigned i = 0; i < root.nr_copies; i++)
		free(root.targets[i]);
	umask(mask);
	return ret;
}
