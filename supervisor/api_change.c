/* SPDX-License-Identifier: MIT */
/*
 * Methods that change exports that are there: Remove, Resize, Suspend, Resume and Upgrade; and
 * Reload and Shutdown, which change all.
 */
#include "supervisor/api.h"
#include "supervisor/api_parts.h"
#include "common/error.h"
#include "engine/holders.h"
#include "supervisor/fiber.h"
#include "supervisor/reconcile.h"
#include "supervisor/request.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define RELOAD_MS    60000u /* for the starts and removals that a reload begins */
#define HELD_POLL_MS 500u   /* between two checks whether a device is still in use */

void (*api_stop)(void);

/* ---- Remove ---- */

static bool is_held(const struct export *export)
{
	struct holders holders;
	bool held;

	export_find_holders(export, &holders, EXPORT_HOLDERS_MS);
	held = holders.nr;
	holders_close(&holders);
	return held;
}

/* No such export runs, but a persistent one that failed to start may have left its file. */
static void remove_declaration(struct api_task *task)
{
	const char *name = api_text(task, "name");
	struct error err;
	int ret = settings_remove_export(supervisor_paths.settings, name, &err);

	if (ret > 0)
		varlink_reply(task->call, NULL);
	else if (!ret || ret == -EINVAL)
		api_no_such_export(task->call, name);
	else
		api_fail(task->call, &err);
}

static void answer_removed(struct api_task *task, const struct export *export)
{
	const struct settings_export *declared = settings_find(&supervisor_settings, export->name);
	struct error err;

	/* If the export was declared meanwhile, its file is a declaration to keep. */
	if (export->origin == ORIGIN_PERSISTENT && !export->wanted.recreate) {
		if (settings_remove_export(supervisor_paths.settings, export->name, &err) < 0) {
			error_prefix(&err,
				     "the export was removed, but will be created again at boot");
			api_fail(task->call, &err);
			return;
		}
		declared = NULL;
	}
	/* The configuration may have changed since it was read. */
	if (declared && access(declared->file, F_OK))
		declared = NULL;
	varlink_reply(task->call,
		      declared ? json_pack("{s:s}", "declaredIn", declared->file) : NULL);
}

void api_remove(struct api_task *task)
{
	struct export *export = supervisor_find(api_text(task, "name"));
	struct error err = { 0 };

	if (!export) {
		remove_declaration(task);
		return;
	}
	supervisor_hold(export);
	export->wanted.recreate = false;
	/*
	 * With wait: wait until no user is found, then try. The attempt may fail nevertheless with
	 * EBUSY, as a user may come in between or not be visible, so repeat until it succeeds.
	 */
	for (;;) {
		while (api_flag(task, "wait") && is_held(export) && !varlink_is_gone(task->call))
			fiber_sleep(HELD_POLL_MS);
		export->wanted.goal = GOAL_GONE;
		export->wanted.force |= api_flag(task, "force");
		reconcile_kick(export);
		supervisor_settle(export);
		if (export->state == EXPORT_GONE || !api_flag(task, "wait") || !export->fault ||
		    export->fault->code != EBUSY || varlink_is_gone(task->call))
			break;
		fiber_sleep(HELD_POLL_MS);
	}
	if (export->state == EXPORT_GONE) {
		answer_removed(task, export);
	} else {
		api_explain(export, &err);
		if (err.code == EBUSY)
			api_busy(task->call, export, &err);
		else
			api_fail(task->call, &err);
		if (export->state == EXPORT_LIVE)
			export_set_fault(export, NULL);
	}
	supervisor_release(export);
}

/* ---- Resize, Suspend, Resume, Upgrade ---- */

static void answer_resize(struct api_task *task, struct export *export, uint64_t size)
{
	struct export_request *request = request_add(export, REQUEST_RESIZE);
	struct error err;
	json_int_t now;

	if (!request) {
		error_set(&err, ENOMEM, "no memory");
		api_fail(task->call, &err);
		return;
	}
	request->size = size;
	request->shrink = api_flag(task, "force");
	reconcile_kick(export);
	switch (request_wait(export, request, &err)) {
	case 0:
		now = (json_int_t)(export->storage.limits.size);
		varlink_reply(task->call, json_pack("{s:I}", "size", now));
		break;
	case -EBUSY:
		api_busy(task->call, export, &err);
		break;
	default:
		api_fail(task->call, &err);
	}
}

void api_resize(struct api_task *task)
{
	json_int_t size = json_integer_value(json_object_get(task->parameters, "size"));
	struct owner caller;
	struct export *export;
	struct error err;

	if (size < 0 || (json_object_get(task->parameters, "size") && !size)) {
		error_set(&err, EINVAL, "size must be a positive number of bytes");
		api_fail(task->call, &err);
		return;
	}
	export = api_named(task);
	if (!export)
		return;
	api_owner(task->call, &caller);
	/*
	 * The worker can write to the file, but the caller may have no right to: check the owner.
	 */
	if (size && !owner_allows(&export->owner, &caller)) {
		error_set(
			&err, EPERM,
			"%s: only root and the user who created the export (%u) can set the size of "
			"its storage",
			export->name, export->owner.uid);
		api_fail(task->call, &err);
	} else if (export->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s is %s: only a live export can be resized",
			  export->name, export_state_name(export->state));
		api_fail(task->call, &err);
	} else {
		answer_resize(task, export, (uint64_t)size);
	}
	supervisor_release(export);
}

/* Sets the goal, waits, and answers with success if that leads to `state`. */
static void set_goal(struct api_task *task, enum export_goal want, enum export_state state)
{
	struct export *export = api_named(task);
	struct error err;

	if (!export)
		return;
	if (export->wanted.goal == GOAL_GONE) {
		error_set(&err, ENOENT, "%s is being removed", export->name);
		api_fail(task->call, &err);
	} else if (want == GOAL_SUSPENDED && !export->device.exists) {
		error_set(&err, ENOTCONN, "%s is %s: only an export with a device can be suspended",
			  export->name, export_state_name(export->state));
		api_fail(task->call, &err);
	} else {
		export->wanted.goal = want;
		/*
		 * By resuming, the client confirms that old connections are closed (flow_fence()).
		 */
		if (want == GOAL_LIVE && export->state != EXPORT_SUSPENDED)
			export->worker.unfenced = false;
		reconcile_retry(export);
		supervisor_settle(export);
		api_explain(export, &err);
		if (export->state == state)
			varlink_reply(task->call, NULL);
		else
			api_fail(task->call, &err);
	}
	supervisor_release(export);
}

void api_suspend(struct api_task *task)
{
	set_goal(task, GOAL_SUSPENDED, EXPORT_SUSPENDED);
}

void api_resume(struct api_task *task)
{
	struct export *export = supervisor_find(api_text(task, "name"));
	bool accept = export && export->state != EXPORT_LIVE && api_flag(task, "acceptStorage");

	/* For this attempt only: a later one may find yet another storage. */
	if (accept) {
		supervisor_hold(export);
		supervisor_settle(export);
		export->wanted.accept_storage = true;
	}
	set_goal(task, GOAL_LIVE, EXPORT_LIVE);
	if (accept) {
		export->wanted.accept_storage = false;
		supervisor_release(export);
	}
}

/* An export and the request to upgrade it. */
struct upgrade {
	struct export *export;
	struct export_request *request; /* NULL: no memory */
};

static void begin_upgrade(struct upgrade *u, struct export *export)
{
	supervisor_hold(export);
	u->export = export;
	u->request = request_add(export, REQUEST_UPGRADE);
	reconcile_kick(export);
}

static void end_upgrade(const struct upgrade *u, json_t *results)
{
	struct error err;
	int ret = u->request ? request_wait(u->export, u->request, &err)
			     : error_set(&err, ENOMEM, "no memory");

	api_add_result(results, u->export->name, !ret, ret ? err.text : NULL);
	supervisor_release(u->export);
}

static void upgrade_all(json_t *results)
{
	unsigned nr = 0, i = 0;
	struct export *export;
	struct upgrade *all;

	for (export = supervisor_exports; export; export = export->next)
		nr += export->state == EXPORT_LIVE;
	all = calloc(nr ? nr : 1, sizeof(*all));
	for (export = supervisor_exports; all && export && i < nr; export = export->next)
		if (export->state == EXPORT_LIVE)
			begin_upgrade(&all[i++], export);
	for (nr = i, i = 0; i < nr; i++)
		end_upgrade(&all[i], results);
	free(all);
}

void api_upgrade(struct api_task *task)
{
	struct export *export;
	struct upgrade one;
	json_t *results;
	struct error err;

	if (!api_text(task, "name")) {
		results = json_array();
		upgrade_all(results);
		api_answer_results(task->call, results);
		return;
	}
	export = api_named(task);
	if (!export)
		return;
	if (export->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s is %s: only a live export can be upgraded",
			  export->name, export_state_name(export->state));
		api_fail(task->call, &err);
	} else {
		results = json_array();
		begin_upgrade(&one, export);
		end_upgrade(&one, results);
		api_answer_results(task->call, results);
	}
	supervisor_release(export);
}

/* ---- Reload, Shutdown ---- */

/* Corrects the result of an export whose start or removal has failed since. */
static void update_result(json_t *result)
{
	const char *name = json_string_value(json_object_get(result, "name"));
	const struct export *export = supervisor_find(name);
	struct error err;

	if (!json_is_true(json_object_get(result, "done")) || !export ||
	    (export->wanted.goal != GOAL_GONE &&
	     (export->state == EXPORT_LIVE || export->state == EXPORT_SUSPENDED)))
		return;
	api_explain(export, &err);
	json_object_set_new(result, "done", json_false());
	json_object_set_new(result, "message", json_string(err.text));
}

void api_reload(struct api_task *task)
{
	json_t *results = json_array(), *result;
	size_t i;

	supervisor_reload(api_add_result, results);
	supervisor_settle_all(RELOAD_MS);
	json_array_foreach(results, i, result)
		update_result(result);
	api_answer_results(task->call, results);
}

void api_shutdown(struct api_task *task)
{
	json_t *results = json_array();
	bool all = true;
	json_t *one;
	size_t i;

	if (api_flag(task, "remove"))
		supervisor_remove_all(api_flag(task, "force"), api_add_result, results);
	json_array_foreach(results, i, one)
		all = all && json_is_true(json_object_get(one, "done"));
	api_answer_results(task->call, results);
	/* Keep running if an export could not be removed: its device needs ublkd. */
	if (all)
		api_stop();
}
