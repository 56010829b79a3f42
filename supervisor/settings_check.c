/* SPDX-License-Identifier: MIT */
/*
 * The configuration compared with this machine, for check-config: users and groups that do not
 * exist, storage that is missing, one storage or device id in two exports, files that
 * ublkd does not read.
 *
 * ublkd itself treats none of these as an error of the configuration. A missing file may appear
 * later, and ublkd retries the export until then; of two exports of one file the second one fails
 * when it starts. They do not keep the export from being created.
 *
 * Each export's backend names the files that it needs, so that this file knows no backend. Storage
 * is compared by device and inode number: two paths may lead to one file. Storage without a file,
 * such as an NBD export, is compared by its URI, if its backend connects to a server.
 *
 * Read settings_check() first.
 */
#include "common/error.h"
#include "engine/spec.h"
#include "supervisor/settings.h"
#include "supervisor/settings_parts.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* The storage of one export. Owner: settings_check(). */
struct storage {
	bool has_file, has_server;
	bool is_device;
	dev_t dev; /* of a block device: its own number */
	ino_t ino;
	char *missing_path; /* of a file that is to be created */
	bool read_only;
	const struct option_value *id; /* in spec */
	struct spec spec;
	bool valid; /* spec is open */
};

/* What a backend's needs are reported to. */
struct search {
	struct settings *settings;
	const struct settings_export *e;
	struct storage *storage;
	int ret;
};

static int refuse(struct settings *settings, const char *file, unsigned line, const char *name,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static int refuse(struct settings *settings, const char *file, unsigned line, const char *name,
		  const char *fmt, ...)
{
	struct error err;
	va_list args;

	va_start(args, fmt);
	vsnprintf(err.text, sizeof(err.text), fmt, args);
	va_end(args);
	text_make_printable(err.text);
	return settings_add_error(settings, file, line, name, err.text);
}

/* ---- users and groups ---- */

static int check_names(const char *directory, struct settings *settings)
{
	static const enum settings_option groups[] = { SETTINGS_CONTROL_GROUP,
						       SETTINGS_READ_GROUP };
	const struct option_value *v = &settings->values[SETTINGS_WORKER_USER];
	char path[PATH_MAX];
	const struct passwd *user;
	struct error err;
	int ret = 0;

	if (settings_path_in(path, directory, SETTINGS_MAIN_FILE, &err))
		return 0; /* settings_load() has said so */
	user = getpwnam(v->text);
	/* The default user is a matter of the installation: only for the one of this machine. */
	if ((v->given || !strcmp(directory, SETTINGS_DIRECTORY)) && (!user || !user->pw_uid))
		ret = refuse(
			settings, path, settings->lines[SETTINGS_WORKER_USER], NULL,
			user ? "worker-user: '%s' is root: name a user without privileges"
			     : "worker-user: there is no user '%s': create it (systemd-sysusers "
			       "creates the user ublkd), or name another user",
			v->text);
	for (unsigned i = 0; i < sizeof(groups) / sizeof(*groups) && !ret; i++) {
		v = &settings->values[groups[i]];
		if (v->text && !getgrnam(v->text))
			ret = refuse(settings, path, settings->lines[groups[i]], NULL,
				     "%s: there is no group '%s': create it, or name another group",
				     settings_options[groups[i]].name, v->text);
	}
	return ret;
}

/* ---- files that are not read ---- */

/* Whether a user may believe that the file declares an export; not a backup or a disabled file. */
static bool looks_like_export(const char *directory, const char *name)
{
	size_t length = strlen(name);
	char path[PATH_MAX];
	struct stat st;

	if (*name == '.' || name[length - 1] == '~' || strstr(name, SETTINGS_SUFFIX) ||
	    !strncmp(name, "README", 6))
		return false;
	return snprintf(path, sizeof(path), "%s/%s", directory, name) < PATH_MAX &&
	       !stat(path, &st) && S_ISREG(st.st_mode);
}

static int check_unread(const char *directory, struct settings *settings)
{
	char exports[PATH_MAX], path[2 * PATH_MAX];
	struct dirent *entry;
	struct error err;
	int ret = 0;
	DIR *dir;

	if (settings_path_in(exports, directory, SETTINGS_EXPORTS_DIRECTORY, &err))
		return 0;
	dir = opendir(exports);
	while (dir && !ret && (entry = readdir(dir))) {
		if (!looks_like_export(exports, entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", exports, entry->d_name);
		ret = refuse(
			settings, path, 0, NULL,
			"ublkd does not read this file: give it a name that ends in " SETTINGS_SUFFIX);
	}
	if (dir)
		closedir(dir);
	return ret;
}

/* ---- storage ---- */

/* An option's line, or else that of the URI. */
static unsigned line_of(const struct settings_export *e, const char *option)
{
	for (unsigned i = 0; i < e->nr_options; i++)
		if (!strcmp(e->options[i].name, option))
			return e->options[i].line;
	return e->uri_line;
}

static void keep_status(struct storage *s, const struct stat *st)
{
	s->has_file = true;
	s->is_device = S_ISBLK(st->st_mode);
	s->dev = s->is_device ? st->st_rdev : st->st_dev;
	s->ino = s->is_device ? 0 : st->st_ino;
}

static int check_storage_file(struct search *search, const char *path)
{
	const struct settings_export *e = search->e;
	struct stat st;

	if (stat(path, &st)) {
		/* Root may see more than the user who runs the check. */
		if (errno != ENOENT && errno != ENOTDIR)
			return 0;
		return refuse(search->settings, e->file, e->uri_line, e->name,
			      "uri: there is no %s: correct the path, or write 'create = SIZE' to "
			      "have ublkd create the file",
			      path);
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return refuse(search->settings, e->file, e->uri_line, e->name,
			      "uri: %s is neither a regular file nor a block device", path);
	keep_status(search->storage, &st);
	return 0;
}

static int check_new_file(struct search *search, const char *path)
{
	const struct settings_export *e = search->e;
	char *copy, *directory;
	struct stat st;
	int ret = 0;

	if (!stat(path, &st)) {
		keep_status(search->storage, &st);
		return 0;
	}
	search->storage->missing_path = strdup(path);
	copy = strdup(path);
	if (!copy || !search->storage->missing_path) {
		free(copy);
		return -ENOMEM;
	}
	directory = dirname(copy);
	if (stat(directory, &st) && (errno == ENOENT || errno == ENOTDIR))
		ret = refuse(search->settings, e->file, e->uri_line, e->name,
			     "uri: there is no directory %s: create it", directory);
	free(copy);
	return ret;
}

/* backend_need_callback */
static void check_need(void *context, enum backend_need need, const char *path)
{
	struct search *search = context;
	const struct settings_export *e = search->e;
	struct stat st;

	if (search->ret)
		return;
	switch (need) {
	case NEED_HOST_FILE:
		search->ret = check_storage_file(search, path);
		break;
	case NEED_HOST_NEW_FILE:
		search->ret = check_new_file(search, path);
		break;
	case NEED_FILE:
		if (stat(path, &st) && (errno == ENOENT || errno == ENOTDIR))
			search->ret = refuse(search->settings, e->file, e->uri_line, e->name,
					     "there is no %s: correct the path", path);
		break;
	case NEED_NETWORK:
	case NEED_HOST_SOCKET:
		search->storage->has_server = true;
		break;
	default:
		break;
	}
}

/* settings_parse() has accepted all of it, so that only memory can be missing here. */
static int open_spec(const struct settings_export *e, struct spec *spec)
{
	struct error err;

	if (spec_open(spec, e->uri, &err))
		return -ENOMEM;
	for (unsigned i = 0; i < e->nr_options; i++)
		if (spec_set_any(spec, e->options[i].name, e->options[i].value, &err)) {
			spec_close(spec);
			return -ENOMEM;
		}
	return 0;
}

static int find_storage(struct settings *settings, const struct settings_export *e,
			struct storage *s)
{
	struct search search = { .settings = settings, .e = e, .storage = s };
	struct instance instance;

	if (open_spec(e, &s->spec))
		return -ENOMEM;
	s->valid = true;
	s->read_only = s->spec.values[SPEC_READ_ONLY].number;
	s->id = &s->spec.values[SPEC_ID];
	spec_to_instance(&s->spec, &instance);
	if (s->spec.backend->needs)
		s->spec.backend->needs(&instance, check_need, &search);
	return search.ret;
}

static bool is_same_storage(const struct storage *a, const struct storage *b)
{
	if (a->has_file && b->has_file)
		return a->is_device == b->is_device && a->dev == b->dev && a->ino == b->ino;
	if (a->missing_path && b->missing_path)
		return !strcmp(a->missing_path, b->missing_path);
	return a->has_server && b->has_server && !strcmp(a->spec.uri, b->spec.uri);
}

/* Compares the export at index with all before it. */
static int compare(struct settings *settings, const struct storage *all, unsigned index)
{
	const struct settings_export *e = &settings->exports[index], *other;
	const struct storage *s = &all[index];
	int ret = 0;

	for (unsigned i = 0; i < index && !ret; i++) {
		other = &settings->exports[i];
		if (s->id->set && all[i].id->set && s->id->number == all[i].id->number)
			ret = refuse(
				settings, e->file, line_of(e, "id"), e->name,
				"id: the export '%s' has the same id (%s, line %u): give one of "
				"the two another id",
				other->name, other->file, line_of(other, "id"));
		if (!ret && !(s->read_only && all[i].read_only) && is_same_storage(s, &all[i]))
			ret = refuse(settings, e->file, e->uri_line, e->name,
				     "uri: the export '%s' has the same storage (%s, line %u): "
				     "remove one of the two, or make both read-only",
				     other->name, other->file, other->uri_line);
	}
	return ret;
}

static int check_exports(struct settings *settings)
{
	struct storage *all = calloc(settings->nr_exports + 1, sizeof(*all));
	int ret = all ? 0 : -ENOMEM;

	for (unsigned i = 0; i < settings->nr_exports && !ret; i++)
		ret = find_storage(settings, &settings->exports[i], &all[i]);
	for (unsigned i = 1; i < settings->nr_exports && !ret; i++)
		ret = compare(settings, all, i);
	for (unsigned i = 0; all && i < settings->nr_exports; i++) {
		if (all[i].valid)
			spec_close(&all[i].spec);
		free(all[i].missing_path);
	}
	free(all);
	return ret;
}

int settings_check(const char *directory, struct settings *settings)
{
	int ret = check_names(directory, settings);

	if (!ret)
		ret = check_unread(directory, settings);
	return ret ? ret : check_exports(settings);
}
