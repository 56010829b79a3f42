/* SPDX-License-Identifier: MIT */
/*
 * The queue of requests to a live export.
 *
 * A request is shared by its queue and by each fiber that waits for it, and counts its users, since
 * either may be first to let go: a check has no waiter, and a waiter reads the result after the
 * reconciler has finished. Two upgrades are one request; two resizes are not, as their sizes
 * differ.
 */
#include "supervisor/request.h"
#include "supervisor/export.h"

#include <errno.h>
#include <stdlib.h>

struct export_request *request_add(struct export *export, enum request_kind kind)
{
	struct export_request **at = &export->requests;

	for (; *at; at = &(*at)->next) {
		if ((*at)->kind == kind && kind != REQUEST_RESIZE) {
			(*at)->users++;
			return *at;
		}
	}
	*at = calloc(1, sizeof(**at));
	if (*at) {
		(*at)->kind = kind;
		(*at)->users = 2; /* the queue and the caller */
	}
	return *at;
}

void request_release(struct export_request *request)
{
	if (request && !--request->users)
		free(request);
}

int request_wait(struct export *export, struct export_request *request, struct error *err)
{
	int ret;

	while (!request->done)
		fiber_wait(&export->changed, 0);
	ret = request->result;
	if (ret)
		*err = request->err;
	request_release(request);
	return ret;
}

struct export_request *request_next(struct export *export)
{
	struct export_request *request = export->requests;

	if (request)
		export->requests = request->next;
	return request;
}

void request_finish(struct export *export, struct export_request *request, int result,
		    const struct error *err)
{
	request->result = result;
	if (result)
		request->err = *err;
	request->done = true;
	fiber_raise(&export->changed);
	request_release(request);
}

void request_refuse_all(struct export *export)
{
	struct export_request *request;
	struct error err;

	while ((request = request_next(export)))
		request_finish(export, request,
			       error_set(&err, ENOTCONN, "%s is now %s", export->name,
					 export_state_name(export->state)),
			       &err);
}
