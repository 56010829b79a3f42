/* SPDX-License-Identifier: MIT */
/*
 * Health check of a worker. If its counters stand still while it has requests, it hangs, or only
 * waits for its storage. So ask it: its main loop answers as long as it runs, and lists the queues
 * whose threads do not react. The verb is "look" on the wire, which older workers know.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/export.h"

#include <errno.h>

#define CHECK_MS 8000u /* longer than the worker takes; see heartbeat.c for the whole bound */

void flow_check(struct export *export)
{
	struct error err;
	json_t *reply, *stuck;
	int ret;

	if (!export->worker.handle || worker_has_ended(export->worker.handle))
		return;
	ret = worker_call(export->worker.handle, worker_request("look"), NULL, 0, CHECK_MS, &reply,
			  NULL, &err);
	if (ret == -ETIMEDOUT) {
		log_error(export->name, "the worker (process %d) hangs; killing it",
			  (int)worker_pid(export->worker.handle));
		worker_kill(export->worker.handle);
	}
	if (ret)
		return;
	json_decref(export->worker.threads);
	export->worker.threads = json_incref(json_object_get(reply, "threads"));
	stuck = json_object_get(reply, "stuck");
	if (json_array_size(stuck)) {
		log_error(export->name,
			  "queue %d of the worker (process %d) hangs; killing the worker",
			  (int)json_integer_value(json_array_get(stuck, 0)),
			  (int)worker_pid(export->worker.handle));
		worker_kill(export->worker.handle);
	}
	json_decref(reply);
}
