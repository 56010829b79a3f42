/* SPDX-License-Identifier: MIT */
/*
 * Shared by the files of a queue: queue.c has a request's way, queue_backend.c the calls
 * that a backend makes, queue_thread.c the thread's life and the calls of other threads.
 *
 * Thread: the queue's.
 */
#ifndef UBLKD_QUEUE_PARTS_H
#define UBLKD_QUEUE_PARTS_H

#include "common/container_of.h"
#include "engine/queue.h"

#define CHAR_FILE 0 /* the registered file that is /dev/ublkcN */

struct request {
	struct io io;
	struct ring_op command; /* the fetch or commit that is with the kernel */
	struct ring_op work;    /* the backend's I/O on our ring */
	io_callback *work_done;
	uint64_t arrived_ns;
	int result;
	bool in_flight; /* between submit() and io_complete() */
	void *private;  /* the backend's, io_size bytes */
	/* What each of its commands says, result aside: the payload, and buffers_sqe_addr(). */
	struct ublk_io_cmd payload;
	uint64_t sqe_addr;
};

static inline struct request *request_of(struct io *io)
{
	return container_of(io, struct request, io);
}

/* ---- queue.c ---- */

/* Completions of a tag's command, and of the read that waits for queue_wake(). */
void queue_command_finished(struct ring_op *op, int result);
void queue_woken(struct ring_op *op, int result);

/* Fetches every tag.  Returns 0, or -errno with err filled: then the queue cannot serve. */
int queue_fetch_all(struct queue *queue, struct error *err);

/* Rounds, until the device has stopped, a command was refused or the queue is to quit. */
void queue_serve(struct queue *queue);

/* ---- queue_backend.c ---- */

/* The completion of the work that a backend has started for a request. */
void queue_work_finished(struct ring_op *op, int result);

#endif
