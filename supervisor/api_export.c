/* SPDX-License-Identifier: MIT */
/*
 * The method Export: makes an export and its device, and with persist the file that declares it.
 */
#include "supervisor/api_parts.h"
#include "common/error.h"
#include "supervisor/describe.h"
#include "supervisor/name.h"
#include "supervisor/reconcile.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Writes an export's declaration, or checks that it could be written. */
static int declare(const char *name, const char *uri, json_t *options, bool check_only,
		   struct error *err)
{
	unsigned nr = (unsigned)json_object_size(options), i = 0;
	struct settings_pair *pairs = calloc(nr ? nr : 1, sizeof(*pairs));
	const char *option;
	json_t *value;
	int ret;

	if (!pairs)
		return error_set(err, ENOMEM, "no memory");
	json_object_foreach(options, option, value) {
		pairs[i].name = (char *)(uintptr_t)option;
		pairs[i++].value = (char *)(uintptr_t)json_string_value(value);
	}
	ret = (check_only ? settings_check_export : settings_write_export)(
		supervisor_paths.settings, name, uri, pairs, nr, err);
	free(pairs);
	return ret;
}

/*
 * Records options that the backend chose itself, such as the block size: at the next boot its
 * choice must be the same, or the content would not fit the device.
 */
static int record_choices(struct export *export, struct error *err)
{
	const struct backend *backend = export->spec.backend;
	const char *const *option = backend->recorded;
	char value[IDENTITY_BYTES];
	int ret = 0;

	for (; option && *option && !ret; option++)
		if (!json_object_get(export->options, *option) &&
		    backend->record(*option, &export->storage.limits, export->storage.identity,
				    value, sizeof(value)))
			ret = export_record_option(export, *option, value, err);
	return ret;
}

static int persist(struct export *export, struct error *err)
{
	int ret = record_choices(export, err);

	if (!ret)
		ret = declare(export->name, export->uri, export->options, false, err);
	if (!ret && export->origin == ORIGIN_REQUESTED) {
		export->origin = ORIGIN_PERSISTENT;
		ret = record_write(export, err);
	}
	return ret;
}

/*
 * Checks before a persistent export is created that its file could be written. Creates the export
 * object first, so that an error in URI or options is reported as such.
 */
static int check_persist(const char *name, const char *uri, json_t *options, struct error *err)
{
	struct export *export;
	int ret = export_create(&export, name, uri, json_copy(options), ORIGIN_REQUESTED, err);

	if (ret)
		return ret;
	export_destroy(export);
	ret = declare(name, uri, options, true, err);
	return ret ? error_prefix(
			     err,
			     "the export could not be created again at boot, so it is not created now")
		   : 0;
}

static void exists(struct varlink_call *call, const struct export *export, const char *uri,
		   const json_t *options)
{
	char message[1400], difference[1024];

	export_difference(export, uri, options, difference, sizeof(difference));
	snprintf(
		message, sizeof(message),
		"the export '%s' exists with another URI or other options (%s): remove it first, or "
		"choose another name",
		export->name, *difference ? difference : "it is being removed");
	varlink_error(call, "Exists",
		      json_pack("{s:s, s:s}", "name", export->name, "message", message));
}

/* Removes an export that could not be started from the table again. */
static void withdraw(struct export *export)
{
	export->wanted.goal = GOAL_GONE;
	export->wanted.force = true;
	reconcile_kick(export);
	supervisor_settle(export);
}

/* A call of Export with "more", which gets a reply for each change of state. */
static struct progress {
	struct progress *next;
	struct varlink_call *call;
	const struct export *export;
} * in_progress;

void api_report_progress(struct export *export)
{
	for (struct progress *p = in_progress; p; p = p->next)
		if (p->export == export)
			varlink_reply_more(p->call,
					   json_pack("{s:o}", "export", describe_export(export)));
}

static void settle_with_progress(struct api_task *task, struct export *export)
{
	struct progress own = { in_progress, task->call, export }, **at = &in_progress;

	if (varlink_wants_more(task->call))
		in_progress = &own;
	supervisor_settle(export);
	while (*at && *at != &own)
		at = &(*at)->next;
	if (*at)
		*at = own.next;
}

static void answer_export(struct api_task *task, struct export *export, bool made)
{
	struct error err = { 0 };

	settle_with_progress(task, export);
	if (export->state != EXPORT_LIVE) {
		api_explain(export, &err);
		/*
		 * In other states another client has suspended or removed it meanwhile: leave it.
		 */
		if (made && (export->state == EXPORT_FAILED || export->state == EXPORT_DECLARED))
			withdraw(export);
		api_fail(task->call, &err);
	} else if (api_flag(task, "persist") && persist(export, &err)) {
		error_prefix(&err, "the device was created, but will not be created again at boot");
		api_fail(task->call, &err);
	} else {
		varlink_reply(task->call, json_pack("{s:o}", "export", describe_export(export)));
	}
}

void api_export(struct api_task *task)
{
	json_t *options = json_object_get(task->parameters, "options");
	const char *uri = api_text(task, "uri"), *name = api_text(task, "name");
	char made_up[NAME_MAX_LENGTH + 1];
	struct owner owner;
	struct export *export;
	struct error err;
	bool made = false;

	api_owner(task->call, &owner);
	/*
	 * At boot the files are opened as root's configuration says, whichever client wrote that.
	 */
	if (owner.uid && api_flag(task, "persist")) {
		error_set(
			&err, EPERM,
			"only root can create a persistent export, because its files are opened with "
			"root's rights at boot: leave out persist");
		api_fail(task->call, &err);
		return;
	}
	options = json_is_object(options) ? json_copy(options) : json_object();
	if (!name) {
		name_from_uri(uri, made_up);
		name = made_up;
	}
	export = supervisor_find(name);
	if (export && strcmp(export->name, name) != 0)
		export = NULL;
	if (export && (!export_is_same(export, uri, options) || export->wanted.goal == GOAL_GONE)) {
		exists(task->call, export, uri, options);
		json_decref(options);
		return;
	}
	if (export) {
		json_decref(options);
		if (!owner.uid)
			export->owner = owner;
		export->wanted.goal = GOAL_LIVE;
		reconcile_retry(export);
	} else {
		if (api_flag(task, "persist") && check_persist(name, uri, options, &err)) {
			json_decref(options);
			api_fail(task->call, &err);
			return;
		}
		if (supervisor_add(name, uri, options, ORIGIN_REQUESTED, &owner, &export, &err)) {
			api_fail(task->call, &err);
			return;
		}
		made = true;
	}
	supervisor_hold(export);
	answer_export(task, export, made);
	supervisor_release(export);
}
