/* SPDX-License-Identifier: MIT */
/*
 * A stage for one backend: what engine/backend.h promises of the engine, without
 * kernel, ring and threads, and in a time of its own.
 *
 * All queues run on the caller's thread, one round after the other, so that a run
 * repeats exactly.  Time (CLOCK_MONOTONIC of the whole process) stands still
 * while anything moves, and is put forward to the next timer when nothing does: a
 * time-out of minutes costs nothing.  A blocking poll(2) anywhere in the process
 * runs those whom the backend talks to meanwhile.
 *
 * What breaks the contract ends the program: a request that ends twice, a
 * descriptor that is watched twice or after it was closed, a result that is none.
 */
#ifndef UBLKD_STAGE_H
#define UBLKD_STAGE_H

#include "engine/backend.h"
#include "engine/spec.h"

#include <stdnoreturn.h>

#define STAGE_QUEUES_MAX 4
#define STAGE_DEPTH      4
#define STAGE_WAITS      64
#define STAGE_NS_PER_MS  1000000ull

/*
 * A tag.  data is the application's, buffer what io_data() returns: with user copy another one.
 * They are of just the request's length, so that a sanitizer guards their ends.
 */
struct stage_request {
	struct io io;
	bool serving;
	uint64_t began_ns;
	void *data, *buffer;
	uint64_t mark; /* the caller's */
};

struct stage_wait {
	struct ring_op *op;
	int fd; /* -1: a timer */
	short events;
	uint64_t due_ns;
	bool cancelled;
	/* A send or a receive, which has moved `moved` bytes so far. */
	const struct msghdr *message;
	char *buffer;
	size_t length, moved;
	bool all;
};

struct queue {
	unsigned index;
	bool is_open, woken;
	void *private, *io_private;
	struct stage_wait waits[STAGE_WAITS];
	unsigned nr_waits;
	uint64_t round;
	struct stage_request requests[STAGE_DEPTH];
};

/* Whom the backend talks to.  Returns whether it has done anything. */
typedef bool stage_others(void);
/* A request has ended; its data is there until this returns. */
typedef void stage_ended(struct queue *queue, struct stage_request *request, int result);

struct stage {
	struct spec spec;
	struct instance instance;
	uint64_t gauges[INSTANCE_GAUGES];
	int lost; /* as instance_lost() says */
	struct queue queues[STAGE_QUEUES_MAX];
	uint64_t now_ns;
	stage_others *others;
	stage_ended *ended;
	bool running;
	/* The caller's, after stage_open(): */
	bool user_copy;
	unsigned copies_fail; /* each n-th one; 0: none */
	unsigned copies;
};

extern struct stage stage;

/* Ends the program: what the backend did, or left undone. */
noreturn void stage_broken(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Opens the export that words say (a URI, then backend's options as KEY=VALUE,
 * parted by blanks) and its queues.  Returns 0, or -errno with nothing held.
 */
int stage_open(const char *words, unsigned queues, bool read_only, stage_others *others,
	       stage_ended *ended);
/* Whatever is in service is given up. */
void stage_close(void);

/* A tag of the queue that is free; NULL: there is none. */
struct stage_request *stage_free_tag(struct queue *queue);
/* Gives the backend the request that io and data describe (stage_data()). */
void stage_submit(struct stage_request *request);
/* Memory for the request's data, of io.length bytes. */
void stage_data(struct stage_request *request);

/* A round of a queue, without new requests.  Returns whether anything was told to the backend. */
bool stage_take(struct queue *queue);
/* The end of the round that stage_take() began. */
void stage_round_end(struct queue *queue);
/* The device's size becomes what the backend has told, as a kernel would have it between rounds. */
void stage_follow_size(void);
/* Asks the backend how big its storage is by now.  Returns 0, or -errno. */
int stage_resize(void);
/* Time goes on to the next timer, by at most most_ns. */
void stage_let_pass(uint64_t most_ns);

/* The tags that are in service; *oldest_ns: since when the first of them. */
unsigned stage_serving(uint64_t *oldest_ns);

#endif
