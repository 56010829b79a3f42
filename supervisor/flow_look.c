/* SPDX-License-Identifier: MIT */
/*
 * Whether a server that seems to do nothing has hung.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/managed.h"

#include <errno.h>

#define LOOK_MS 8000u /* longer than a worker looks; see keep.c for what it adds to */

void flow_look(struct managed *m)
{
	struct error err;
	json_t *reply, *stuck;
	int ret;

	if (!m->worker || worker_has_ended(m->worker))
		return;
	ret = worker_call(m->worker, worker_request("look"), NULL, 0, LOOK_MS, &reply, NULL, &err);
	if (ret == -ETIMEDOUT) {
		log_error(m->name, "its worker (process %d) has hung: it is killed",
			  (int)worker_pid(m->worker));
		worker_kill(m->worker);
	}
	if (ret)
		return;
	json_decref(m->threads);
	m->threads = json_incref(json_object_get(reply, "threads"));
	stuck = json_object_get(reply, "stuck");
	if (json_array_size(stuck)) {
		log_error(m->name, "queue %d of its worker (process %d) has hung: it is killed",
			  (int)json_integer_value(json_array_get(stuck, 0)),
			  (int)worker_pid(m->worker));
		worker_kill(m->worker);
	}
	json_decref(reply);
}
