/* SPDX-License-Identifier: MIT */
/*
 * A kernel for unit tests: io_uring and the ublk driver in the test's own
 * process, behind the functions that enter the real one (wrap.list).
 *
 * It keeps the driver's documented rules (Linux 6.12 to 7.2): who may send which
 * command when, where data is copied and at what moment, which results end a
 * request and which send the rest of it again.  The test plays the block layer:
 * it makes requests and hears how they ended.  What no server may do (commit a
 * tag twice, commit nothing done of a write, leave a device, a mapping or a
 * descriptor behind …) is noted, and fake_stop() fails the test for it.
 *
 * Work that a backend sends to a ring is done on the spot by the real system
 * calls, or ends as fake_work() says.  A poll (one shot) looks at the real
 * descriptor, and a timeout (relative) at the real clock, until they are ready or
 * cancelled.
 *
 * Between fake_start() and fake_stop() only; outside of that every call goes to
 * the real kernel.  Any thread, but fake_start(), fake_stop() and the faults,
 * which are the test's own thread's.
 */
#ifndef UBLKD_FAKE_KERNEL_H
#define UBLKD_FAKE_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

struct fake_kernel {
	uint64_t features;      /* UBLK_FEAT_*: what ADD_DEV keeps */
	bool tells_features;    /* has GET_FEATURES */
	uint64_t withheld;      /* UBLK_FEAT_* that it tells of, and ADD_DEV clears */
	uint32_t params;        /* UBLK_PARAMS_* that SET_PARAMS keeps */
	unsigned cpus;          /* most queues of a device */
	unsigned devices;       /* most devices */
	uint32_t ring_flags;    /* IORING_SETUP_* that it takes */
	bool registers_ring_fd; /* IORING_REGISTER_RING_FDS */
	bool discards;          /* a ring's discard command for block devices */
	int ring_refusal;       /* errno that setting a ring up always ends with; 0: none */
	int control_refusal;    /* errno that opening /dev/ublk-control ends with; 0: none */
	unsigned char_late;     /* times that /dev/ublkcN is not there yet */
};

extern const struct fake_kernel fake_linux_6_0;  /* no GET_FEATURES */
extern const struct fake_kernel fake_linux_6_12; /* user copy, 0x1fe */
extern const struct fake_kernel fake_linux_7_2;  /* everything, 0xfffff */

void fake_start(const struct fake_kernel *kernel);
/* Fails the test where something is left, or was done that no server may do. */
void fake_stop(void);

/* Violations of the kernel's rules so far; fake_forgive() forgets them. */
unsigned fake_violations(void);
void fake_forgive(void);

/* ---- devices ---- */

unsigned fake_devices(void);
bool fake_is_live(unsigned id);
/* Whether the kernel would look for partitions by itself. */
bool fake_scans_partitions(unsigned id);
/* The last value of /sys/block/ublkbID/queue/NAME; NULL: none was written. */
const char *fake_attribute(unsigned id, const char *name);
struct ublk_dev_info;
struct ublk_dev_params;
bool fake_device(unsigned id, struct ublk_dev_info *info, struct ublk_dev_params *params);
/* Its server has died, and the driver keeps it for the next one. */
void fake_quiesce(unsigned id);
/* Another process sends STOP_DEV, and DEL_DEV if `delete`; neither is waited for. */
void fake_other_stops(unsigned id, bool delete);

/* ---- requests, as the block layer makes them ---- */

struct fake_request;

/*
 * op: UBLK_OP_*; flags: UBLK_REQ_*; offset and length in bytes.  data stays until
 * the request was waited for.  Nothing is checked that the block layer would.
 */
struct fake_request *fake_request_start(unsigned id, unsigned queue, unsigned op, uint32_t flags,
					uint64_t offset, uint32_t length, void *data);
bool fake_request_ended(const struct fake_request *request);
/* Returns 0, or -errno as the block layer hears it.  Ends the program if it never ends. */
int fake_request_wait(struct fake_request *request);
/* Both at once. */
int fake_request(unsigned id, unsigned queue, unsigned op, uint32_t flags, uint64_t offset,
		 uint32_t length, void *data);
/* Requests that a server has taken and not committed. */
unsigned fake_in_service(unsigned id);
/* How often the rest of a request was sent again. */
unsigned fake_requeues(void);

/* Memory for a request's data, aligned for direct I/O; filled with `byte`. */
void *fake_data(uint32_t length, uint8_t byte);
void fake_data_free(void *data);

/* ---- faults ---- */

/*
 * From now on the n-th call (from 1; 0: none) fails, of all calls or of those
 * named `only` ("calloc", "io_uring_submit", "ADD_DEV", "FETCH" …), with
 * code (0: one that this call is known for).
 */
void fake_fail(const char *only, unsigned n, int code);
/* Calls so far, since fake_fail() or fake_start(). */
unsigned fake_calls(void);
/* The name of the call that failed; NULL: it has not come to that. */
const char *fake_failed(void);

/* The last command of /dev/ublk-control: its code and payload. */
struct ublk_ctrl_cmd;
uint32_t fake_last_command(struct ublk_ctrl_cmd *payload);
/* Commands with this code are not answered (0: all are again); cancel: but can be cancelled. */
void fake_hang(uint32_t op, bool cancel);
/* The next command with this code ends with -errno `code` at once. */
void fake_refuse(uint32_t op, int code);
/* Every n-th automatic buffer registration fails; 0: none. */
void fake_registration_fails(unsigned every);

/* Changes what statx(2) says; NULL (and fake_start()): nothing is changed. */
struct statx;
void fake_statx(void (*change)(struct statx *stx));
/* fallocate(2) with any of these bits fails with EOPNOTSUPP, as does a ring's; 0: none. */
void fake_no_fallocate(int mode);

/*
 * Work of a ring's opcode (READ and WRITE for their FIXED kinds too): after
 * `skip` more, the next `times` end with `result`: -errno, or so many bytes done.
 */
void fake_work(int opcode, unsigned skip, unsigned times, int result);
/* Work of an opcode that was done since fake_start(); writes with RWF_DSYNC. */
unsigned fake_work_done(int opcode);
unsigned fake_dsyncs(void);
/* While on, finished work is not told; then all of it, the last first. */
void fake_hold_work(bool on);
unsigned fake_work_held(void);

/* While on, user copies wait before they copy; how many do. */
void fake_hold_copies(bool on);
unsigned fake_copies_held(void);

/* pthread_cond_timedwait() of the program under test waits only 1/n of its time. */
void fake_hasten(unsigned n);

/* ---- what the process has ---- */

/*
 * While on, what this thread allocates may be lost: memory that is left to the
 * kernel on purpose, for a command that it never answers.
 */
void fake_leaks(bool on);

unsigned fake_open_files(void);
unsigned fake_threads(void);

/* ---- the queues' clock, for backends (fake-clock.c) ---- */

/* So many seconds pass at once, for queue_now_ns() only. */
void fake_clock_pass(unsigned seconds);
/* The clock is the real one again.  No queue is there. */
void fake_clock_reset(void);

#endif
