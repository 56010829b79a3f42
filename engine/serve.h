/* SPDX-License-Identifier: MIT */
/*
 * The server's half of a device: its backend, open, and its queues, at work on
 * /dev/ublkcN.  It gives the kernel no command and needs no privilege; who does
 * and has them is device.h in `ublkctl run`, and ublkd for a worker.
 *
 *   serving_open   the backend is open: what it is and can do is known
 *   serving_start  every tag of every queue is fetched
 *   serving_join   the queues have ended: the device was stopped, or serving_quit()
 *   serving_close  the backend is closed
 *
 * Thread: whoever owns it, one at a time.
 */
#ifndef UBLKD_SERVE_H
#define UBLKD_SERVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/cpus.h"
#include "engine/backend.h"
#include "engine/counters.h"
#include "engine/io_path.h"
#include "engine/spec.h"

/* For a queue to fetch all its tags, or to end once the device has stopped. */
#define SERVING_QUEUE_MS 20000u

struct queue;

/* What the backend has reported (instance_report()). */
struct conditions {
	pthread_mutex_t lock; /* guards the rest; taken at changes only */
	struct health_condition list[CAUSES];
	bool changed;
};

/* Owner: whoever called serving_open(). */
struct serving {
	struct instance instance;
	struct conditions conditions;
	struct counters *counters; /* whoever called serving_open()'s */
	int end_event;             /* an eventfd: readable once a queue has ended */
	uint32_t poll_us;          /* as in struct queue_setup */
	struct queue *queues;
	unsigned nr_started; /* queues that are to be joined */
	bool stuck;          /* a queue's thread has not ended: all that it uses stays */
};

/* How the kernel has the device; cpus: one for each queue, NULL: no pinning. */
struct serving_setup {
	int char_fd; /* /dev/ublkcN; stays the caller's, and open until the end */
	enum io_path path;
	uint32_t max_io;
	unsigned nr_queues, depth;
	bool recoverable;  /* another server may take the device over when this one has ended */
	bool unprivileged; /* fetch without CAP_SYS_ADMIN, so that no partitions are scanned */
	const struct cpus *cpus;
};

/* The export and how it is served; all of it must stay until serving_close(). */
struct serving_of {
	const struct spec *spec; /* checked */
	const char *name;        /* for messages; NULL: the URI */
	enum open_reason reason; /* see struct instance, as for live_block */
	uint32_t live_block;
	struct device_shape shape; /* of a device that exists; 0: as spec says */
	const struct backend_host *host;
	struct counters *counters;
};

/*
 * Opens the backend.  export.limits are complete then, and export.nr_queues is no
 * more than the backend can serve.  Returns 0, or -errno with err filled and
 * nothing held.
 */
int serving_open(struct serving *serving, const struct serving_of *of, struct error *err);

/*
 * Starts the queues and waits until all tags are fetched.  Returns 0, or -errno
 * with err filled; serving_quit() and serving_join() are due in either case.
 */
int serving_start(struct serving *serving, const struct serving_setup *setup, struct error *err);

/*
 * Readable (poll) once a queue has ended by itself: the device was stopped, or a
 * queue failed.  serving_join() is due then.
 */
static inline int serving_event(const struct serving *serving)
{
	return serving->end_event;
}

/*
 * Copies the conditions; returns whether they have changed since the last call. Changes make
 * serving_grown_event() readable.
 */
bool serving_conditions(struct serving *serving, struct health_condition list[CAUSES]);

/* Readable once the storage has grown (instance_grow()); serving_grown() says how far. */
static inline int serving_grown_event(const struct serving *serving)
{
	return serving->instance.grown_event;
}

/* Takes the event.  The size that the storage has by now; limits.size: it has not grown. */
uint64_t serving_grown(struct serving *serving);

/* The size up to which requests are served from now on; not below what the kernel has. */
void serving_set_size(struct serving *serving, uint64_t size);

/* Whether a queue has ended because something went wrong. */
bool serving_has_failed(struct serving *serving);

/* Requests that the queues have answered so far. */
uint64_t serving_done(const struct serving *serving);

/* Has each queue do a round: one whose counter of rounds stays is stuck. */
void serving_wake(struct serving *serving);

/* The kernel's number of a queue's thread. */
int serving_thread(const struct serving *serving, unsigned queue);

/*
 * on: requests that come from now on are left to the next server; serving_quit()
 * is harmless once serving_is_drained(), which says that nothing is with the
 * backend.  off: they are served after all.
 */
void serving_drain(struct serving *serving, bool on);
bool serving_is_drained(struct serving *serving);

/* Tells the queues to leave at once, whatever is in flight. */
void serving_quit(struct serving *serving);

/*
 * Joins the queues.  Returns 0, or -errno with err filled: the first fault of one,
 * or ETIMEDOUT: then `stuck` is set, and nothing may be closed.
 */
int serving_join(struct serving *serving, struct error *err);

/* After serving_join(), or without any start.  Not where it is stuck. */
void serving_close(struct serving *serving);

#endif
