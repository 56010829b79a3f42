/* SPDX-License-Identifier: MIT */
/*
 * The methods of io.ublkd: each checks its arguments, changes what is wanted or adds a request,
 * waits until the reconciler has settled, and answers with the result.
 *
 * A method that may wait runs in a fiber of its own and holds its export meanwhile. If the client
 * disconnects, the method still completes, since half an operation is worse than one without an
 * answer. Only the reconciler works on devices; nothing here does.
 *
 * Who may call what is decided before the method runs (api_may()): root, or the groups of
 * ublkd.conf. The files of an export are opened with the rights of the client that made it
 * (owner_of()), whoever resumes it later.
 *
 * Read remove_it() for a method with all its waits, export_it() for the longest.
 */
#include "supervisor/api.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/holders.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/describe.h"
#include "supervisor/describe_device.h"
#include "supervisor/interfaces.h"
#include "supervisor/reconcile.h"
#include "supervisor/request.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RELOAD_MS    60000u /* for the starts and removals that a reload begins */
#define HELD_POLL_MS 500u   /* between two checks whether a device is still in use */

void (*api_shut_down)(void);

/* ---- who may ---- */

/*
 * Groups are looked up once after each reload: getgrnam(3) may ask a directory service, and blocks
 * the loop meanwhile.
 */
static struct group_cache {
	unsigned settings;
	bool known;
	gid_t gid;
} groups[SETTINGS_OPTIONS];

static bool in_configured_group(const struct varlink_peer *peer, enum settings_option option)
{
	const char *name = supervisor_settings.values[option].text;
	struct group_cache *g = &groups[option];

	if (g->settings != supervisor_settings_number) {
		const struct group *group = name ? getgrnam(name) : NULL;

		*g = (struct group_cache){ supervisor_settings_number, group != NULL,
					   group ? group->gr_gid : 0 };
		if (name && !group)
			log_warning(NULL, "ublkd.conf names group '%s', which does not exist",
				    name);
	}
	return g->known && varlink_peer_in_group(peer, g->gid);
}

bool api_may(const struct varlink_peer *peer, bool changes, void *context)
{
	(void)context;
	if (peer->uid == 0 || peer->uid == geteuid())
		return true;
	if (in_configured_group(peer, SETTINGS_CONTROL_GROUP))
		return true;
	return !changes && in_configured_group(peer, SETTINGS_READ_GROUP);
}

static void refuse_call(struct varlink_call *call, void *context)
{
	(void)context;
	varlink_error(call, "NotPermitted",
		      json_pack("{s:s}", "message",
				"not permitted: only root and the group that control-group in "
				"ublkd.conf names may do this"));
}

/* ---- answers ---- */

static void fail(struct varlink_call *call, const struct error *err)
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

static void no_such_export(struct varlink_call *call, const char *name)
{
	char message[300];

	snprintf(message, sizeof(message),
		 "there is no export '%.200s': list the exports to see their names", name);
	/* It may be cut within a character. */
	text_make_printable(message);
	varlink_error(call, "NoSuchExport",
		      json_pack("{s:s, s:s}", "name", name, "message", message));
}

static void busy(struct varlink_call *call, struct export *export, const struct error *err)
{
	struct holders holders;

	export_find_holders(export, &holders, EXPORT_HOLDERS_MS);
	varlink_error(call, "Busy",
		      json_pack("{s:s, s:s, s:o}", "name", export->name, "message", err->text,
				"holders", describe_holders(&holders)));
	holders_close(&holders);
}

static void answer_results(struct varlink_call *call, json_t *results)
{
	varlink_reply(call, json_pack("{s:o}", "results", results));
}

static void add_result(void *context, const char *name, bool done, const char *message)
{
	json_t *result = json_pack("{s:s, s:b}", "name", name, "done", (int)done);

	if (message)
		json_object_set_new(result, "message", json_string(message));
	json_array_append_new(context, result);
}

/* Why an export is not in the state that a client asked for. */
static void explain(const struct export *export, struct error *err)
{
	if (export->fault)
		*err = *export->fault;
	else
		error_set(err, EIO, "%s is %s", export->name, export_state_name(export->state));
}

/* ---- a call in a fiber ---- */

struct api_task {
	struct varlink_call *call;
	json_t *parameters;
	void (*run)(struct api_task *task);
};

static void run_task(void *context)
{
	struct api_task *task = context;

	task->run(task);
	json_decref(task->parameters);
	free(task);
}

static void start_task(struct varlink_call *call, json_t *parameters,
		       void (*run)(struct api_task *task))
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
	fail(call, &err);
}

static const char *text(const struct api_task *task, const char *key)
{
	return json_string_value(json_object_get(task->parameters, key));
}

static bool flag(const struct api_task *task, const char *key)
{
	return json_is_true(json_object_get(task->parameters, key));
}

/* Finds and holds the export that the call names; NULL: there is none, and the call is answered. */
static struct export *named(const struct api_task *task)
{
	struct export *export = supervisor_find(text(task, "name"));

	if (!export)
		no_such_export(task->call, text(task, "name"));
	else
		supervisor_hold(export);
	return export;
}

/* ---- reading ---- */

static void list(struct api_task *task)
{
	varlink_reply(task->call, json_pack("{s:o}", "exports", describe_all()));
}

/* Reads the number of a device from "/dev/ublkb3" or "ublkb3"; false: text is no device. */
static bool device_id(const char *text, uint32_t *id)
{
	const char *block = strncmp(text, "/dev/", 5) ? text : text + 5;
	unsigned long number;
	char *end;

	if (strncmp(block, "ublkb", 5) != 0 || !isdigit((unsigned char)block[5]))
		return false;
	number = strtoul(block + 5, &end, 10);
	*id = (uint32_t)number;
	return !*end && number <= INT32_MAX;
}

/* A device of another program has no export, so describe it from the kernel's data. */
static bool show_foreign(struct api_task *task)
{
	const char *name = text(task, "name");
	struct holders holders;
	struct control control;
	char block[32];
	json_t *details;
	uint32_t id;

	if (supervisor_find(name) || !device_id(name, &id))
		return false;
	control_async_init(&control, NULL);
	details = describe_device_details(&control, id);
	if (!details)
		return false;
	snprintf(block, sizeof(block), "ublkb%u", id);
	holders = (struct holders){ 0 };
	blocking_find_holders(block, block, &holders, EXPORT_HOLDERS_MS);
	json_object_set_new(details, "holders", describe_holders(&holders));
	holders_close(&holders);
	varlink_reply(task->call, json_pack("{s:o}", "details", details));
	return true;
}

static void show(struct api_task *task)
{
	struct export *export;
	json_t *details;

	if (show_foreign(task))
		return;
	details = supervisor_find(text(task, "name")) ? NULL : describe_refused(text(task, "name"));
	if (details) {
		varlink_reply(task->call, json_pack("{s:o}", "details", details));
		return;
	}
	export = named(task);

	if (!export)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "details", describe_details(export)));
	supervisor_release(export);
}

static void stats(struct api_task *task)
{
	struct export *export = named(task);

	if (!export)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "stats", describe_stats(export)));
	supervisor_release(export);
}

/* ---- Export ---- */

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

/* Files that a client names are opened with that client's rights. */
static void owner_of(const struct varlink_call *call, struct owner *owner)
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

static void report_progress(struct export *export)
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
		explain(export, &err);
		/*
		 * In other states another client has suspended or removed it meanwhile: leave it.
		 */
		if (made && (export->state == EXPORT_FAILED || export->state == EXPORT_DECLARED))
			withdraw(export);
		fail(task->call, &err);
	} else if (flag(task, "persist") && persist(export, &err)) {
		error_prefix(&err, "the device was created, but will not be created again at boot");
		fail(task->call, &err);
	} else {
		varlink_reply(task->call, json_pack("{s:o}", "export", describe_export(export)));
	}
}

static void export_it(struct api_task *task)
{
	json_t *options = json_object_get(task->parameters, "options");
	const char *uri = text(task, "uri"), *name = text(task, "name");
	char made_up[NAME_MAX_LENGTH + 1];
	struct owner owner;
	struct export *export;
	struct error err;
	bool made = false;

	owner_of(task->call, &owner);
	/*
	 * At boot the files are opened as root's configuration says, whichever client wrote that.
	 */
	if (owner.uid && flag(task, "persist")) {
		error_set(
			&err, EPERM,
			"only root can create a persistent export, because its files are opened with "
			"root's rights at boot: leave out persist");
		fail(task->call, &err);
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
		if (flag(task, "persist") && check_persist(name, uri, options, &err)) {
			json_decref(options);
			fail(task->call, &err);
			return;
		}
		if (supervisor_add(name, uri, options, ORIGIN_REQUESTED, &owner, &export, &err)) {
			fail(task->call, &err);
			return;
		}
		made = true;
	}
	supervisor_hold(export);
	answer_export(task, export, made);
	supervisor_release(export);
}

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
	const char *name = text(task, "name");
	struct error err;
	int ret = settings_remove_export(supervisor_paths.settings, name, &err);

	if (ret > 0)
		varlink_reply(task->call, NULL);
	else if (!ret || ret == -EINVAL)
		no_such_export(task->call, name);
	else
		fail(task->call, &err);
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
			fail(task->call, &err);
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

static void remove_it(struct api_task *task)
{
	struct export *export = supervisor_find(text(task, "name"));
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
		while (flag(task, "wait") && is_held(export) && !varlink_is_gone(task->call))
			fiber_sleep(HELD_POLL_MS);
		export->wanted.goal = GOAL_GONE;
		export->wanted.force |= flag(task, "force");
		reconcile_kick(export);
		supervisor_settle(export);
		if (export->state == EXPORT_GONE || !flag(task, "wait") || !export->fault ||
		    export->fault->code != EBUSY || varlink_is_gone(task->call))
			break;
		fiber_sleep(HELD_POLL_MS);
	}
	if (export->state == EXPORT_GONE) {
		answer_removed(task, export);
	} else {
		explain(export, &err);
		if (err.code == EBUSY)
			busy(task->call, export, &err);
		else
			fail(task->call, &err);
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
		fail(task->call, &err);
		return;
	}
	request->size = size;
	request->shrink = flag(task, "force");
	reconcile_kick(export);
	switch (request_wait(export, request, &err)) {
	case 0:
		now = (json_int_t)(export->storage.limits.size);
		varlink_reply(task->call, json_pack("{s:I}", "size", now));
		break;
	case -EBUSY:
		busy(task->call, export, &err);
		break;
	default:
		fail(task->call, &err);
	}
}

static void resize(struct api_task *task)
{
	json_int_t size = json_integer_value(json_object_get(task->parameters, "size"));
	struct owner caller;
	struct export *export;
	struct error err;

	if (size < 0 || (json_object_get(task->parameters, "size") && !size)) {
		error_set(&err, EINVAL, "size must be a positive number of bytes");
		fail(task->call, &err);
		return;
	}
	export = named(task);
	if (!export)
		return;
	owner_of(task->call, &caller);
	/*
	 * The worker can write to the file, but the caller may have no right to: check the owner.
	 */
	if (size && !owner_allows(&export->owner, &caller)) {
		error_set(
			&err, EPERM,
			"%s: only root and the user who created the export (%u) can set the size of "
			"its storage",
			export->name, export->owner.uid);
		fail(task->call, &err);
	} else if (export->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s is %s: only a live export can be resized",
			  export->name, export_state_name(export->state));
		fail(task->call, &err);
	} else {
		answer_resize(task, export, (uint64_t)size);
	}
	supervisor_release(export);
}

/* Sets the goal, waits, and answers with success if that leads to `state`. */
static void set_goal(struct api_task *task, enum export_goal want, enum export_state state)
{
	struct export *export = named(task);
	struct error err;

	if (!export)
		return;
	if (export->wanted.goal == GOAL_GONE) {
		error_set(&err, ENOENT, "%s is being removed", export->name);
		fail(task->call, &err);
	} else if (want == GOAL_SUSPENDED && !export->device.exists) {
		error_set(&err, ENOTCONN, "%s is %s: only an export with a device can be suspended",
			  export->name, export_state_name(export->state));
		fail(task->call, &err);
	} else {
		export->wanted.goal = want;
		/*
		 * By resuming, the client confirms that old connections are closed (flow_fence()).
		 */
		if (want == GOAL_LIVE && export->state != EXPORT_SUSPENDED)
			export->worker.unfenced = false;
		reconcile_retry(export);
		supervisor_settle(export);
		explain(export, &err);
		if (export->state == state)
			varlink_reply(task->call, NULL);
		else
			fail(task->call, &err);
	}
	supervisor_release(export);
}

static void suspend(struct api_task *task)
{
	set_goal(task, GOAL_SUSPENDED, EXPORT_SUSPENDED);
}

static void resume(struct api_task *task)
{
	struct export *export = supervisor_find(text(task, "name"));
	bool accept = export && export->state != EXPORT_LIVE && flag(task, "acceptStorage");

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

	add_result(results, u->export->name, !ret, ret ? err.text : NULL);
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

static void upgrade(struct api_task *task)
{
	struct export *export;
	struct upgrade one;
	json_t *results;
	struct error err;

	if (!text(task, "name")) {
		results = json_array();
		upgrade_all(results);
		answer_results(task->call, results);
		return;
	}
	export = named(task);
	if (!export)
		return;
	if (export->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s is %s: only a live export can be upgraded",
			  export->name, export_state_name(export->state));
		fail(task->call, &err);
	} else {
		results = json_array();
		begin_upgrade(&one, export);
		end_upgrade(&one, results);
		answer_results(task->call, results);
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
	explain(export, &err);
	json_object_set_new(result, "done", json_false());
	json_object_set_new(result, "message", json_string(err.text));
}

static void reload(struct api_task *task)
{
	json_t *results = json_array(), *result;
	size_t i;

	supervisor_reload(add_result, results);
	supervisor_settle_all(RELOAD_MS);
	json_array_foreach(results, i, result)
		update_result(result);
	answer_results(task->call, results);
}

static void shut_down(struct api_task *task)
{
	json_t *results = json_array();
	bool all = true;
	json_t *one;
	size_t i;

	if (flag(task, "remove"))
		supervisor_remove_all(flag(task, "force"), add_result, results);
	json_array_foreach(results, i, one)
		all = all && json_is_true(json_object_get(one, "done"));
	answer_results(task->call, results);
	/* Keep running if an export could not be removed: its device needs ublkd. */
	if (all)
		api_shut_down();
}

/* ---- Monitor ---- */

static struct monitor {
	struct monitor *next;
	struct varlink_call *call;
} * monitors;

static void end_monitor(struct varlink_call *call, void *context)
{
	struct monitor **at = &monitors;

	while (*at && *at != context)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(context);
	varlink_reply(call, NULL);
}

static void report_change(struct monitor *monitor, struct export *export)
{
	varlink_reply_more(monitor->call,
			   json_pack("{s:o, s:o}", "export", describe_export(export), "change",
				     describe_change(export, export->nr_changes - 1)));
}

void api_report_change(struct export *export)
{
	/* Also called for changes that are not in the history: report each entry once. */
	if (export->nr_reported == export->nr_changes)
		return;
	export->nr_reported = export->nr_changes;
	report_progress(export);
	for (struct monitor *monitor = monitors; monitor; monitor = monitor->next)
		report_change(monitor, export);
}

void api_end_monitors(void)
{
	while (monitors) {
		struct monitor *monitor = monitors;

		varlink_on_cancel(monitor->call, NULL, NULL);
		end_monitor(monitor->call, monitor);
	}
}

static void monitor(struct varlink_call *call, json_t *parameters, void *context)
{
	struct monitor *added = malloc(sizeof(*added));
	struct error err;

	(void)parameters;
	(void)context;
	if (!added) {
		error_set(&err, ENOMEM, "no memory");
		fail(call, &err);
		return;
	}
	*added = (struct monitor){ monitors, call };
	monitors = added;
	for (struct export *export = supervisor_exports; export; export = export->next)
		if (export->nr_changes)
			report_change(added, export);
	if (varlink_on_cancel(call, end_monitor, added))
		end_monitor(call, added);
}

/* ---- the table ---- */

/* Logs who requested a change. Never the URI, which may contain a password. */
static void log_request(const struct varlink_call *call, const char *what, const json_t *parameters)
{
	const struct varlink_peer *peer = varlink_peer(call);

	log_event(LOG_EVENT_REQUEST, LOG_LEVEL_INFO,
		  json_string_value(json_object_get(parameters, "name")),
		  "user %u (process %d) asks to %s", (unsigned)peer->uid, (int)peer->pid, what);
}

#define METHOD(name)                                                                          \
	static void call_##name(struct varlink_call *call, json_t *parameters, void *context) \
	{                                                                                     \
		(void)context;                                                                \
		start_task(call, parameters, name);                                           \
	}
#define CHANGE(name, what)                                                                    \
	static void call_##name(struct varlink_call *call, json_t *parameters, void *context) \
	{                                                                                     \
		(void)context;                                                                \
		log_request(call, what, parameters);                                          \
		start_task(call, parameters, name);                                           \
	}
METHOD(list)
METHOD(show)
METHOD(stats)
CHANGE(export_it, "export")
CHANGE(remove_it, "remove")
CHANGE(resize, "resize")
CHANGE(suspend, "suspend")
CHANGE(resume, "resume")
CHANGE(upgrade, "upgrade")
CHANGE(reload, "reload the configuration")
CHANGE(shut_down, "shut down")

static const struct varlink_method methods[] = {
	{ "List", false, false, call_list },
	{ "Show", false, false, call_show },
	{ "Stats", false, false, call_stats },
	{ "Export", true, false, call_export_it },
	{ "Remove", true, false, call_remove_it },
	{ "Resize", true, false, call_resize },
	{ "Suspend", true, false, call_suspend },
	{ "Resume", true, false, call_resume },
	{ "Upgrade", true, false, call_upgrade },
	{ "Reload", true, false, call_reload },
	{ "Shutdown", true, false, call_shut_down },
	{ "Monitor", false, true, monitor },
	{ .name = NULL },
};

const struct varlink_interface api_interface = {
	.description = interface_io_ublkd,
	.methods = methods,
	.refuse = refuse_call,
};
