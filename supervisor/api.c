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
 * (api_owner()), whoever resumes it later.
 *
 * Here: who may, the methods that only read, and the table. Read api_remove() (api_change.c) for a
 * method with all its waits, api_export() (api_export.c) for the longest.
 */
#include "supervisor/api.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/holders.h"
#include "supervisor/api_parts.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/describe.h"
#include "supervisor/describe_device.h"
#include "supervisor/interfaces.h"
#include "supervisor/supervisor.h"

#include <ctype.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
	const char *name = api_text(task, "name");
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
	details = supervisor_find(api_text(task, "name"))
			  ? NULL
			  : describe_refused(api_text(task, "name"));
	if (details) {
		varlink_reply(task->call, json_pack("{s:o}", "details", details));
		return;
	}
	export = api_named(task);
	if (!export)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "details", describe_details(export)));
	supervisor_release(export);
}

static void stats(struct api_task *task)
{
	struct export *export = api_named(task);

	if (!export)
		return;
	varlink_reply(task->call, json_pack("{s:o}", "stats", describe_stats(export)));
	supervisor_release(export);
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
		api_start(call, parameters, name);                                            \
	}
#define CHANGE(name, what)                                                                    \
	static void call_##name(struct varlink_call *call, json_t *parameters, void *context) \
	{                                                                                     \
		(void)context;                                                                \
		log_request(call, what, parameters);                                          \
		api_start(call, parameters, name);                                            \
	}
METHOD(list)
METHOD(show)
METHOD(stats)
CHANGE(api_export, "export")
CHANGE(api_remove, "remove")
CHANGE(api_resize, "resize")
CHANGE(api_suspend, "suspend")
CHANGE(api_resume, "resume")
CHANGE(api_upgrade, "upgrade")
CHANGE(api_reload, "reload the configuration")
CHANGE(api_shutdown, "shut down")

static const struct varlink_method methods[] = {
	{ "List", false, false, call_list },
	{ "Show", false, false, call_show },
	{ "Stats", false, false, call_stats },
	{ "Export", true, false, call_api_export },
	{ "Remove", true, false, call_api_remove },
	{ "Resize", true, false, call_api_resize },
	{ "Suspend", true, false, call_api_suspend },
	{ "Resume", true, false, call_api_resume },
	{ "Upgrade", true, false, call_api_upgrade },
	{ "Reload", true, false, call_api_reload },
	{ "Shutdown", true, false, call_api_shutdown },
	{ "Monitor", false, true, api_monitor },
	{ .name = NULL },
};

const struct varlink_interface api_interface = {
	.description = interface_io_ublkd,
	.methods = methods,
	.refuse = refuse_call,
};
