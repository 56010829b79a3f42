/* SPDX-License-Identifier: MIT */
#include "supervisor/config.h"
#include "common/directory.h"
#include "common/error.h"
#include "supervisor/config_parts.h"
#include "supervisor/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct option_def config_options[] = {
	[CONFIG_WORKER_USER] = { "worker-user", OPTION_TEXT, NULL, "ublkd", 0, 0,
				 "the user that workers run as" },
	[CONFIG_CONTROL_GROUP] = { "control-group", OPTION_TEXT, NULL, NULL, 0, 0,
				   "the group that may change exports (default: root only)" },
	[CONFIG_READ_GROUP] = { "read-group", OPTION_TEXT, NULL, NULL, 0, 0,
				"the group that may look at exports (default: that of the socket)" },
	[CONFIG_ON_STOP] = { "on-stop", OPTION_CHOICE, "keep|remove", "keep", 0, 0,
			     "what becomes of exports when ublkd is stopped" },
	[CONFIG_MAX_JOBS] = { "max-jobs", OPTION_COUNT, NULL, "16", 1, 1024,
			      "exports that are started at a time, and as many that are recovered" },
	[CONFIG_OPTIONS] = { .name = NULL },
};

/* ---- what was found ---- */

void *config_grow(void *array, unsigned n, size_t size)
{
	/* At 0, 1, 2, 4, 8 … */
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * size);
}

int config_add_error(struct config *config, const char *file, unsigned line, const char *name,
		     const char *text)
{
	struct config_error *errors, *e;
	char shown[PATH_MAX];

	errors = config_grow(config->errors, config->nr_errors, sizeof(*errors));
	if (!errors)
		return -ENOMEM;
	config->errors = errors;
	e = &errors[config->nr_errors];
	*e = (struct config_error){ .line = line };
	e->file = strdup(text_escape(file, shown, sizeof(shown)));
	e->name = name ? strdup(name) : NULL;
	e->text = strdup(text);
	if (!e->file || !e->text || (name && !e->name)) {
		free(e->file);
		free(e->name);
		free(e->text);
		return -ENOMEM;
	}
	config->nr_errors++;
	return 0;
}

void config_free_pairs(struct config_pair *pairs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(pairs[i].name);
		free(pairs[i].value);
	}
	free(pairs);
}

static void free_export(struct config_export *e)
{
	config_free_pairs(e->options, e->nr_options);
	free(e->name);
	free(e->uri);
	free(e->file);
}

void config_init(struct config *config)
{
	*config = (struct config){ 0 };
	option_defaults(config_options, config->values);
}

void config_close(struct config *config)
{
	for (unsigned i = 0; i < CONFIG_OPTIONS; i++)
		free(config->texts[i]);
	for (unsigned i = 0; i < config->nr_exports; i++)
		free_export(&config->exports[i]);
	for (unsigned i = 0; i < config->nr_errors; i++) {
		free(config->errors[i].file);
		free(config->errors[i].name);
		free(config->errors[i].text);
	}
	free(config->exports);
	free(config->errors);
	*config = (struct config){ 0 };
}

const struct config_export *config_find(const struct config *config, const char *name)
{
	for (unsigned i = 0; i < config->nr_exports; i++)
		if (!strcmp(config->exports[i].name, name))
			return &config->exports[i];
	return NULL;
}

/* ---- files ---- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && !strcmp(text + n - m, end);
}

/* Whoever can write a file or its directory decides what root opens. */
static int check_writers(const struct stat *status, struct error *err)
{
	if (directory_only_root_writes(status))
		return 0;
	return error_set(err, EPERM,
			 "others than root can write it: give it to root, and take that right from "
			 "the group and from others (chown root, chmod go-w)");
}

int config_read_file(const char *path, char **text, size_t *size, struct error *err)
{
	struct stat status;
	size_t used = 0;
	ssize_t n;
	int fd, ret;

	*text = NULL;
	/* Not blocking: a FIFO would wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, errno, "it cannot be read: %m");
	if (fstat(fd, &status)) {
		ret = error_set(err, errno, "it cannot be read: %m");
	} else if (!S_ISREG(status.st_mode)) {
		ret = error_set(err, EINVAL, "it is no regular file");
	} else {
		ret = check_writers(&status, err);
	}
	if (!ret) {
		*text = malloc(CONFIG_FILE_MAX + 1);
		ret = *text ? 0 : error_set(err, ENOMEM, "no memory");
	}
	while (!ret && used <= CONFIG_FILE_MAX) {
		n = read(fd, *text + used, CONFIG_FILE_MAX + 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ret = error_set(err, errno, "it cannot be read: %m");
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	if (!ret && used > CONFIG_FILE_MAX)
		ret = error_set(err, EFBIG, "it is longer than %u bytes", CONFIG_FILE_MAX);
	close(fd);
	if (ret) {
		free(*text);
		*text = NULL;
	}
	*size = used;
	return ret;
}

int config_load_file(struct config *config, const char *path, const char *name)
{
	struct error err;
	char *text;
	size_t size;
	int ret = config_read_file(path, &text, &size, &err);

	if (ret == -ENOENT && !name)
		return 0;
	if (ret)
		return ret == -ENOMEM ? ret : config_add_error(config, path, 0, name, err.text);
	ret = config_parse(config, path, name, text, size);
	free(text);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the files that declare an export, sorted; the caller frees them. */
static int find_files(struct config *config, const char *folder, char ***names, unsigned *nr)
{
	struct dirent *entry;
	struct error err;
	int ret = 0;
	DIR *dir;

	*names = NULL;
	*nr = 0;
	dir = opendir(folder);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir) {
		error_set(&err, errno, "it cannot be read: %m");
		return config_add_error(config, folder, 0, NULL, err.text);
	}
	while (!ret && (entry = readdir(dir))) {
		char **more;

		if (*entry->d_name == '.' || !ends_in(entry->d_name, CONFIG_SUFFIX))
			continue;
		more = config_grow(*names, *nr, sizeof(*more));
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
	closedir(dir);
	if (*nr)
		qsort(*names, *nr, sizeof(**names), by_name);
	return ret;
}

static int load_exports(struct config *config, const char *folder)
{
	char **names, path[PATH_MAX];
	struct error err;
	unsigned nr;
	int ret;

	ret = find_files(config, folder, &names, &nr);
	for (unsigned i = 0; i < nr; i++) {
		if (!ret && snprintf(path, sizeof(path), "%s/%s", folder, names[i]) < PATH_MAX) {
			names[i][strlen(names[i]) - strlen(CONFIG_SUFFIX)] = 0;
			if (name_check(names[i], &err))
				ret = config_add_error(config, path, 0, NULL, err.text);
			else
				ret = config_load_file(config, path, names[i]);
		}
		free(names[i]);
	}
	free(names);
	return ret;
}

int config_path_in(char path[PATH_MAX], const char *folder, const char *sub, struct error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", folder, sub) >= PATH_MAX)
		return error_set(err, ENAMETOOLONG, "%s: the path is too long", folder);
	return 0;
}

/* Adds an error where others can write this directory; one that is absent is none. */
static int check_directory(struct config *config, const char *path, bool *usable)
{
	struct stat status;
	struct error err;

	*usable = stat(path, &status) || !S_ISDIR(status.st_mode) || !check_writers(&status, &err);
	return *usable ? 0 : config_add_error(config, path, 0, NULL, err.text);
}

int config_load(const char *folder, struct config *config)
{
	char path[PATH_MAX];
	struct error err;
	bool usable;
	int ret;

	config_init(config);
	if (config_path_in(path, folder, CONFIG_EXPORTS_FOLDER, &err))
		return config_add_error(config, folder, 0, NULL, err.text);
	ret = check_directory(config, folder, &usable);
	if (ret || !usable)
		return ret;
	config_path_in(path, folder, CONFIG_MAIN_FILE, &err);
	ret = config_load_file(config, path, NULL);
	config_path_in(path, folder, CONFIG_EXPORTS_FOLDER, &err);
	if (!ret)
		ret = check_directory(config, path, &usable);
	return ret || !usable ? ret : load_exports(config, path);
}
