/* SPDX-License-Identifier: MIT */
/*
 * Writes and removes exports.d/NAME.conf for exports that a client wants back at boot (--persist).
 *
 * Only a file that begins with SETTINGS_MARK is replaced or removed; a file that an administrator
 * wrote is refused. A new file gets a temporary name, is synced and renamed, so that a crash leaves
 * the old file or the new one, complete.
 *
 * The format cannot hold every URI or option, for example a value that ends in a blank, and a file
 * that lost a character would bring up another disk at boot. make_text() parses its own text again
 * and refuses a declaration that does not come back unchanged.
 *
 * A client learns before its device is made that --persist cannot succeed: with check_only the same
 * path runs, without the rename. Read write_export() first, then make_text(), write_text() and
 * replace_file().
 */
#include "common/directory.h"
#include "common/error.h"
#include "supervisor/settings.h"
#include "supervisor/settings_parts.h"
#include "supervisor/name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Readable for all users: it contains no secrets, and check-config works for everybody. */
#define DIRECTORY_MODE 0755

static bool declares_same(const struct settings_export *e, const char *uri,
			  const struct settings_pair *options, unsigned nr_options)
{
	bool same = !strcmp(e->uri, uri) && e->nr_options == nr_options;

	for (unsigned i = 0; same && i < nr_options; i++) {
		bool found = false;

		for (unsigned j = 0; j < nr_options; j++)
			if (!strcmp(e->options[j].name, options[i].name))
				found = !strcmp(e->options[j].value, options[i].value);
		same = found;
	}
	return same;
}

/* Writes the text of an export's file, and parses it again to check that it means the same. */
static int make_text(const char *name, const char *uri, const struct settings_pair *options,
		     unsigned nr_options, char **text, size_t *size, struct error *err)
{
	struct settings settings;
	FILE *f;
	int ret;

	*text = NULL;
	f = open_memstream(text, size);
	if (!f)
		return error_set(err, ENOMEM, "no memory");
	fprintf(f, SETTINGS_MARK ": 'ublkctl remove %s' removes it.\n[export]\nuri = %s\n", name,
		uri);
	for (unsigned i = 0; i < nr_options; i++)
		fprintf(f, "%s = %s\n", options[i].name, options[i].value);
	if (fclose(f)) {
		free(*text);
		return error_set(err, ENOMEM, "no memory");
	}
	settings_init(&settings);
	ret = settings_parse(&settings, name, name, *text, *size);
	if (ret)
		error_set(err, ret, "no memory");
	else if (settings.nr_errors)
		ret = error_set(err, EINVAL, "%s", settings.errors[0].text);
	else if (settings.nr_exports != 1 ||
		 !declares_same(&settings.exports[0], uri, options, nr_options))
		ret = error_set(err, EINVAL,
				"%s: the URI or an option contains text that a configuration file "
				"cannot hold, such as a space at its end",
				name);
	settings_close(&settings);
	if (ret)
		free(*text);
	return ret;
}

/*
 * Compares the file at path with a declaration. A file that declares the same is left alone, even
 * if an administrator wrote it.  Returns 0: no file, or one that ublkd wrote (*there); 1: the same
 * declaration; or -EEXIST (an administrator's file) or another -errno with err filled.
 */
static int compare_file(const char *path, const char *name, const char *uri,
			const struct settings_pair *options, unsigned nr_options, bool *there,
			struct error *err)
{
	const struct settings_export *found;
	struct settings settings;
	char *text;
	size_t size;
	int ret = settings_read_file(path, &text, &size, err);

	*there = ret != -ENOENT;
	if (!*there)
		return 0;
	if (ret)
		return error_prefix(err, "%s", path);
	settings_init(&settings);
	ret = settings_parse(&settings, path, name, text, size);
	found = name ? settings_find(&settings, name) : NULL;
	if (ret)
		error_set(err, ret, "no memory");
	else if (found && uri && declares_same(found, uri, options, nr_options))
		ret = 1;
	else if (strncmp(text, SETTINGS_MARK,
			 size < strlen(SETTINGS_MARK) ? size : strlen(SETTINGS_MARK)) ||
		 size < strlen(SETTINGS_MARK))
		ret = error_set(err, EEXIST,
				"%s declares the export, and was not written by ublkd: edit that "
				"file",
				path);
	settings_close(&settings);
	free(text);
	return ret;
}

/* -EEXIST if ublkd.conf has an export of that name; 1: with the same declaration. */
static int compare_main_file(const char *directory, const char *name, const char *uri,
			     const struct settings_pair *options, unsigned nr_options,
			     struct error *err)
{
	const struct settings_export *found;
	char path[PATH_MAX];
	struct settings settings;
	int ret = settings_path_in(path, directory, SETTINGS_MAIN_FILE, err);

	if (ret)
		return ret;
	settings_init(&settings);
	ret = settings_load_file(&settings, path, NULL);
	found = settings_find(&settings, name);
	if (ret)
		error_set(err, ret, "no memory");
	else if (found && declares_same(found, uri, options, nr_options))
		ret = 1;
	else if (found)
		ret = error_set(err, EEXIST,
				"%s, line %u, declares the export '%s' differently: edit it there",
				found->file, found->line, name);
	settings_close(&settings);
	return ret;
}

static int write_all(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			size -= (size_t)n;
		}
	}
	return fsync(fd) ? -errno : 0;
}

/* check_only: writes the temporary file as a test, and removes it again. */
static int replace_file(const char *directory, const char *name, bool there, const char *text,
			size_t size, bool check_only, struct error *err)
{
	char path[PATH_MAX + 80], temporary[PATH_MAX + 80];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s" SETTINGS_SUFFIX, directory, name);
	/* No export's file begins with a dot, so that it is never read. */
	snprintf(temporary, sizeof(temporary), "%s/.%s" SETTINGS_SUFFIX, directory, name);
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_set(err, errno, "cannot create %s: %m", temporary);
	ret = fchmod(fd, 0644) ? -errno : write_all(fd, text, size);
	/* Test with twice the size: the real file has recorded options, too. */
	if (!ret && check_only)
		ret = write_all(fd, text, size);
	close(fd);
	if (ret)
		goto fail;
	if (check_only) {
		unlink(temporary);
		return 0;
	}
	if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, there ? 0 : RENAME_NOREPLACE)) {
		ret = -errno;
		goto fail;
	}
	return directory_sync(directory, err);

fail:
	unlink(temporary);
	return error_set(err, ret, "cannot write %s: %s", path, strerror(-ret));
}

/* Returns 0, also where the export is declared so already, or -errno with err filled. */
static int write_text(const char *directory, const char *name, const char *uri,
		      const struct settings_pair *options, unsigned nr_options, const char *text,
		      size_t size, bool check_only, struct error *err)
{
	char exports[PATH_MAX], path[PATH_MAX + 80];
	bool there;
	int ret = settings_path_in(exports, directory, SETTINGS_EXPORTS_DIRECTORY, err);

	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/%s" SETTINGS_SUFFIX, exports, name);
	ret = compare_main_file(directory, name, uri, options, nr_options, err);
	if (ret)
		return ret == 1 ? 0 : ret;
	ret = compare_file(path, name, uri, options, nr_options, &there, err);
	if (ret)
		return ret == 1 ? 0 : ret;
	ret = directory_make(directory, DIRECTORY_MODE, err);
	if (ret)
		return ret;
	ret = directory_make(exports, DIRECTORY_MODE, err);
	return ret ? ret : replace_file(exports, name, there, text, size, check_only, err);
}

static int write_export(const char *directory, const char *name, const char *uri,
			const struct settings_pair *options, unsigned nr_options, bool check_only,
			struct error *err)
{
	size_t size;
	char *text;
	int ret = name_check(name, err);

	if (ret)
		return ret;
	ret = make_text(name, uri, options, nr_options, &text, &size, err);
	if (ret)
		return ret;
	ret = write_text(directory, name, uri, options, nr_options, text, size, check_only, err);
	free(text);
	return ret;
}

int settings_write_export(const char *directory, const char *name, const char *uri,
			  const struct settings_pair *options, unsigned nr_options,
			  struct error *err)
{
	return write_export(directory, name, uri, options, nr_options, false, err);
}

int settings_check_export(const char *directory, const char *name, const char *uri,
			  const struct settings_pair *options, unsigned nr_options,
			  struct error *err)
{
	return write_export(directory, name, uri, options, nr_options, true, err);
}

int settings_remove_export(const char *directory, const char *name, struct error *err)
{
	char exports[PATH_MAX], path[PATH_MAX + 80];
	bool there;
	int ret = name_check(name, err);

	if (!ret)
		ret = settings_path_in(exports, directory, SETTINGS_EXPORTS_DIRECTORY, err);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/%s" SETTINGS_SUFFIX, exports, name);
	ret = compare_file(path, name, NULL, NULL, 0, &there, err);
	if (ret || !there)
		return ret;
	if (unlink(path) && errno != ENOENT)
		return error_set(err, errno, "cannot remove %s: %m", path);
	ret = directory_sync(exports, err);
	return ret ? ret : 1;
}
