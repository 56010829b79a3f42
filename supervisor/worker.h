/* SPDX-License-Identifier: MIT */
/*
 * ublkd's handle of a worker: a process that ublkd started or found, the connection to it, and its
 * requests.
 *
 * Thread: the loop's.  worker_start(), worker_adopt(), worker_call(),
 * worker_finish() are called from fibers.
 */
#ifndef UBLKD_SUPERVISOR_WORKER_H
#define UBLKD_SUPERVISOR_WORKER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "supervisor/fiber.h"
#include "worker/link.h"

struct error;
struct fence;
struct worker;

/* Parameters of all workers; set once, before the first. */
struct worker_setup {
	const char *program; /* ublkd-worker */
	const char *
		starter; /* socket of the service manager, which starts a worker for a connection */
	const char *directory; /* of their sockets */
	uid_t uid;
	gid_t gid;
};
extern struct worker_setup worker_setup;

/* Identifies a process: the kernel may reuse its pid, but not with the same start time. */
struct worker_process {
	pid_t pid;        /* 0: none is known */
	uint64_t started; /* process_started() */
};

/*
 * Callbacks for a worker's events; from the loop.  A worker that sends more than a thousand
 * messages in a second is broken: it is killed, and has ended.
 */
struct worker_events {
	/* The worker has exited, or reported that it will; worker_has_ended() says which. */
	void (*ended)(struct worker *worker, void *context);
	/* The storage has grown to size bytes. */
	void (*grown)(struct worker *worker, uint64_t size, void *context);
	/* The backend's conditions have changed: all that are there now (worker/conditions.h). */
	void (*health)(struct worker *worker, const json_t *conditions, void *context);
	/*
	 * A request of its backend, in a fiber: kind is "open", "remove", "connect" or
	 * "memory".  Returns a descriptor, which is sent and closed, 0 if there is none to
	 * send, or -errno.
	 */
	int (*ask)(struct worker *worker, const char *kind, const json_t *question, void *context);
	void *context;
};

/*
 * Starts a worker for the export of that name.  Returns 0 with *worker, which
 * worker_forget() releases, or -errno with err filled.
 */
int worker_start(struct worker **worker, const char *name, const struct worker_events *events,
		 struct error *err);

/*
 * Finds the worker of an export that an earlier ublkd has started; tries for ms
 * milliseconds where it takes no connection.  known: what is on record of it.
 * Returns 0, or -errno with err filled.  *worker is NULL then (ESRCH: it is not there
 * any more), or it is `known`, which is there and can only be ended.
 */
int worker_adopt(struct worker **worker, const char *name, const struct worker_process *known,
		 unsigned ms, const struct worker_events *events, struct error *err);

/*
 * The process that is on record, of which worker_adopt() may have found the successor:
 * it can only be ended.  NULL: it is not there any more.
 */
struct worker *worker_adopt_known(const char *name, const struct worker_process *known,
				  const struct worker_events *events);

/*
 * One that an earlier ublkd has started to take another's place, and has not come to
 * publish: worker_publish() does, or its socket is to be removed.  NULL: there is none
 * that takes a connection.
 */
struct worker *worker_adopt_new(const char *name, const struct worker_events *events);

/*
 * Has the worker do what request says (link.h; released here), with nr
 * descriptors, which stay the caller's, and waits for its answer, ms milliseconds
 * at most.  *reply (may be NULL) is the caller's to release, as are the
 * descriptors in *got (may be NULL).  One call at a time; others wait.  Returns 0,
 * or -errno with err filled: what the worker said, EPIPE where it has died,
 * ETIMEDOUT.
 */
int worker_call(struct worker *worker, json_t *request, const int *fds, unsigned nr, unsigned ms,
		json_t **reply, struct link_fds *got, struct error *err);

/*
 * Call before the worker serves: from then on it outlives this ublkd, and worker_adopt() of the
 * next ublkd finds it in place of an earlier worker of that name.  Returns 0, or -errno with err
 * filled.
 */
int worker_publish(struct worker *worker, struct error *err);

/* {"do": verb}, to be filled. */
json_t *worker_request(const char *verb);

/* worker_call() that also gives the worker a new socket for its requests. */
int worker_call_with_ask(struct worker *worker, json_t *request, unsigned ms, json_t **reply,
			 struct link_fds *got, struct error *err);

/* Whether the process lives at this moment: asks the kernel, not the loop, which may lag behind. */
bool worker_is_there(const struct worker *worker);

/* Whether the process is gone. */
bool worker_has_ended(const struct worker *worker);

/* The worker's own reason for its end; 0: the device was stopped, or it gave none. */
int worker_fault(const struct worker *worker, struct error *err);

/* Whether the last call failed by the worker's own answer, and the worker is alive. */
bool worker_has_refused(const struct worker *worker);

pid_t worker_pid(const struct worker *worker);
struct worker_process worker_process(const struct worker *worker);

/* Sends SIGKILL. */
void worker_kill(struct worker *worker);

/*
 * Waits for its end, ms milliseconds at most, then kills it and waits for that.
 * Returns 0, or -ETIMEDOUT: the kernel does not let it end.
 */
int worker_finish(struct worker *worker, unsigned ms);

/* Hands the connections of a worker that has ended to the fence. */
void worker_give_connections(struct worker *worker, struct fence *fence);

/* Releases it; a process that is alive lives on.  NULL is none. */
void worker_forget(struct worker *worker);

#endif
