/* SPDX-License-Identifier: MIT */
/*
 * The configuration: DIRECTORY/ublkd.conf and DIRECTORY/exports.d/NAME.conf.
 *
 * Both are one kind of file: lines KEY = VALUE under [SECTION]s, comments on lines
 * of their own.  ublkd.conf has [ublkd], whose keys are settings_options, and may
 * have an [export NAME] for each export that it declares.  exports.d/NAME.conf
 * declares the export NAME, under [export] or no section at all.  An export has
 * `uri` and, as keys, the long options of `ublkctl run` and its backend's own.
 *
 * What is wrong with one declaration harms no other one: the result is a list of
 * good ones and a list of errors.  Nothing here is kept between calls; one thread
 * at a time for a struct settings.
 */
#ifndef UBLKD_SETTINGS_H
#define UBLKD_SETTINGS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/option.h"

struct error;

#define SETTINGS_DIRECTORY SYSCONFDIR "/ublkd"
#define SETTINGS_FILE_MAX  (1u << 20) /* bytes of a file */
#define SETTINGS_LINE_MAX  8192u      /* bytes of a line */

/* The keys of [ublkd]. */
extern const struct option_def settings_options[];

enum settings_option {
	SETTINGS_WORKER_USER,
	SETTINGS_CONTROL_GROUP,
	SETTINGS_READ_GROUP,
	SETTINGS_ON_STOP, /* word: enum settings_on_stop */
	SETTINGS_MAX_JOBS,
	SETTINGS_OPTIONS
};

enum settings_on_stop {
	SETTINGS_STOP_KEEP,
	SETTINGS_STOP_REMOVE
};

/* An option of an export, as it was written. */
struct settings_pair {
	char *name, *value;
	unsigned line; /* 0: it comes from no file */
};

/* A declared export: spec_open(), spec_set() … and spec_check() take it. */
struct settings_export {
	char *name;
	char *uri;
	struct settings_pair *options;
	unsigned nr_options;
	char *file;    /* that declares it, with its directory */
	unsigned line; /* of its section; 1 where it has none */
	unsigned uri_line;
	bool written; /* by settings_write_export() */
};

struct settings_error {
	char *file;
	unsigned line; /* 0: all of it */
	char *name;    /* of the export whose declaration is refused for it; NULL: none's */
	char *text;    /* cause and cure */
};

/* Owner: whoever called settings_load(), with all that it points to. */
struct settings {
	struct option_value values[SETTINGS_OPTIONS];
	char *texts[SETTINGS_OPTIONS];    /* what the values point into */
	unsigned lines[SETTINGS_OPTIONS]; /* of ublkd.conf; 0: the value is the default */
	struct settings_export *exports;  /* in the order of ublkd.conf, then by name */
	unsigned nr_exports;
	struct settings_error *errors;
	unsigned nr_errors;
	bool incomplete; /* an error may hide declarations of unknown exports: remove none */
};

/*
 * Reads directory's files.  What is missing is no error.  A setting that is refused
 * keeps its default, and of two exports of one name the first one stands.  Returns
 * 0, however many errors were found, or -ENOMEM; settings_close() is due in any case.
 */
int settings_load(const char *directory, struct settings *settings);

/*
 * Adds an error for each setting or export that is valid but does not fit this machine or
 * another export: an unknown user or group, missing storage, a file in exports.d that
 * settings_load() ignores, the same storage or device id twice.  directory and settings are
 * those of settings_load().  All exports remain.  Returns 0 or -ENOMEM.
 */
int settings_check(const char *directory, struct settings *settings);

void settings_close(struct settings *settings);

/*
 * The same for the text of one file, called file in messages.  name is that of the
 * export that exports.d/NAME.conf declares; NULL: the text is of ublkd.conf.
 * Adds to config, which settings_init() has made.
 */
void settings_init(struct settings *settings);
int settings_parse(struct settings *settings, const char *file, const char *name, const char *text,
		   size_t size);

/* Room for a file's path and an error's text. */
#define SETTINGS_ERROR_TEXT (PATH_MAX + 1200)
/* "FILE:LINE: text", or "FILE: text" with line 0, cut to fit. */
void settings_error_text(const char *file, unsigned line, const char *text, char *out, size_t size);

/* The first error of the declaration of that name, or NULL. */
const struct settings_error *settings_find_error(const struct settings *settings, const char *name);

/* The declaration of that name, or NULL. */
const struct settings_export *settings_find(const struct settings *settings, const char *name);

/*
 * Declares an export in directory/exports.d/NAME.conf, for every start to come; the
 * file is there as a whole, and on disk, or not at all.  What is there already and
 * says the same stays; what this function wrote is written again.  Returns 0, or with
 * err filled: -EINVAL (name, URI or options are refused, or cannot be written in such
 * a file), -EEXIST (a file that ublkd did not write declares it differently), or
 * another -errno.
 */
int settings_write_export(const char *directory, const char *name, const char *uri,
			  const struct settings_pair *options, unsigned nr_options,
			  struct error *err);

/* Whether that would succeed now, by writing as much and removing it again. */
int settings_check_export(const char *directory, const char *name, const char *uri,
			  const struct settings_pair *options, unsigned nr_options,
			  struct error *err);

/*
 * Removes what settings_write_export() wrote.  Returns 1, 0 where there is none, or with
 * err filled: -EEXIST (ublkd did not write the file), or another -errno.
 */
int settings_remove_export(const char *directory, const char *name, struct error *err);

#endif
