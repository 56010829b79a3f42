/* SPDX-License-Identifier: MIT */
/*
 * A call of io.ublkd: its fiber, its parameters and its answers.
 */
#include "supervisor/api_parts.h"
#include "common/error.h"
#include "engine/holders.h"
#include "supervisor/describe_device.h"
#include "supervisor/fiber.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- a call in a fiber ---- */

static void run_task(void *context)
{
	struct api_task *task = context;

	task->run(task);
	json_decref(task->parameters);
	free(task);
}

void api_start(struct varlink_call *call, json_t *parameters, void (*run)(struct api_task *task))
{
	struct api_task *task = malloc(sizeof(*task));
	struct error err;

	if (task) {
		*task = (struct api_task){ call, json_incref(parameters), run };
		if (!fiber_start(run_task, task))
			return;
		json_decref(parameters);
		free(task);
	}
	error_set(&err, ENOMEM, "no memory");
	api_fail(call, &err);
}

const char *api_text(const struct api_task *task, const char *key)
{
	return json_string_value(json_object_get(task->parameters, key));
}

bool api_flag(const struct api_task *task, const char *key)
{
	return json_is_true(json_object_get(task->parameters, key));
}

struct export *api_named(const struct api_task *task)
{
	struct export *export = supervisor_find(api_text(task, "name"));

	if (!export)
		api_no_such_export(task->call, api_text(task, "name"));
	else
		supervisor_hold(export);
	return export;
}

void api_owner(const struct varlink_call *call, struct owner *owner)
{
	const struct varlink_peer *peer = varlink_peer(call);

	*owner = (struct owner){ 0 };
	if (peer->uid == 0)
		return;
	owner->uid = peer->uid;
	owner->gid = peer->gid;
	while (owner->nr_groups < peer->nr_groups && owner->nr_groups < OWNER_GROUPS) {
		owner->groups[owner->nr_groups] = peer->groups[owner->nr_groups];
		owner->nr_groups++;
	}
}

/* ---- answers ---- */

void api_fail(struct varlink_call *call, const struct error *err)
{
	struct error printable = *err;

	text_make_printable(printable.text);
	if (err->code == EINVAL)
		varlink_error(call, "Invalid", json_pack("{s:s}", "message", printable.text));
	else
		varlink_error(call, "Failed",
			      json_pack("{s:s, s:i}", "message", printable.text, "errno",
					err->code ? err->code : EIO));
}

void api_no_such_export(struct varlink_call *call, const char *name)
{
	char message[300];

	snprintf(message, sizeof(message),
		 "there is no export '%.200s': list the exports to see their names", name);
	/* It may be cut within a character. */
	text_make_printable(message);
	varlink_error(call, "NoSuchExport",
		      json_pack("{s:s, s:s}", "name", name, "message", message));
}

void api_busy(struct varlink_call *call, struct export *export, const struct error *err)
{
	struct holders holders;

	export_find_holders(export, &holders, EXPORT_HOLDERS_MS);
	varlink_error(call, "Busy",
		      json_pack("{s:s, s:s, s:o}", "name", export->name, "message", err->text,
				"holders", describe_holders(&holders)));
	holders_close(&holders);
}

void api_answer_results(struct varlink_call *call, json_t *results)
{
	varlink_reply(call, json_pack("{s:o}", "results", results));
}

void api_add_result(void *context, const char *name, bool done, const char *message)
{
	json_t *result = json_pack("{s:s, s:b}", "name", name, "done", (int)done);

	if (message)
		json_object_set_new(result, "message", json_string(message));
	json_array_append_new(context, result);
}

void api_explain(const struct export *export, struct error *err)
{
	if (export->fault)
		*err = *export->fault;
	else
		error_set(err, EIO, "%s is %s", export->name, export_state_name(export->state));
}
