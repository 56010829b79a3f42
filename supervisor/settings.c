/* SPDX-License-Identifier: MIT */
/*
 * The configuration as a whole: finds ublkd.conf and exports.d/NAME.conf, checks their owners, and
 * collects declarations and errors. settings_parse.c parses one file, settings_write.c writes one.
 *
 * These files decide which paths and servers root opens. A file or directory that another user can
 * write is refused, with the cure. The check uses the open descriptor of a file, since a path could
 * lead to another file by the time of the read.
 *
 * An error is an entry in a list and ends nothing: all other exports still start. Files are read in
 * sorted order, so that of two declarations of an export the same one stands after each reload; the
 * second is the error.
 *
 * Read settings_load() first, then load_exports(), settings_load_file() and settings_read_file().
 */
#include "supervisor/settings.h"
#include "common/directory.h"
#include "common/error.h"
#include "supervisor/settings_parts.h"
#include "supervisor/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct option_def settings_options[] = {
	[SETTINGS_WORKER_USER] = { "worker-user", OPTION_TEXT, NULL, "ublkd", 0, 0,
				   "the user that workers run as" },
	[SETTINGS_CONTROL_GROUP] = { "control-group", OPTION_TEXT, NULL, NULL, 0, 0,
				     "the group that may change exports (default: root only)" },
	[SETTINGS_READ_GROUP] = { "read-group", OPTION_TEXT, NULL, NULL, 0, 0,
				  "the group that may list exports (default: root only)" },
	[SETTINGS_ON_STOP] = { "on-stop", OPTION_CHOICE, "keep|remove", "keep", 0, 0,
			       "what happens to exports when ublkd stops" },
	[SETTINGS_MAX_JOBS] = { "max-jobs", OPTION_COUNT, NULL, "16", 1, 1024,
				"how many exports start at the same time, and how many recover" },
	[SETTINGS_OPTIONS] = { .name = NULL },
};

/* ---- what was found ---- */

void *settings_grow(void *array, unsigned n, size_t size)
{
	/* At 0, 1, 2, 4, 8 … */
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * size);
}

int settings_add_error(struct settings *settings, const char *file, unsigned line, const char *name,
		       const char *text)
{
	struct settings_error *errors, *e;
	char shown[PATH_MAX];

	errors = settings_grow(settings->errors, settings->nr_errors, sizeof(*errors));
	if (!errors)
		return -ENOMEM;
	settings->errors = errors;
	e = &errors[settings->nr_errors];
	*e = (struct settings_error){ .line = line };
	e->file = strdup(text_escape(file, shown, sizeof(shown)));
	e->name = name ? strdup(name) : NULL;
	e->text = strdup(text);
	if (!e->file || !e->text || (name && !e->name)) {
		free(e->file);
		free(e->name);
		free(e->text);
		return -ENOMEM;
	}
	settings->nr_errors++;
	return 0;
}

void settings_free_pairs(struct settings_pair *pairs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(pairs[i].name);
		free(pairs[i].value);
	}
	free(pairs);
}

static void free_export(struct settings_export *e)
{
	settings_free_pairs(e->options, e->nr_options);
	free(e->name);
	free(e->uri);
	free(e->file);
}

void settings_init(struct settings *settings)
{
	*settings = (struct settings){ 0 };
	option_defaults(settings_options, settings->values);
}

void settings_close(struct settings *settings)
{
	for (unsigned i = 0; i < SETTINGS_OPTIONS; i++)
		free(settings->texts[i]);
	for (unsigned i = 0; i < settings->nr_exports; i++)
		free_export(&settings->exports[i]);
	for (unsigned i = 0; i < settings->nr_errors; i++) {
		free(settings->errors[i].file);
		free(settings->errors[i].name);
		free(settings->errors[i].text);
	}
	free(settings->exports);
	free(settings->errors);
	*settings = (struct settings){ 0 };
}

void settings_error_text(const char *file, unsigned line, const char *text, char *out, size_t size)
{
	if (line)
		snprintf(out, size, "%s:%u: %s", file, line, text);
	else
		snprintf(out, size, "%s: %s", file, text);
}

const struct settings_error *settings_find_error(const struct settings *settings, const char *name)
{
	for (unsigned i = 0; i < settings->nr_errors; i++)
		if (settings->errors[i].name && !strcmp(settings->errors[i].name, name))
			return &settings->errors[i];
	return NULL;
}

const struct settings_export *settings_find(const struct settings *settings, const char *name)
{
	for (unsigned i = 0; i < settings->nr_exports; i++)
		if (!strcmp(settings->exports[i].name, name))
			return &settings->exports[i];
	return NULL;
}

/* ---- files ---- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && !strcmp(text + n - m, end);
}

/* A user who can write to a file or its directory decides what root opens. */
static int check_writers(const struct stat *status, struct error *err)
{
	if (directory_only_root_writes(status))
		return 0;
	return error_set(err, EPERM,
			 "users other than root can write to it: give it to root, and make it "
			 "writable only by its owner (chown root, chmod go-w)");
}

int settings_read_file(const char *path, char **text, size_t *size, struct error *err)
{
	struct stat status;
	size_t used = 0;
	ssize_t n;
	int fd, ret;

	*text = NULL;
	/* Not blocking: a FIFO would wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, errno, "cannot read it: %m");
	if (fstat(fd, &status)) {
		ret = error_set(err, errno, "cannot read it: %m");
	} else if (!S_ISREG(status.st_mode)) {
		ret = error_set(err, EINVAL, "not a regular file");
	} else {
		ret = check_writers(&status, err);
	}
	if (!ret) {
		*text = malloc(SETTINGS_FILE_MAX + 1);
		ret = *text ? 0 : error_set(err, ENOMEM, "no memory");
	}
	while (!ret && used <= SETTINGS_FILE_MAX) {
		n = read(fd, *text + used, SETTINGS_FILE_MAX + 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ret = error_set(err, errno, "cannot read it: %m");
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	if (!ret && used > SETTINGS_FILE_MAX)
		ret = error_set(err, EFBIG, "longer than %u bytes", SETTINGS_FILE_MAX);
	close(fd);
	if (ret) {
		free(*text);
		*text = NULL;
	}
	*size = used;
	return ret;
}

int settings_load_file(struct settings *settings, const char *path, const char *name)
{
	struct error err;
	char *text;
	size_t size;
	int ret = settings_read_file(path, &text, &size, &err);

	if (ret == -ENOENT && !name)
		return 0;
	if (ret) {
		settings->incomplete |= !name;
		return ret == -ENOMEM ? ret : settings_add_error(settings, path, 0, name, err.text);
	}
	ret = settings_parse(settings, path, name, text, size);
	free(text);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the files that declare an export, sorted; the caller frees them. */
static int find_files(struct settings *settings, const char *directory, char ***names, unsigned *nr)
{
	struct dirent *entry;
	struct error err;
	int ret = 0;
	DIR *dir;

	*names = NULL;
	*nr = 0;
	dir = opendir(directory);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir) {
		error_set(&err, errno, "cannot read it: %m");
		settings->incomplete = true;
		return settings_add_error(settings, directory, 0, NULL, err.text);
	}
	while (!ret && (errno = 0, entry = readdir(dir))) {
		char **more;

		if (*entry->d_name == '.' || !ends_in(entry->d_name, SETTINGS_SUFFIX))
			continue;
		more = settings_grow(*names, *nr, sizeof(*more));
		if (!more) {
			ret = -ENOMEM;
			break;
		}
		*names = more;
		more[*nr] = strdup(entry->d_name);
		if (!more[*nr])
			ret = -ENOMEM;
		else
			(*nr)++;
	}
	if (!ret && errno) {
		error_set(&err, errno, "cannot read it: %m");
		settings->incomplete = true;
		ret = settings_add_error(settings, directory, 0, NULL, err.text);
	}
	closedir(dir);
	if (*nr)
		qsort(*names, *nr, sizeof(**names), by_name);
	return ret;
}

static int load_exports(struct settings *settings, const char *directory)
{
	char **names, path[PATH_MAX];
	struct error err;
	unsigned nr;
	int ret;

	ret = find_files(settings, directory, &names, &nr);
	for (unsigned i = 0; i < nr; i++) {
		if (!ret && snprintf(path, sizeof(path), "%s/%s", directory, names[i]) < PATH_MAX) {
			names[i][strlen(names[i]) - strlen(SETTINGS_SUFFIX)] = 0;
			if (name_check(names[i], &err))
				ret = settings_add_error(settings, path, 0, NULL, err.text);
			else
				ret = settings_load_file(settings, path, names[i]);
		}
		free(names[i]);
	}
	free(names);
	return ret;
}

int settings_path_in(char path[PATH_MAX], const char *directory, const char *sub, struct error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", directory, sub) >= PATH_MAX)
		return error_set(err, ENAMETOOLONG, "%s: the path is too long", directory);
	return 0;
}

/* Adds an error if users other than root can write to the directory; it may be absent. */
static int check_directory(struct settings *settings, const char *path, bool *usable)
{
	struct stat status;
	struct error err;

	*usable = stat(path, &status) || !S_ISDIR(status.st_mode) || !check_writers(&status, &err);
	settings->incomplete |= !*usable;
	return *usable ? 0 : settings_add_error(settings, path, 0, NULL, err.text);
}

int settings_load(const char *directory, struct settings *settings)
{
	char path[PATH_MAX];
	struct error err;
	bool usable;
	int ret;

	settings_init(settings);
	if (settings_path_in(path, directory, SETTINGS_EXPORTS_DIRECTORY, &err))
		return settings_add_error(settings, directory, 0, NULL, err.text);
	ret = check_directory(settings, directory, &usable);
	if (ret || !usable)
		return ret;
	settings_path_in(path, directory, SETTINGS_MAIN_FILE, &err);
	ret = settings_load_file(settings, path, NULL);
	settings_path_in(path, directory, SETTINGS_EXPORTS_DIRECTORY, &err);
	if (!ret)
		ret = check_directory(settings, path, &usable);
	return ret || !usable ? ret : load_exports(settings, path);
}
