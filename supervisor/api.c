/* SPDX-License-Identifier: MIT */
/*
 * A call that may have to wait runs in a fiber of its own, and holds the export that
 * it is about; when its client goes away it ends all the same.
 */
#include "supervisor/api.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/holders.h"
#include "supervisor/describe.h"
#include "supervisor/interfaces.h"
#include "supervisor/reconcile.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RELOAD_MS    60000u /* for what a reload begins */
#define HELD_POLL_MS 500u   /* between two looks whether a device is still open */

void (*api_shut_down)(void);

/* ---- who may ---- */

/* Groups are looked up once for each reading of the configuration: it may take long. */
static struct group_cache {
	unsigned config;
	bool known;
	gid_t gid;
} groups[CONFIG_OPTIONS];

static bool in_configured_group(const struct varlink_peer *peer, enum config_option option)
{
	const char *name = supervisor_config.values[option].text;
	struct group_cache *g = &groups[option];

	if (g->config != supervisor_config_number) {
		const struct group *group = name ? getgrnam(name) : NULL;

		*g = (struct group_cache){ supervisor_config_number, group != NULL,
					   group ? group->gr_gid : 0 };
		if (name && !group)
			log_warning(NULL, "there is no group '%s', which ublkd.conf names", name);
	}
	return g->known && varlink_peer_in_group(peer, g->gid);
}

bool api_may(const struct varlink_peer *peer, bool changes, void *context)
{
	(void)context;
	if (peer->uid == 0 || peer->uid == geteuid())
		return true;
	if (in_configured_group(peer, CONFIG_CONTROL_GROUP))
		return true;
	return !changes && in_configured_group(peer, CONFIG_READ_GROUP);
}

static void refuse(struct varlink_call *call, void *context)
{
	(void)context;
	varlink_error(call, "NotPermitted",
		      json_pack("{s:s}", "message",
				"this is for root, and for the group that control-group in "
				"ublkd.conf names"));
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
		 "there is no export '%.200s': 'ublkctl list' shows those there are", name);
	varlink_error(call, "NoSuchExport",
		      json_pack("{s:s, s:s}", "name", name, "message", message));
}

static void busy(struct varlink_call *call, struct managed *m, const struct error *err)
{
	struct holders holders;

	managed_holders(m, &holders, MANAGED_TELL_MS);
	varlink_error(call, "Busy",
		      json_pack("{s:s, s:s, s:o}", "name", m->name, "message", err->text, "holders",
				describe_holders(&holders)));
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

/* Why an export is not as it was asked for. */
static void why(const struct managed *m, struct error *err)
{
	if (m->fault)
		*err = *m->fault;
	else
		error_set(err, EIO, "%s: it is %s", m->name, export_state_name(m->state));
}

/* ---- a call in a fiber ---- */

struct task {
	struct varlink_call *call;
	json_t *parameters;
	void (*run)(struct task *task);
};

static void run_task(void *context)
{
	struct task *task = context;

	task->run(task);
	json_decref(task->parameters);
	free(task);
}

static void start(struct varlink_call *call, json_t *parameters, void (*run)(struct task *task))
{
	struct task *task = malloc(sizeof(*task));
	struct error err;

	if (task) {
		*task = (struct task){ call, json_incref(parameters), run };
		if (!fiber_start(run_task, task))
			return;
		json_decref(parameters);
		free(task);
	}
	error_set(&err, ENOMEM, "no memory for that");
	fail(call, &err);
}

static const char *text(const struct task *task, const char *key)
{
	return json_string_value(json_object_get(task->parameters, key));
}

static bool flag(const struct task *task, const char *key)
{
	return json_is_true(json_object_get(task->parameters, key));
}

/* The export that the call names, held; or NULL, and the call is answered. */
static struct managed *named(const struct task *task)
{
	struct managed *m = supervisor_find(text(task, "name"));

	if (!m)
		no_such_export(task->call, text(task, "name"));
	else
		supervisor_hold(m);
	return m;
}

/* ---- reading ---- */

static void list(struct task *task)
{
	varlink_reply(task->call, json_pack("{s:o}", "exports", describe_all()));
}

static void show(struct task *task)
{
	struct managed *m = named(task);

	if (!m)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "details", describe_details(m)));
	supervisor_release(m);
}

static void stats(struct task *task)
{
	struct managed *m = named(task);

	if (!m)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "stats", describe_stats(m)));
	supervisor_release(m);
}

/* ---- Export ---- */

/* Writes an export's declaration, or sees that it can be written. */
static int declare(const char *name, const char *uri, json_t *options, bool check_only,
		   struct error *err)
{
	unsigned nr = (unsigned)json_object_size(options), i = 0;
	struct config_pair *pairs = calloc(nr ? nr : 1, sizeof(*pairs));
	const char *option;
	json_t *value;
	int ret;

	if (!pairs)
		return error_set(err, ENOMEM, "no memory for that");
	json_object_foreach(options, option, value) {
		pairs[i].name = (char *)(uintptr_t)option;
		pairs[i++].value = (char *)(uintptr_t)json_string_value(value);
	}
	ret = (check_only ? config_check_export : config_write_export)(supervisor_paths.config,
								       name, uri, pairs, nr, err);
	free(pairs);
	return ret;
}

/* Options that the backend has chosen, so that it chooses the same at the next boot. */
static int record_choices(struct managed *m, struct error *err)
{
	const struct backend *backend = m->spec.backend;
	const char *const *option = backend->recorded;
	char value[IDENTITY_BYTES];
	int ret = 0;

	for (; option && *option && !ret; option++)
		if (!json_object_get(m->options, *option) &&
		    backend->record(*option, &m->limits, m->identity, value, sizeof(value)))
			ret = managed_record(m, *option, value, err);
	return ret;
}

static int persist(struct managed *m, struct error *err)
{
	int ret = record_choices(m, err);

	if (!ret)
		ret = declare(m->name, m->uri, m->options, false, err);
	if (!ret && m->origin == ORIGIN_REQUESTED) {
		m->origin = ORIGIN_PERSISTENT;
		ret = managed_write(m, err);
	}
	return ret;
}

/*
 * Before a device is made that is to come up at boot: whether it could.  What is wrong
 * with the export itself is told first.
 */
static int check_persist(const char *name, const char *uri, json_t *options, struct error *err)
{
	struct managed *m;
	int ret = managed_create(&m, name, uri, json_copy(options), ORIGIN_REQUESTED, err);

	if (ret)
		return ret;
	managed_destroy(m);
	ret = declare(name, uri, options, true, err);
	return ret ? error_prefix(err, "it could not come up by itself at boot, so it is not made")
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

static void exists(struct varlink_call *call, const char *name)
{
	char message[300];

	snprintf(message, sizeof(message),
		 "there is an export '%s' already, with another URI or other options: remove it "
		 "first, or give this one another name (NAME=URI)",
		 name);
	varlink_error(call, "Exists", json_pack("{s:s, s:s}", "name", name, "message", message));
}

/* Takes one that could not be made out of the table again. */
static void give_up(struct managed *m)
{
	m->want = WANT_GONE;
	m->force = true;
	reconcile_kick(m);
	supervisor_settle(m);
}

static void answer_export(struct task *task, struct managed *m, bool made)
{
	struct error err = { 0 };

	supervisor_settle(m);
	if (m->state != EXPORT_LIVE) {
		why(m, &err);
		/* Another client may have suspended or removed it by now. */
		if (made && (m->state == EXPORT_FAILED || m->state == EXPORT_DECLARED))
			give_up(m);
		fail(task->call, &err);
	} else if (flag(task, "persist") && persist(m, &err)) {
		error_prefix(&err, "the device is there, but will not come up by itself at boot");
		fail(task->call, &err);
	} else {
		varlink_reply(task->call, json_pack("{s:o}", "export", describe_export(m)));
	}
}

static void export_it(struct task *task)
{
	json_t *options = json_object_get(task->parameters, "options");
	const char *uri = text(task, "uri"), *name = text(task, "name");
	char made_up[NAME_MAX_LENGTH + 1];
	struct owner owner;
	struct managed *m;
	struct error err;
	bool made = false;

	owner_of(task->call, &owner);
	/* At boot root's own configuration names the files, and nobody knows who wrote it. */
	if (owner.uid && flag(task, "persist")) {
		error_set(
			&err, EPERM,
			"only root can have an export come up at boot, since its files are opened "
			"with root's rights then: leave --persist out");
		fail(task->call, &err);
		return;
	}
	options = json_is_object(options) ? json_copy(options) : json_object();
	if (!name) {
		name_from_uri(uri, made_up);
		name = made_up;
	}
	m = supervisor_find(name);
	if (m && strcmp(m->name, name) != 0)
		m = NULL;
	if (m && (!managed_is_same(m, uri, options) || m->want == WANT_GONE)) {
		exists(task->call, name);
		json_decref(options);
		return;
	}
	if (m) {
		json_decref(options);
		if (!owner.uid)
			m->owner = owner;
		m->want = WANT_LIVE;
		reconcile_retry(m);
	} else {
		if (flag(task, "persist") && check_persist(name, uri, options, &err)) {
			json_decref(options);
			fail(task->call, &err);
			return;
		}
		if (supervisor_add(name, uri, options, ORIGIN_REQUESTED, &owner, &m, &err)) {
			fail(task->call, &err);
			return;
		}
		made = true;
	}
	supervisor_hold(m);
	answer_export(task, m, made);
	supervisor_release(m);
}

/* ---- Remove ---- */

static bool is_held(const struct managed *m)
{
	struct holders holders;
	bool held;

	managed_holders(m, &holders, MANAGED_TELL_MS);
	held = holders.nr;
	holders_close(&holders);
	return held;
}

static void remove_it(struct task *task)
{
	struct managed *m = supervisor_find(text(task, "name"));
	struct error err = { 0 };

	/* Gone is gone: the same twice is no error. */
	if (!m) {
		if (config_remove_export(supervisor_paths.config, text(task, "name"), &err) &&
		    err.code != EINVAL && err.code != EEXIST)
			fail(task->call, &err);
		else
			varlink_reply(task->call, NULL);
		return;
	}
	supervisor_hold(m);
	m->anew = false;
	for (;;) {
		while (flag(task, "wait") && is_held(m) && !varlink_is_gone(task->call))
			fiber_sleep(HELD_POLL_MS);
		m->want = WANT_GONE;
		m->force |= flag(task, "force");
		reconcile_kick(m);
		supervisor_settle(m);
		if (m->state == EXPORT_GONE || !flag(task, "wait") || !m->fault ||
		    m->fault->code != EBUSY || varlink_is_gone(task->call))
			break;
		/* The holder is not to be seen, or came in between. */
		fiber_sleep(HELD_POLL_MS);
	}
	if (m->state == EXPORT_GONE) {
		/* An export that was declared meanwhile has its file for that. */
		if (m->origin == ORIGIN_PERSISTENT && !m->anew &&
		    config_remove_export(supervisor_paths.config, m->name, &err)) {
			error_prefix(&err, "it is removed, but will come up again at boot");
			fail(task->call, &err);
		} else {
			varlink_reply(task->call, NULL);
		}
	} else {
		why(m, &err);
		if (err.code == EBUSY)
			busy(task->call, m, &err);
		else
			fail(task->call, &err);
		if (m->state == EXPORT_LIVE)
			managed_set_fault(m, NULL);
	}
	supervisor_release(m);
}

/* ---- Resize, Suspend, Resume, Upgrade ---- */

static void resize(struct task *task)
{
	json_int_t size = json_integer_value(json_object_get(task->parameters, "size"));
	struct owner caller;
	struct managed *m;
	struct error err;
	bool held;

	if (size < 0 || (json_object_get(task->parameters, "size") && !size)) {
		varlink_invalid(task->call, "size");
		return;
	}
	m = named(task);
	if (!m)
		return;
	held = size && (uint64_t)size < m->limits.size && is_held(m);
	while (m->resize)
		fiber_wait(&m->moved, 0);
	owner_of(task->call, &caller);
	/* The worker has the file open for writing; the caller need not be able to do that. */
	if (size && !owner_allows(&m->owner, &caller)) {
		error_set(
			&err, EPERM,
			"%s: only root and the user who made the export (%u) can give its storage "
			"another size",
			m->name, m->owner.uid);
		fail(task->call, &err);
	} else if (m->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s: it is %s: only a live one can be resized", m->name,
			  export_state_name(m->state));
		fail(task->call, &err);
	} else if (held && (uint64_t)size < m->limits.size) {
		error_set(&err, EBUSY, "%s: it is made smaller only while nobody has it open",
			  m->name);
		busy(task->call, m, &err);
	} else {
		m->resize_to = (uint64_t)size;
		m->shrink = flag(task, "force");
		m->resize_error = &err;
		m->resize_result =
			error_set(&err, ENOTCONN, "%s: its server has gone meanwhile", m->name);
		m->resize = true;
		reconcile_kick(m);
		while (m->resize && m->keeping)
			fiber_wait(&m->moved, 0);
		m->resize = false;
		fiber_raise(&m->moved);
		if (m->resize_result)
			fail(task->call, &err);
		else
			varlink_reply(task->call,
				      json_pack("{s:I}", "size", (json_int_t)m->limits.size));
	}
	supervisor_release(m);
}

/* Has it led to a state; waits, and answers. */
static void lead_to(struct task *task, enum managed_want want, enum export_state state)
{
	struct managed *m = named(task);
	struct error err;

	if (!m)
		return;
	if (m->want == WANT_GONE) {
		error_set(&err, ENOENT, "%s: it is being removed", m->name);
		fail(task->call, &err);
	} else if (want == WANT_SUSPENDED && !m->device.exists) {
		error_set(&err, ENOTCONN, "%s: it is %s: only one with a device can be suspended",
			  m->name, export_state_name(m->state));
		fail(task->call, &err);
	} else {
		m->want = want;
		/* The client that resumes a waiting export has seen why it waits. */
		if (want == WANT_LIVE && m->state != EXPORT_SUSPENDED)
			m->unfenced = false;
		reconcile_retry(m);
		supervisor_settle(m);
		why(m, &err);
		if (m->state == state)
			varlink_reply(task->call, NULL);
		else
			fail(task->call, &err);
	}
	supervisor_release(m);
}

static void suspend(struct task *task)
{
	lead_to(task, WANT_SUSPENDED, EXPORT_SUSPENDED);
}

static void resume(struct task *task)
{
	struct managed *m = supervisor_find(text(task, "name"));
	bool accept = m && m->state != EXPORT_LIVE && flag(task, "accept_storage");

	/* For this try alone: nobody has seen what a later one may find. */
	if (accept) {
		supervisor_hold(m);
		supervisor_settle(m);
		m->accept = true;
	}
	lead_to(task, WANT_LIVE, EXPORT_LIVE);
	if (accept) {
		m->accept = false;
		supervisor_release(m);
	}
}

static void begin_upgrade(struct managed *m)
{
	supervisor_hold(m);
	managed_set_fault(m, NULL);
	m->upgrade = true;
	reconcile_kick(m);
}

static void end_upgrade(struct managed *m, json_t *results)
{
	struct error err;

	supervisor_settle(m);
	why(m, &err);
	if (m->state == EXPORT_LIVE && !m->fault)
		add_result(results, m->name, true, NULL);
	else
		add_result(results, m->name, false, err.text);
	supervisor_release(m);
}

static void upgrade_all(json_t *results)
{
	unsigned nr = 0, i = 0;
	struct managed **all, *m;

	for (m = supervisor_exports; m; m = m->next)
		nr += m->state == EXPORT_LIVE;
	all = calloc(nr ? nr : 1, sizeof(struct managed *));
	for (m = supervisor_exports; all && m && i < nr; m = m->next) {
		if (m->state != EXPORT_LIVE)
			continue;
		all[i++] = m;
		begin_upgrade(m);
	}
	for (nr = i, i = 0; i < nr; i++)
		end_upgrade(all[i], results);
	free(all);
}

static void upgrade(struct task *task)
{
	json_t *results;
	struct managed *m;
	struct error err;

	if (!text(task, "name")) {
		results = json_array();
		upgrade_all(results);
		answer_results(task->call, results);
		return;
	}
	m = named(task);
	if (!m)
		return;
	if (m->state != EXPORT_LIVE) {
		error_set(&err, ENOTCONN, "%s: it is %s: only a live one can be upgraded", m->name,
			  export_state_name(m->state));
		fail(task->call, &err);
	} else {
		results = json_array();
		begin_upgrade(m);
		end_upgrade(m, results);
		answer_results(task->call, results);
	}
	supervisor_release(m);
}

/* ---- Reload, Shutdown ---- */

/* Its state by now. */
static void update_result(json_t *result)
{
	const char *name = json_string_value(json_object_get(result, "name"));
	const struct managed *m = supervisor_find(name);
	struct error err;

	if (!json_is_true(json_object_get(result, "done")) || !m ||
	    (m->want != WANT_GONE && (m->state == EXPORT_LIVE || m->state == EXPORT_SUSPENDED)))
		return;
	why(m, &err);
	json_object_set_new(result, "done", json_false());
	json_object_set_new(result, "message", json_string(err.text));
}

static void reload(struct task *task)
{
	json_t *results = json_array(), *result;
	size_t i;

	supervisor_reload(add_result, results);
	supervisor_settle_all(RELOAD_MS);
	json_array_foreach(results, i, result)
		update_result(result);
	answer_results(task->call, results);
}

static void shut_down(struct task *task)
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
	/* A device in use needs it. */
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

static void tell(struct monitor *monitor, struct managed *m)
{
	varlink_reply_more(monitor->call,
			   json_pack("{s:o, s:o}", "export", describe_export(m), "change",
				     describe_change(m, m->nr_changes - 1)));
}

void api_tell_change(struct managed *m)
{
	if (!m->nr_changes)
		return;
	for (struct monitor *monitor = monitors; monitor; monitor = monitor->next)
		tell(monitor, m);
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
		error_set(&err, ENOMEM, "no memory for that");
		fail(call, &err);
		return;
	}
	*added = (struct monitor){ monitors, call };
	monitors = added;
	for (struct managed *m = supervisor_exports; m; m = m->next)
		if (m->nr_changes)
			tell(added, m);
	if (varlink_on_cancel(call, end_monitor, added))
		end_monitor(call, added);
}

/* ---- the table ---- */

#define METHOD(name)                                                                          \
	static void call_##name(struct varlink_call *call, json_t *parameters, void *context) \
	{                                                                                     \
		(void)context;                                                                \
		start(call, parameters, name);                                                \
	}
METHOD(list)
METHOD(show)
METHOD(stats)
METHOD(export_it)
METHOD(remove_it)
METHOD(resize)
METHOD(suspend)
METHOD(resume)
METHOD(upgrade)
METHOD(reload)
METHOD(shut_down)

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
	.refuse = refuse,
};
