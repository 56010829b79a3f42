/* SPDX-License-Identifier: MIT */
/*
 * Shared by the parts of the fake kernel: fake-calls.c (the wrapped functions of
 * the C library, and faults), fake-ring.c (io_uring), fake-driver.c (ublk).
 * One lock guards it all.
 */
#ifndef UBLKD_FAKE_INTERNAL_H
#define UBLKD_FAKE_INTERNAL_H

#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "engine/ublk_abi.h"
#include "tests/unit/fake-kernel.h"

#define FAKE_FILES    64u   /* registered files of a ring */
#define FAKE_WAITING  128u  /* of a ring: reads of eventfds, polls, timeouts */
#define FAKE_FDS      4096u /* descriptors that can be the fake kernel's */
#define FAKE_PATIENCE 30    /* seconds that anything may take before the program is ended */
#define FAKE_POLL_MS  50    /* how often a waiter looks at files it cannot be told about */

struct fake_ring;
struct fake_device;

/* ---- fake-calls.c ---- */

extern struct fake_kernel fake_now;
extern bool fake_active;
extern pthread_mutex_t fake_lock;
extern pthread_cond_t fake_changed; /* anything */

/* Whether this call is the one that is to fail; *code is then with what errno. */
bool fake_point(const char *name, int usual, int *code);
void fake_violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fake_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Waits for a change, at most ms milliseconds; with the lock. */
void fake_wait(unsigned ms);

enum fake_kind {
	FAKE_NONE,
	FAKE_CONTROL,
	FAKE_CHAR,
	FAKE_RING,
	FAKE_ATTRIBUTE,
};

struct fake_file {
	enum fake_kind kind;
	struct fake_device *device;
	char *attribute;
};

/* By descriptor; all with the lock. */
struct fake_file *fake_file_of(int fd);
void fake_file_new(int fd, enum fake_kind kind);

/* The real calls. */
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
long __real_syscall(long number, ...);
ssize_t __real_pread(int fd, void *to, size_t length, off_t offset);
ssize_t __real_pwrite(int fd, const void *from, size_t length, off_t offset);
ssize_t __real_write(int fd, const void *from, size_t length);
void *__real_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t length);
int __real_memfd_create(const char *name, unsigned flags);
int __real_fstat(int fd, struct stat *st);
int __real_ftruncate(int fd, off_t length);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
void *__real_calloc(size_t n, size_t size);
void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);

/* ---- fake-ring.c; with the lock ---- */

/* Tells a ring of a completion; it sees it when it next enters the kernel. */
void fake_ring_complete(struct fake_ring *ring, uint64_t user_data, int result);
/* Something waits for its owner to enter the kernel, who may spin for IORING_SQ_TASKRUN. */
void fake_ring_flag(struct fake_ring *ring);
/* Registers a request's data under an index of the ring's buffers; -errno. */
int fake_ring_register(struct fake_ring *ring, unsigned index, void *data, uint32_t length,
		       bool for_read);
void fake_ring_unregister(struct fake_ring *ring, unsigned index);
uint32_t fake_ring_flags(const struct fake_ring *ring);
unsigned fake_rings(void);
void fake_rings_reset(void);

/* ---- fake-driver.c; with the lock ---- */

/* A command came; it is completed now or later. */
void fake_control_command(struct fake_ring *ring, const struct io_uring_sqe *sqe);
void fake_io_command(struct fake_ring *ring, struct fake_device *device,
		     const struct io_uring_sqe *sqe);
/* 0, -EALREADY or -ENOENT. */
int fake_cancel_command(struct fake_ring *ring, uint64_t user_data);
/* True where a command of the ring's will be answered without anybody's help. */
bool fake_ring_has_commands(const struct fake_ring *ring, bool hung_too);
/* The ring's owner is in the kernel: requests are handed to it. */
void fake_deliver_requests(struct fake_ring *ring);
/* The ring goes away, with what it fetched. */
void fake_forget_ring(struct fake_ring *ring);
/* Whether fallocate(2) was told to lack one of the mode's bits. */
bool fake_fallocate_lacks(int mode);

struct fake_device *fake_find_device(unsigned id);
bool fake_device_is_live(const struct fake_device *device);
struct fake_device *fake_open_char(unsigned id, int *code);
void fake_hold_char(struct fake_device *device);
void fake_drop_char(struct fake_device *device);
void *fake_map_char(struct fake_device *device, size_t length, int prot, off_t offset);
void fake_set_attribute(struct fake_device *device, const char *name, const void *value,
			size_t length);
/* pread (write requests) and pwrite (read requests); takes the lock itself. */
ssize_t fake_user_copy(struct fake_device *device, void *memory, size_t length, uint64_t offset,
		       bool is_pread);
void fake_driver_reset(void);
/* Says what is left of devices; returns their number. */
unsigned fake_driver_left(void);

#endif
