/* SPDX-License-Identifier: MIT */
/*
 * The table of exports. Three sources fill it: records of an earlier ublkd (supervisor_adopt()),
 * the configuration (supervisor_reload()) and clients (supervisor_add()).
 *
 * A reload must not take a disk from its users. It adds new declarations, removes undeclared
 * exports unless they are in use, and leaves a differing export as it is, with a warning. Any
 * error in the files suspends removals: an unreadable file may declare a running export.
 *
 * Removal takes time. An export leaves the table when its reconciler reports it gone, and memory
 * when the last supervisor_release() lets go. A declaration during the removal only sets
 * wanted.recreate; gone() then creates the export again.
 *
 * Read supervisor_add() and drop() first, then supervisor_adopt() with read_record(), then
 * supervisor_reload() with declare(), remove_undeclared() and gone().
 */
#include "supervisor/supervisor.h"
#include "supervisor/record.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/reconcile.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

struct supervisor_paths supervisor_paths;
struct settings supervisor_settings;
unsigned supervisor_settings_number = 1;
int64_t supervisor_settings_read_s;
struct export *supervisor_exports;

/* Content that the service manager kept, until its export is found. */
static struct stored {
	struct stored *next;
	int fd;
	char name[];
} * stored;

/* ---- the table ---- */

struct export *supervisor_find(const char *name)
{
	static const char prefix[] = NAME_DIRECTORY "/";
	char device[32];

	if (!strncmp(name, prefix, sizeof(prefix) - 1))
		name += sizeof(prefix) - 1;
	for (struct export *export = supervisor_exports; export; export = export->next) {
		device_path(&export->device, device, sizeof(device));
		if (!strcmp(export->name, name) ||
		    (*device && (!strcmp(device, name) || !strcmp(device + 5, name))))
			return export;
	}
	return NULL;
}

static void insert(struct export *export)
{
	export->next = supervisor_exports;
	supervisor_exports = export;
}

int supervisor_add(const char *name, const char *uri, json_t *options, enum export_origin origin,
		   const struct owner *owner, struct export **made, struct error *err)
{
	struct export *export;
	int ret = export_create(&export, name, uri, options, origin, err);

	if (!ret && record_exists(export)) {
		/* Adoption could not read this record: its device and worker may exist. */
		ret = error_set(
			err, EEXIST,
			"%s: %s/%s.json is the record of an earlier export, and cannot be read: "
			"remove the device of that export (listed as foreign), then that file",
			name, record_directory, name);
		export_destroy(export);
	}
	if (ret)
		return ret;
	if (owner)
		export->owner = *owner;
	export->wanted.goal = GOAL_LIVE;
	insert(export);
	export_note(export, NULL);
	if (made)
		*made = export;
	reconcile_kick(export);
	return 0;
}

void supervisor_hold(struct export *export)
{
	export->users++;
}

void supervisor_release(struct export *export)
{
	if (!--export->users && export->dropped)
		export_destroy(export);
}

static void drop(struct export *export)
{
	struct export **at = &supervisor_exports;

	while (*at != export)
		at = &(*at)->next;
	*at = export->next;
	export->dropped = true;
	/* Freed here unless a fiber still holds it. */
	export->users++;
	supervisor_release(export);
}

void supervisor_settle(struct export *export)
{
	while (!reconcile_is_settled(export))
		fiber_wait(&export->changed, 0);
}

void supervisor_settle_all(unsigned ms)
{
	uint64_t end = clock_ms() + ms, now;
	struct export *export = supervisor_exports;

	while (export && (now = clock_ms()) < end) {
		if (reconcile_is_settled(export)) {
			export = export->next;
			continue;
		}
		supervisor_hold(export);
		fiber_wait(&export->changed, (unsigned)(end - now));
		supervisor_release(export);
		/* The table may have changed over the wait: begin again. */
		export = supervisor_exports;
	}
}

/* ---- what an earlier ublkd has left ---- */

void supervisor_take_memory(const char *name, int fd)
{
	struct stored *s = malloc(sizeof(*s) + strlen(name) + 1);

	if (!s) {
		close(fd);
		return;
	}
	s->fd = fd;
	strcpy(s->name, name);
	s->next = stored;
	stored = s;
}

static int stored_memory(const char *name)
{
	for (struct stored **at = &stored; *at; at = &(*at)->next) {
		struct stored *s = *at;
		int fd = s->fd;

		if (strcmp(s->name, name) != 0)
			continue;
		*at = s->next;
		free(s);
		return fd;
	}
	return -1;
}

/* No record claims these descriptors: left in the store, their memory would never be freed. */
static void forget_stored(void)
{
	while (stored) {
		struct stored *s = stored;
		char text[NAME_MAX_LENGTH + 48];

		stored = s->next;
		snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=memory-%s", s->name);
		sd_notify(0, text);
		close(s->fd);
		free(s);
	}
}

static struct fiber_event adopted;
static unsigned nr_adopting;

static void note_adopted(struct export *export)
{
	(void)export;
	nr_adopting--;
	fiber_raise(&adopted);
}

static void read_record(const char *file)
{
	char name[NAME_MAX_LENGTH + 1];
	struct export *export;
	struct error err;
	size_t length = strlen(file);

	if (record_remove_unfinished(file))
		return;
	if (length < 6 || length - 5 > NAME_MAX_LENGTH || strcmp(file + length - 5, ".json") != 0)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)(length - 5), file);
	if (record_read(&export, name, &err)) {
		log_error(name, "%s: unreadable state record; leaving the device alone", err.text);
		return;
	}
	export->storage.memory_fd = stored_memory(name);
	insert(export);
	nr_adopting++;
	if (reconcile_adopt(export)) {
		nr_adopting--;
		log_error(name, "no memory to adopt the export");
	}
}

void supervisor_adopt(void)
{
	struct dirent *entry;
	DIR *dir = opendir(record_directory);

	while (dir && (entry = readdir(dir)))
		read_record(entry->d_name);
	if (dir)
		closedir(dir);
	while (nr_adopting)
		fiber_wait(&adopted, 0);
	forget_stored();
}

/* ---- the configuration ---- */

static json_t *options_of(const struct settings_export *e)
{
	json_t *options = json_object();

	for (unsigned i = 0; i < e->nr_options; i++)
		json_object_set_new(options, e->options[i].name,
				    e->options[i].value ? json_string(e->options[i].value)
							: json_null());
	return options;
}

static enum export_origin origin_of(const struct settings_export *e)
{
	return e->written ? ORIGIN_PERSISTENT : ORIGIN_DECLARED;
}

/* Returns whether it could; if not, text says why not, and is logged. */
static bool add_declared(const struct settings_export *e, char *text, size_t size)
{
	struct error err;

	if (!supervisor_add(e->name, e->uri, options_of(e), origin_of(e), NULL, NULL, &err))
		return true;
	settings_error_text(e->file, e->line, err.text, text, size);
	log_error(e->name, "%s", text);
	return false;
}

/* Sets the cause, and logs it where no change of health does: known, or another one counts. */
static void set_declaration(struct export *export, const char *text)
{
	bool known = export->conditions[CAUSE_DECLARATION].set;

	export_set_condition(export, CAUSE_DECLARATION, text);
	if (known || export->health_cause != CAUSE_DECLARATION)
		log_warning(export->name, "%s", text);
}

/* The export runs on as it is; its health says that its declaration is another one. */
static void refuse_change(struct export *export, const struct settings_export *e,
			  const json_t *options, supervisor_result *result, void *context)
{
	char difference[1024], text[SETTINGS_ERROR_TEXT];

	export_difference(export, e->uri, options, difference, sizeof(difference));
	snprintf(text, sizeof(text), "%s:%u differs from the running export: %s", e->file, e->line,
		 difference);
	set_declaration(export, text);
	result(context, e->name, false, text);
}

static void declare(const struct settings_export *e, supervisor_result *result, void *context)
{
	static const char again[] = "will be created again after its removal";
	struct export *export = supervisor_find(e->name);
	enum export_origin origin = origin_of(e);
	char text[SETTINGS_ERROR_TEXT];
	json_t *options;

	if (!export) {
		if (add_declared(e, text, sizeof(text)))
			result(context, e->name, true, "created");
		else
			result(context, e->name, false, text);
		return;
	}
	/* The file that a client had written goes with what that client removes. */
	if (export->wanted.goal == GOAL_GONE &&
	    (export->origin != ORIGIN_PERSISTENT || origin != export->origin))
		export->wanted.recreate = true;
	options = options_of(e);
	if (export_is_same(export, e->uri, options)) {
		export->origin = origin;
		export->owner = (struct owner){ 0 }; /* root says the same by now */
		export_set_condition(export, CAUSE_DECLARATION, NULL);
		reconcile_retry(export);
		result(context, e->name, true,
		       export->wanted.recreate ? again
		       : export->state == EXPORT_LIVE || export->state == EXPORT_SUSPENDED
			       ? "unchanged"
			       : "retried");
	} else if (export->wanted.recreate) {
		result(context, e->name, true, again);
	} else {
		refuse_change(export, e, options, result, context);
	}
	json_decref(options);
}

/* Called by the export's fiber, which does not use the export afterwards. */
static void gone(struct export *export)
{
	const struct settings_export *e =
		export->wanted.recreate ? settings_find(&supervisor_settings, export->name) : NULL;
	char text[SETTINGS_ERROR_TEXT];

	drop(export);
	if (e)
		add_declared(e, text, sizeof(text));
}

/*
 * A file with an error may still declare its export, which therefore stays. If an error may hide
 * any declaration, all exports stay.
 */
static void remove_undeclared(supervisor_result *result, void *context)
{
	bool incomplete = supervisor_settings.incomplete;

	for (struct export *export = supervisor_exports; export; export = export->next) {
		if (export->origin == ORIGIN_REQUESTED || export->wanted.goal == GOAL_GONE ||
		    settings_find(&supervisor_settings, export->name) ||
		    settings_find_error(&supervisor_settings, export->name))
			continue;
		if (incomplete) {
			result(context, export->name, false,
			       "no longer declared, but not removed, because an error in the "
			       "configuration may hide its declaration: correct that error first");
			continue;
		}
		/* A device in use stays, and belongs to its users. */
		export->origin = ORIGIN_REQUESTED;
		export->wanted.goal = GOAL_GONE;
		reconcile_kick(export);
		result(context, export->name, true,
		       "no longer declared: removed, unless it is in use");
	}
}

static void report_error(const struct settings_error *e, supervisor_result *result, void *context)
{
	struct export *export = e->name ? supervisor_find(e->name) : NULL;
	char text[SETTINGS_ERROR_TEXT];

	settings_error_text(e->file, e->line, e->text, text, sizeof(text));
	result(context, e->name ? e->name : "ublkd", false, text);
	/* Of two declarations the first one stands, and says how the export is to be. */
	if (export && !settings_find(&supervisor_settings, e->name))
		set_declaration(export, text);
	else
		log_error(e->name, "%s", text);
}

/* An error whose file has gone is none any more. */
static void forget_declarations(void)
{
	for (struct export *export = supervisor_exports; export; export = export->next)
		if (!settings_find(&supervisor_settings, export->name) &&
		    !settings_find_error(&supervisor_settings, export->name))
			export_set_condition(export, CAUSE_DECLARATION, NULL);
}

void supervisor_reload(supervisor_result *result, void *context)
{
	struct settings fresh;

	if (settings_load(supervisor_paths.settings, &fresh)) {
		settings_close(&fresh);
		result(context, "ublkd", false, "no memory for the configuration");
		return;
	}
	settings_close(&supervisor_settings);
	supervisor_settings = fresh;
	supervisor_settings_number++;
	supervisor_settings_read_s = time(NULL);
	for (unsigned i = 0; i < fresh.nr_errors; i++)
		report_error(&fresh.errors[i], result, context);
	reconcile_max_jobs = (unsigned)fresh.values[SETTINGS_MAX_JOBS].number;
	for (unsigned i = 0; i < fresh.nr_exports; i++)
		declare(&fresh.exports[i], result, context);
	remove_undeclared(result, context);
	forget_declarations();
}

void supervisor_setup(void)
{
	reconcile_gone = gone;
	reconcile_adopted = note_adopted;
	export_worker_events = reconcile_worker_events;
}

/* ---- the end ---- */

void supervisor_remove_all(bool force, supervisor_result *result, void *context)
{
	unsigned nr = 0, i = 0;
	struct export **all, *export;

	for (export = supervisor_exports; export; export = export->next)
		nr++;
	/* A copy of the list, held: the table changes during each wait. */
	all = calloc(nr ? nr : 1, sizeof(*all));
	if (!all)
		return;
	for (export = supervisor_exports; export; export = export->next) {
		supervisor_hold(export);
		all[i++] = export;
		/* Keep force if a client has asked for it. */
		export->wanted.force |= force;
		export->wanted.recreate = false;
		export->wanted.goal = GOAL_GONE;
		reconcile_kick(export);
	}
	for (i = 0; i < nr; i++) {
		export = all[i];
		supervisor_settle(export);
		result(context, export->name, export->state == EXPORT_GONE,
		       export->state == EXPORT_GONE || !export->fault ? NULL : export->fault->text);
		supervisor_release(export);
	}
	free(all);
}
