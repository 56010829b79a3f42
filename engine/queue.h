/* SPDX-License-Identifier: MIT */
/*
 * A queue of a device: one thread, one ring, and the loop
 * fetch -> submit -> complete -> commit and fetch.
 *
 * The thread opens all that the queue has, fetches every tag, reports that it
 * is ready, and then serves until the kernel has aborted every tag (the device
 * stopped) or queue_quit() tells it to leave at once.
 */
#ifndef UBLKD_QUEUE_H
#define UBLKD_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/cpus.h"
#include "engine/backend.h"
#include "engine/buffer.h"
#include "engine/busy_poll.h"
#include "engine/counters.h"
#include "engine/ring.h"
#include "engine/ublk_abi.h"

/* Files of a backend that a queue's ring can know. */
#define QUEUE_FILES 16

/* Parameters of a queue; the device's, and constant while the queue runs. */
struct queue_setup {
	struct instance *instance;
	unsigned index;
	int char_fd; /* /dev/ublkcN, the device's */
	enum io_path path;
	uint32_t max_io;
	struct cpus cpus;  /* to run on; empty: anywhere */
	uint32_t poll_us;  /* spin so long before sleeping, where there are CPUs; 0: never */
	bool unprivileged; /* fetch without CAP_SYS_ADMIN, so that no partitions are scanned */
	bool recoverable;  /* another server may come after it, and must not come too early */
	struct queue_counters *counters;
	int end_event; /* an eventfd, written when the thread has ended */
};

struct request; /* a tag: its struct io and what the engine keeps with it */

enum queue_phase {
	QUEUE_OPENING,
	QUEUE_READY, /* every tag is fetched */
	QUEUE_ENDED, /* its thread has no more to do; fault tells whether it failed */
};

/* Owner: the device.  setup, gate, phase, fault, quit and drain: any thread; the rest: its own. */
struct queue {
	struct queue_setup setup;
	pthread_t thread;
	atomic_int thread_id; /* the kernel's number of it, once it runs */

	pthread_mutex_t gate; /* guards phase to abandoned; never held during I/O */
	pthread_cond_t moved; /* phase has changed */
	enum queue_phase phase;
	struct error fault; /* code 0: ended because the device was stopped */
	bool releases;      /* queue_join() has something to release */
	bool abandoned;     /* nobody waits for its end any more */

	atomic_bool quit;
	atomic_bool drain;
	uint64_t drain_round; /* rounds when it was asked for; the asker's */
	int wake;             /* eventfd */
	uint64_t wake_value;
	struct ring_op wake_op;

	struct ring ring;
	struct buffers buffers;
	const struct backend *backend;
	struct queue_counters *counters;
	const struct ublk_io_desc *descs;
	struct request *requests; /* one a tag */
	struct request **done;    /* completed in this round */
	unsigned nr_done;
	struct request **parked; /* arrived while draining: not with the backend */
	atomic_uint nr_parked;
	unsigned nr_serving; /* tags that the kernel has not aborted */
	unsigned nr_files;
	int zero;      /* /dev/zero, for reads of zeroes without a copy; or -1 */
	int zero_file; /* its number in the ring */
	struct busy_poll poll;
	uint64_t now_ns; /* when this round's completions were taken */
	void *private;
	void *io_private;
};

/*
 * Starts the queue's thread; queue and *setup's pointers stay until queue_join().
 * Returns 0, or -errno with err filled and nothing held.
 */
int queue_start(struct queue *queue, const struct queue_setup *setup, struct error *err);

/*
 * Waits until every tag is fetched.  Returns 0, or -errno with err filled: the
 * queue's own reason, or ETIMEDOUT.  queue_join() is due in either case.
 */
int queue_wait_ready(struct queue *queue, unsigned timeout_ms, struct error *err);

/* Whether the queue has ended because something went wrong.  Any thread. */
bool queue_has_failed(struct queue *queue);

/*
 * on: requests that come from now on are not given to the backend, until it is
 * called again with off; a thread that leaves meanwhile leaves them to the kernel,
 * which gives them to the next server.  Any thread.
 */
void queue_drain(struct queue *queue, bool on);

/* Whether the queue drains, and nothing is with the backend.  Any thread. */
bool queue_is_drained(struct queue *queue);

/* Tells the thread to leave at once, whatever is in flight.  Any thread. */
void queue_quit(struct queue *queue);

/*
 * Waits for the thread's end, at most timeout_ms, and releases the rest.  *fault
 * (may be NULL) gets why it ended.  Returns 0, or -ETIMEDOUT: then it is still
 * there, and nothing of it may be released.
 */
int queue_join(struct queue *queue, unsigned timeout_ms, struct error *fault);

#endif
