/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel's outside: the functions of the C library that the program
 * under test calls instead of the real ones, the files behind them, the failures
 * that a test asks for, and what must be gone at the end.
 */
#include "common/clock.h"
#include "tests/unit/fake-internal.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

const struct fake_kernel fake_linux_6_0 = {
	.features = 0x5f, /* no user copy */
	.params = UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD,
	.cpus = 4,
	.devices = 64,
	.ring_flags = IORING_SETUP_SQE128 | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL |
		      IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE,
	.registers_ring_fd = true,
};

const struct fake_kernel fake_linux_6_12 = {
	.features = 0x1fe,
	.tells_features = true,
	.params = UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD | UBLK_PARAMS_ZONED,
	.cpus = 4,
	.devices = 64,
	.ring_flags = IORING_SETUP_SQE128 | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL |
		      IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |
		      IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
	.registers_ring_fd = true,
	.discards = true,
};

const struct fake_kernel fake_linux_7_2 = {
	.features = 0xfffff,
	.tells_features = true,
	.params = UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD | UBLK_PARAMS_ZONED | UBLK_PARAMS_DMA |
		  UBLK_PARAMS_SEGMENT | UBLK_PARAMS_INTEGRITY,
	.cpus = 4,
	.devices = 64,
	.ring_flags = IORING_SETUP_SQE128 | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL |
		      IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |
		      IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
	.registers_ring_fd = true,
	.discards = true,
};

struct fake_kernel fake_now;
bool fake_active;
pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed;

static struct fake_file files[FAKE_FDS];
static unsigned violations;
static unsigned hasten = 1;

/* Mappings that were made since fake_start() and are there still. */
static struct {
	void *at;
	size_t length;
	struct fake_device *device;
} mappings[4096];

/* ---- faults ---- */

static struct {
	const char *only;
	unsigned n, calls;
	int code;
	const char *failed;
} fault;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

void fake_fail(const char *only, unsigned n, int code)
{
	pthread_mutex_lock(&fault_lock);
	fault.only = only;
	fault.n = n;
	fault.code = code;
	fault.calls = 0;
	fault.failed = NULL;
	pthread_mutex_unlock(&fault_lock);
}

bool fake_point(const char *name, int usual, int *code)
{
	bool fails = false;

	if (!__atomic_load_n(&fake_active, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&fault_lock);
	if (!fault.only || !strcmp(fault.only, name)) {
		fails = ++fault.calls == fault.n;
		if (fails) {
			fault.failed = name;
			*code = fault.code ? fault.code : usual;
		}
	}
	pthread_mutex_unlock(&fault_lock);
	return fails;
}

unsigned fake_calls(void)
{
	unsigned calls;

	pthread_mutex_lock(&fault_lock);
	calls = fault.calls;
	pthread_mutex_unlock(&fault_lock);
	return calls;
}

const char *fake_failed(void)
{
	const char *failed;

	pthread_mutex_lock(&fault_lock);
	failed = fault.failed;
	pthread_mutex_unlock(&fault_lock);
	return failed;
}

/* True, with errno set, where this call must fail. */
static bool fails(const char *name, int usual)
{
	int code;

	if (!fake_point(name, usual, &code))
		return false;
	errno = code;
	return true;
}

void fake_violation(const char *fmt, ...)
{
	va_list args;

	violations++;
	va_start(args, fmt);
	fprintf(stderr, "fake kernel: ");
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
}

void fake_die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "fake kernel: ");
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}

unsigned fake_violations(void)
{
	unsigned n;

	pthread_mutex_lock(&fake_lock);
	n = violations;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

void fake_forgive(void)
{
	pthread_mutex_lock(&fake_lock);
	violations = 0;
	pthread_mutex_unlock(&fake_lock);
}

/* ---- time ---- */

static struct timespec later(struct timespec t, uint64_t ns)
{
	ns += (uint64_t)t.tv_nsec;
	t.tv_sec += (time_t)(ns / 1000000000);
	t.tv_nsec = (long)(ns % 1000000000);
	return t;
}

void fake_wait(unsigned ms)
{
	struct timespec until = clock_in_ms(ms);

	__real_pthread_cond_timedwait(&fake_changed, &fake_lock, &until);
}

void fake_hasten(unsigned n)
{
	hasten = n;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until)
{
	struct timespec now, sooner = *until;
	int64_t left;

	if (hasten > 1) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		left = (int64_t)(until->tv_sec - now.tv_sec) * 1000000000 + until->tv_nsec -
		       now.tv_nsec;
		sooner = left > 0 ? later(now, (uint64_t)left / hasten) : now;
	}
	return __real_pthread_cond_timedwait(cond, mutex, &sooner);
}

int __real_usleep(useconds_t us);
int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
	return __real_usleep(__atomic_load_n(&fake_active, __ATOMIC_RELAXED) ? 1 : us);
}

/* ---- start and stop ---- */

void fake_start(const struct fake_kernel *kernel)
{
	if (fake_rings())
		fake_die("a test that failed has left threads which serve; the rest is not run");
	clock_condition(&fake_changed);
	fake_now = *kernel;
	violations = 0;
	hasten = 1;
	memset(files, 0, sizeof(files));
	memset(mappings, 0, sizeof(mappings));
	fake_rings_reset();
	fake_driver_reset();
	fake_fail(NULL, 0, 0);
	__atomic_store_n(&fake_active, true, __ATOMIC_SEQ_CST);
}

void fake_stop(void)
{
	unsigned bad;

	fake_fail(NULL, 0, 0);
	pthread_mutex_lock(&fake_lock);
	__atomic_store_n(&fake_active, false, __ATOMIC_SEQ_CST);
	bad = violations + fake_driver_left();
	if (fake_rings()) {
		fprintf(stderr, "fake kernel: %u rings are left\n", fake_rings());
		bad++;
	}
	for (unsigned fd = 0; fd < FAKE_FDS; fd++)
		if (files[fd].kind) {
			fprintf(stderr, "fake kernel: descriptor %u is left (kind %d)\n", fd,
				files[fd].kind);
			bad++;
		}
	for (unsigned i = 0; i < sizeof(mappings) / sizeof(*mappings); i++)
		if (mappings[i].at) {
			fprintf(stderr, "fake kernel: a mapping of %zu bytes is left\n",
				mappings[i].length);
			bad++;
		}
	pthread_mutex_unlock(&fake_lock);
	pthread_cond_destroy(&fake_changed);
	if (bad)
		fail_msg("%u breaches of the kernel's rules, or things left (see above)", bad);
}

void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

void fake_leaks(bool on)
{
	void (*tell)(void) = on ? __lsan_disable : __lsan_enable;

	if (tell)
		tell();
}

static unsigned entries_of(const char *directory)
{
	DIR *dir = opendir(directory);
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

unsigned fake_open_files(void)
{
	return entries_of("/proc/self/fd");
}

unsigned fake_threads(void)
{
	return entries_of("/proc/self/task");
}

/* ---- files ---- */

struct fake_file *fake_file_of(int fd)
{
	return fd >= 0 && fd < (int)FAKE_FDS && files[fd].kind ? &files[fd] : NULL;
}

void fake_file_new(int fd, enum fake_kind kind)
{
	if (fd < 0 || fd >= (int)FAKE_FDS)
		fake_die("no descriptor is left");
	files[fd] = (struct fake_file){ .kind = kind };
}

/* A descriptor of our own, so that it counts as any other does. */
static int new_file(enum fake_kind kind, struct fake_device *device, const char *attribute)
{
	int fd = __real_memfd_create("fake", MFD_CLOEXEC);

	fake_file_new(fd, kind);
	files[fd].device = device;
	files[fd].attribute = attribute ? __real_strdup(attribute) : NULL;
	return fd;
}

static int open_control(void)
{
	if (fake_now.control_refusal) {
		errno = fake_now.control_refusal;
		return -1;
	}
	return new_file(FAKE_CONTROL, NULL, NULL);
}

static int open_char(unsigned id)
{
	struct fake_device *device;
	int code;

	if (fake_now.char_late) {
		fake_now.char_late--;
		errno = ENOENT;
		return -1;
	}
	device = fake_open_char(id, &code);
	if (!device) {
		errno = code;
		return -1;
	}
	return new_file(FAKE_CHAR, device, NULL);
}

static int open_attribute(unsigned id, const char *name)
{
	struct fake_device *device = fake_find_device(id);

	if (!device || !fake_device_is_live(device)) {
		errno = ENOENT;
		return -1;
	}
	return new_file(FAKE_ATTRIBUTE, device, name);
}

/* -2: it is nothing of ours. */
static int open_ours(const char *path)
{
	char name[32];
	unsigned id;
	int fd = -2;

	if (strncmp(path, "/dev/ublk", 9) && strncmp(path, "/sys/block/ublkb", 16))
		return -2;
	pthread_mutex_lock(&fake_lock);
	if (!strcmp(path, UBLK_CONTROL_PATH)) {
		fd = open_control();
	} else if (sscanf(path, UBLK_CHAR_PREFIX "%u", &id) == 1) {
		fd = open_char(id);
	} else if (sscanf(path, "/sys/block/ublkb%u/queue/%31s", &id, name) == 2) {
		fd = open_attribute(id, name);
	} else {
		errno = ENOENT;
		fd = -1;
	}
	pthread_mutex_unlock(&fake_lock);
	return fd;
}

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	unsigned mode = 0;
	va_list args;
	int fd;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, unsigned);
	va_end(args);
	if (fails("open", EMFILE))
		return -1;
	if (fake_active) {
		fd = open_ours(path);
		if (fd != -2)
			return fd;
	}
	return __real_open(path, flags, mode);
}

ssize_t __wrap_pread(int fd, void *to, size_t length, off_t offset);

/* Calls of a fortified open() and pread(). */
int __wrap___open_2(const char *path, int flags);
int __wrap___open_2(const char *path, int flags)
{
	return __wrap_open(path, flags);
}

ssize_t __wrap___pread_chk(int fd, void *to, size_t length, off_t offset, size_t room);
ssize_t __wrap___pread_chk(int fd, void *to, size_t length, off_t offset, size_t room)
{
	if (length > room)
		abort();
	return __wrap_pread(fd, to, length, offset);
}

int __wrap_close(int fd);
int __wrap_close(int fd)
{
	struct fake_file *file;

	if (fake_active) {
		pthread_mutex_lock(&fake_lock);
		file = fake_file_of(fd);
		if (file) {
			struct fake_device *device = file->device;
			bool is_char = file->kind == FAKE_CHAR;

			free(file->attribute);
			*file = (struct fake_file){ 0 };
			if (is_char)
				fake_drop_char(device);
		}
		pthread_mutex_unlock(&fake_lock);
	}
	return __real_close(fd);
}

static struct fake_device *char_device(int fd)
{
	struct fake_file *file;
	struct fake_device *device = NULL;

	if (!fake_active)
		return NULL;
	pthread_mutex_lock(&fake_lock);
	file = fake_file_of(fd);
	if (file && file->kind == FAKE_CHAR)
		device = file->device;
	pthread_mutex_unlock(&fake_lock);
	return device;
}

ssize_t __wrap_pread(int fd, void *to, size_t length, off_t offset)
{
	struct fake_device *device = char_device(fd);

	if (fails("pread", EIO))
		return -1;
	return device ? fake_user_copy(device, to, length, (uint64_t)offset, true)
		      : __real_pread(fd, to, length, offset);
}

ssize_t __wrap_pwrite(int fd, const void *from, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *from, size_t length, off_t offset)
{
	struct fake_device *device = char_device(fd);

	if (fails("pwrite", EIO))
		return -1;
	return device ? fake_user_copy(device, (void *)(uintptr_t)from, length, (uint64_t)offset,
				       false)
		      : __real_pwrite(fd, from, length, offset);
}

/* For the calls that the program makes without libc's own function. */
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list args;

	va_start(args, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_pread64)
		return __wrap_pread((int)a[0], (void *)a[1], (size_t)a[2], a[3]);
	if (number == SYS_pwrite64)
		return __wrap_pwrite((int)a[0], (const void *)a[1], (size_t)a[2], a[3]);
	if (number == SYS_membarrier && fails("membarrier", ENOSYS))
		return -1;
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Not a call that fails, but one that wakes a ring which reads an eventfd. */
ssize_t __wrap_write(int fd, const void *from, size_t length);
ssize_t __wrap_write(int fd, const void *from, size_t length)
{
	struct fake_file *file;
	ssize_t ret = __real_write(fd, from, length);

	if (fake_active && fd > STDERR_FILENO) {
		pthread_mutex_lock(&fake_lock);
		file = fake_file_of(fd);
		if (file && file->kind == FAKE_ATTRIBUTE)
			fake_set_attribute(file->device, file->attribute, from, length);
		pthread_cond_broadcast(&fake_changed);
		pthread_mutex_unlock(&fake_lock);
	}
	return ret;
}

/* ---- memory ---- */

static void remember_mapping(void *at, size_t length, struct fake_device *device)
{
	for (unsigned i = 0; i < sizeof(mappings) / sizeof(*mappings); i++)
		if (!mappings[i].at) {
			mappings[i].at = at;
			mappings[i].length = length;
			mappings[i].device = device;
			return;
		}
	fake_die("too many mappings");
}

void *__wrap_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct fake_device *device;
	void *mapped;

	if (!fake_active)
		return __real_mmap(at, length, prot, flags, fd, offset);
	if (fails("mmap", ENOMEM))
		return MAP_FAILED;
	device = char_device(fd);
	pthread_mutex_lock(&fake_lock);
	mapped = device ? fake_map_char(device, length, prot, offset)
			: __real_mmap(at, length, prot, flags, fd, offset);
	/* A fixed one is part of one that is there. */
	if (mapped != MAP_FAILED && !(flags & MAP_FIXED))
		remember_mapping(mapped, length, device);
	pthread_mutex_unlock(&fake_lock);
	return mapped;
}

int __wrap_munmap(void *at, size_t length);
int __wrap_munmap(void *at, size_t length)
{
	if (fake_active) {
		pthread_mutex_lock(&fake_lock);
		for (unsigned i = 0; i < sizeof(mappings) / sizeof(*mappings); i++) {
			if (mappings[i].at != at)
				continue;
			if (mappings[i].length != length)
				fake_violation("a mapping of %zu bytes is unmapped as %zu",
					       mappings[i].length, length);
			if (mappings[i].device)
				fake_drop_char(mappings[i].device);
			mappings[i].at = NULL;
			break;
		}
		pthread_mutex_unlock(&fake_lock);
	}
	return __real_munmap(at, length);
}

void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	return fails("calloc", ENOMEM) ? NULL : __real_calloc(n, size);
}

void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails("malloc", ENOMEM) ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	return fails("realloc", ENOMEM) ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return fails("aligned_alloc", ENOMEM) ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return fails("strdup", ENOMEM) ? NULL : __real_strdup(text);
}

char *__real_strndup(const char *text, size_t most);
char *__wrap_strndup(const char *text, size_t most);
char *__wrap_strndup(const char *text, size_t most)
{
	return fails("strndup", ENOMEM) ? NULL : __real_strndup(text, most);
}

/* ---- other calls that can fail ---- */

int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
	return fails("memfd_create", ENFILE) ? -1 : __real_memfd_create(name, flags);
}

int __real_eventfd(unsigned value, int flags);
int __wrap_eventfd(unsigned value, int flags);
int __wrap_eventfd(unsigned value, int flags)
{
	return fails("eventfd", EMFILE) ? -1 : __real_eventfd(value, flags);
}

int __wrap_ftruncate(int fd, off_t length);
int __wrap_ftruncate(int fd, off_t length)
{
	return fails("ftruncate", ENOSPC) ? -1 : __real_ftruncate(fd, length);
}

static void (*statx_change)(struct statx *stx);
static int fallocate_lacks;

void fake_statx(void (*change)(struct statx *stx))
{
	statx_change = change;
}

void fake_no_fallocate(int mode)
{
	fallocate_lacks = mode;
}

bool fake_fallocate_lacks(int mode)
{
	return mode & fallocate_lacks;
}

int __real_statx(int dir, const char *path, int flags, unsigned mask, struct statx *stx);
int __wrap_statx(int dir, const char *path, int flags, unsigned mask, struct statx *stx);
int __wrap_statx(int dir, const char *path, int flags, unsigned mask, struct statx *stx)
{
	int ret = __real_statx(dir, path, flags, mask, stx);

	if (!ret && statx_change)
		statx_change(stx);
	return ret;
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (fake_fallocate_lacks(mode)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return fails("fallocate", EOPNOTSUPP) ? -1 : __real_fallocate(fd, mode, offset, length);
}

/* Told to be done: that it takes its time is nothing to test. */
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	if (fails("fsync", EIO))
		return -1;
	return fake_active ? 0 : __real_fsync(fd);
}

off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	return fails("lseek", EIO) ? -1 : __real_lseek(fd, offset, whence);
}

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
	return fails("flock", EWOULDBLOCK) ? -1 : __real_flock(fd, operation);
}

int __wrap_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st)
{
	return fails("fstat", EIO) ? -1 : __real_fstat(fd, st);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *),
			  void *arg)
{
	int code;

	if (fake_point("pthread_create", EAGAIN, &code))
		return code;
	return __real_pthread_create(thread, attr, body, arg);
}
