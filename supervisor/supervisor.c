/* SPDX-License-Identifier: MIT */
#include "supervisor/supervisor.h"
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
#include <unistd.h>

struct supervisor_paths supervisor_paths;
struct config supervisor_config;
unsigned supervisor_config_number = 1;
struct managed *supervisor_exports;

/* Content that the service manager kept, until its export is found. */
static struct stored {
	struct stored *next;
	int fd;
	char name[];
} * stored;

/* ---- the table ---- */

struct managed *supervisor_find(const char *name)
{
	static const char prefix[] = NAME_FOLDER "/";
	char device[32];

	if (!strncmp(name, prefix, sizeof(prefix) - 1))
		name += sizeof(prefix) - 1;
	for (struct managed *m = supervisor_exports; m; m = m->next) {
		device_path(&m->device, device, sizeof(device));
		if (!strcmp(m->name, name) ||
		    (*device && (!strcmp(device, name) || !strcmp(device + 5, name))))
			return m;
	}
	return NULL;
}

static void insert(struct managed *m)
{
	m->next = supervisor_exports;
	supervisor_exports = m;
}

int supervisor_add(const char *name, const char *uri, json_t *options, enum managed_origin origin,
		   const struct owner *owner, struct managed **managed, struct error *err)
{
	struct managed *m;
	int ret = managed_create(&m, name, uri, options, origin, err);

	if (!ret && managed_has_record(m)) {
		/* Of one that could not be read: there may be a device, and a server. */
		ret = error_set(
			err, EEXIST,
			"%s: %s/%s.json is an earlier one's, and cannot be read: see to its "
			"device ('ublkctl list' shows it as foreign), then remove that file",
			name, managed_folder, name);
		managed_destroy(m);
	}
	if (ret)
		return ret;
	if (owner)
		m->owner = *owner;
	m->want = WANT_LIVE;
	insert(m);
	managed_note(m, NULL);
	if (managed)
		*managed = m;
	reconcile_kick(m);
	return 0;
}

void supervisor_hold(struct managed *m)
{
	m->users++;
}

void supervisor_release(struct managed *m)
{
	if (!--m->users && m->dropped)
		managed_destroy(m);
}

static void drop(struct managed *m)
{
	struct managed **at = &supervisor_exports;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	m->dropped = true;
	m->users++;
	supervisor_release(m);
}

void supervisor_settle(struct managed *m)
{
	while (!reconcile_is_settled(m))
		fiber_wait(&m->moved, 0);
}

void supervisor_settle_all(unsigned ms)
{
	uint64_t end = clock_ms() + ms, now;
	struct managed *m = supervisor_exports;

	while (m && (now = clock_ms()) < end) {
		if (reconcile_is_settled(m)) {
			m = m->next;
			continue;
		}
		supervisor_hold(m);
		fiber_wait(&m->moved, (unsigned)(end - now));
		supervisor_release(m);
		/* The list may be another one by now. */
		m = supervisor_exports;
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

static void adopt_one(void *context)
{
	struct managed *m = context;

	flow_adopt(m);
	m->keeping = false;
	reconcile_kick(m);
	nr_adopting--;
	fiber_raise(&adopted);
}

static void read_record(const char *file)
{
	char name[NAME_MAX_LENGTH + 1];
	struct managed *m;
	struct error err;
	size_t length = strlen(file);

	if (managed_unwrite_unfinished(file))
		return;
	if (length < 6 || length - 5 > NAME_MAX_LENGTH || strcmp(file + length - 5, ".json") != 0)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)(length - 5), file);
	if (managed_read(&m, name, &err)) {
		log_error(name, "%s: what it was about is not known, and left alone", err.text);
		return;
	}
	m->memory_fd = stored_memory(name);
	m->keeping = true;
	insert(m);
	nr_adopting++;
	if (fiber_start(adopt_one, m)) {
		m->keeping = false;
		nr_adopting--;
		log_error(name, "no memory to take it on");
	}
}

void supervisor_adopt(void)
{
	struct dirent *entry;
	DIR *dir = opendir(managed_folder);

	while (dir && (entry = readdir(dir)))
		read_record(entry->d_name);
	if (dir)
		closedir(dir);
	while (nr_adopting)
		fiber_wait(&adopted, 0);
	forget_stored();
}

/* ---- the configuration ---- */

static json_t *options_of(const struct config_export *e)
{
	json_t *options = json_object();

	for (unsigned i = 0; i < e->nr_options; i++)
		json_object_set_new(options, e->options[i].name,
				    e->options[i].value ? json_string(e->options[i].value)
							: json_null());
	return options;
}

static enum managed_origin origin_of(const struct config_export *e)
{
	return e->written ? ORIGIN_PERSISTENT : ORIGIN_DECLARED;
}

static int add_declared(const struct config_export *e, struct error *err)
{
	int ret = supervisor_add(e->name, e->uri, options_of(e), origin_of(e), NULL, NULL, err);

	if (ret)
		log_error(e->name, "%s:%u: %s", e->file, e->line, err->text);
	return ret;
}

static void declare(const struct config_export *e, supervisor_result *result, void *context)
{
	static const char anew[] = "made anew, once its removal is done";
	struct managed *m = supervisor_find(e->name);
	enum managed_origin origin = origin_of(e);
	json_t *options;
	struct error err;

	if (!m) {
		if (add_declared(e, &err))
			result(context, e->name, false, err.text);
		else
			result(context, e->name, true, "made");
		return;
	}
	/* The file that a client had written goes with what that client removes. */
	if (m->want == WANT_GONE && (m->origin != ORIGIN_PERSISTENT || origin != m->origin))
		m->anew = true;
	options = options_of(e);
	if (managed_is_same(m, e->uri, options)) {
		m->origin = origin;
		m->owner = (struct owner){ 0 }; /* root says the same by now */
		reconcile_retry(m);
		result(context, e->name, true, m->anew ? anew : NULL);
	} else if (m->anew) {
		result(context, e->name, true, anew);
	} else {
		result(context, e->name, false,
		       "it is there with another URI or other options, and stays so until it is "
		       "removed");
		log_warning(e->name,
			    "%s:%u declares it otherwise than it is: remove it, then 'ublkctl "
			    "reload' makes it so",
			    e->file, e->line);
	}
	json_decref(options);
}

/* By its fiber, whose last use of it this is. */
static void gone(struct managed *m)
{
	const struct config_export *e = m->anew ? config_find(&supervisor_config, m->name) : NULL;
	struct error err;

	drop(m);
	if (e)
		add_declared(e, &err);
}

static void remove_undeclared(supervisor_result *result, void *context)
{
	for (struct managed *m = supervisor_exports; m; m = m->next) {
		if (m->origin == ORIGIN_REQUESTED || m->want == WANT_GONE ||
		    config_find(&supervisor_config, m->name))
			continue;
		/* A device in use stays, and belongs to its users. */
		m->origin = ORIGIN_REQUESTED;
		m->want = WANT_GONE;
		reconcile_kick(m);
		result(context, m->name, true, "no longer declared: removed, unless it is in use");
	}
}

void supervisor_reload(supervisor_result *result, void *context)
{
	struct config fresh;

	if (config_load(supervisor_paths.config, &fresh)) {
		config_close(&fresh);
		result(context, "ublkd", false, "no memory for the configuration");
		return;
	}
	config_close(&supervisor_config);
	supervisor_config = fresh;
	supervisor_config_number++;
	for (unsigned i = 0; i < fresh.nr_errors; i++) {
		const struct config_error *e = &fresh.errors[i];

		if (e->line)
			log_error(e->name, "%s:%u: %s", e->file, e->line, e->text);
		else
			log_error(e->name, "%s: %s", e->file, e->text);
		result(context, e->name ? e->name : "ublkd", false, e->text);
	}
	reconcile_max_jobs = (unsigned)fresh.values[CONFIG_MAX_JOBS].number;
	for (unsigned i = 0; i < fresh.nr_exports; i++)
		declare(&fresh.exports[i], result, context);
	/* A file that cannot be read declares what it did before, as far as anybody knows. */
	if (!fresh.nr_errors)
		remove_undeclared(result, context);
}

void supervisor_setup(void)
{
	reconcile_gone = gone;
}

/* ---- the end ---- */

void supervisor_remove_all(bool force, supervisor_result *result, void *context)
{
	unsigned nr = 0, i = 0;
	struct managed **all, *m;

	for (m = supervisor_exports; m; m = m->next)
		nr++;
	all = calloc(nr ? nr : 1, sizeof(*all));
	if (!all)
		return;
	for (m = supervisor_exports; m; m = m->next) {
		supervisor_hold(m);
		all[i++] = m;
		/* A client may have asked for more. */
		m->force |= force;
		m->anew = false;
		m->want = WANT_GONE;
		reconcile_kick(m);
	}
	for (i = 0; i < nr; i++) {
		m = all[i];
		supervisor_settle(m);
		result(context, m->name, m->state == EXPORT_GONE,
		       m->state == EXPORT_GONE || !m->fault ? NULL : m->fault->text);
		supervisor_release(m);
	}
	free(all);
}
