/* SPDX-License-Identifier: MIT */
/*
 * Requests to a live export: its reconciler carries them out one after the other, in the
 * order in which they came, and leaves the result in the request. A request fails with ENOTCONN if
 * the export is no longer live when its turn comes.
 *
 * Owner: the queue of the export and each that waits; the last one frees it.
 * Thread: the loop's.
 */
#ifndef UBLKD_REQUEST_H
#define UBLKD_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct export;

enum request_kind {
	REQUEST_UPGRADE, /* replace the worker */
	REQUEST_RESIZE,  /* give the storage another size, or follow it */
	REQUEST_CHECK,   /* find out whether the worker hangs */
};

struct export_request {
	struct export_request *next;
	enum request_kind kind;
	uint64_t size; /* REQUEST_RESIZE: bytes; 0: as large as the storage is */
	bool shrink;   /* REQUEST_RESIZE: a smaller size is meant */
	unsigned users;
	bool done;
	int result; /* once done: 0, or -errno with err filled */
	struct error err;
};

/*
 * Adds a request; reconcile_kick() is due. A queued upgrade or check that has not begun is shared.
 * The caller fills what the kind needs before the next wait, and gives the request to
 * request_wait() or request_release(). NULL: no memory.
 */
struct export_request *request_add(struct export *export, enum request_kind kind);

/* From a fiber: waits until the request is done, and releases it. Returns its result. */
int request_wait(struct export *export, struct export_request *request, struct error *err);
/* NULL is none. */
void request_release(struct export_request *request);

/* For the reconciler: the next request, which request_finish() is due for; NULL: none. */
struct export_request *request_next(struct export *export);
/* err is what result says, not read for 0. */
void request_finish(struct export *export, struct export_request *request, int result,
		    const struct error *err);
/* Fails all requests that have not begun. */
void request_refuse_all(struct export *export);

#endif
