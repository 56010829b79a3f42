/* SPDX-License-Identifier: MIT */
/*
 * The configuration: FOLDER/ublkd.conf and FOLDER/exports.d/NAME.conf.
 *
 * Both are one kind of file: lines KEY = VALUE under [SECTION]s, comments on lines
 * of their own.  ublkd.conf has [ublkd], whose keys are config_options, and may
 * have an [export NAME] for each export that it declares.  exports.d/NAME.conf
 * declares the export NAME, under [export] or no section at all.  An export has
 * `uri` and, as keys, the long options of `ublkctl run` and its backend's own.
 *
 * What is wrong with one declaration harms no other one: the result is a list of
 * good ones and a list of errors.  Nothing here is kept between calls; one thread
 * at a time for a struct config.
 */
#ifndef UBLKD_CONFIG_H
#define UBLKD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "common/option.h"

struct error;

#define CONFIG_FOLDER   SYSCONFDIR "/ublkd"
#define CONFIG_FILE_MAX (1u << 20) /* bytes of a file */
#define CONFIG_LINE_MAX 8192u      /* bytes of a line */

/* The keys of [ublkd]. */
extern const struct option_def config_options[];

enum config_option {
	CONFIG_WORKER_USER,
	CONFIG_CONTROL_GROUP,
	CONFIG_READ_GROUP,
	CONFIG_ON_STOP, /* word: enum config_on_stop */
	CONFIG_MAX_JOBS,
	CONFIG_OPTIONS
};

enum config_on_stop {
	CONFIG_STOP_KEEP,
	CONFIG_STOP_REMOVE
};

/* An option of an export, as it was written. */
struct config_pair {
	char *name, *value;
	unsigned line; /* 0: it comes from no file */
};

/* A declared export: spec_open(), spec_set() … and spec_check() take it. */
struct config_export {
	char *name;
	char *uri;
	struct config_pair *options;
	unsigned nr_options;
	char *file;    /* that declares it, with its folder */
	unsigned line; /* of its section; 1 where it has none */
	bool written;  /* by config_write_export() */
};

struct config_error {
	char *file;
	unsigned line; /* 0: all of it */
	char *name;    /* of the export whose declaration is refused for it; NULL: none's */
	char *text;    /* cause and cure */
};

/* Owner: whoever called config_load(), with all that it points to. */
struct config {
	struct option_value values[CONFIG_OPTIONS];
	char *texts[CONFIG_OPTIONS];   /* what the values point into */
	struct config_export *exports; /* in the order of ublkd.conf, then by name */
	unsigned nr_exports;
	struct config_error *errors;
	unsigned nr_errors;
};

/*
 * Reads folder's files.  What is missing is no error.  A setting that is refused
 * keeps its default, and of two exports of one name the first one stands.  Returns
 * 0, however many errors were found, or -ENOMEM; config_close() is due in any case.
 */
int config_load(const char *folder, struct config *config);
void config_close(struct config *config);

/*
 * The same for the text of one file, called file in messages.  name is that of the
 * export that exports.d/NAME.conf declares; NULL: the text is of ublkd.conf.
 * Adds to config, which config_init() has made.
 */
void config_init(struct config *config);
int config_parse(struct config *config, const char *file, const char *name, const char *text,
		 size_t size);

/* The declaration of that name, or NULL. */
const struct config_export *config_find(const struct config *config, const char *name);

/*
 * Declares an export in folder/exports.d/NAME.conf, for every start to come; the
 * file is there as a whole, and on disk, or not at all.  What is there already and
 * says the same stays; what this function wrote is written anew.  Returns 0, or with
 * err filled: -EINVAL (name, URI or options are refused, or cannot be written in such
 * a file), -EEXIST (somebody else's file declares it otherwise), or what the system
 * said.
 */
int config_write_export(const char *folder, const char *name, const char *uri,
			const struct config_pair *options, unsigned nr_options, struct error *err);

/* Whether that would succeed now, by writing as much and removing it again. */
int config_check_export(const char *folder, const char *name, const char *uri,
			const struct config_pair *options, unsigned nr_options, struct error *err);

/*
 * Removes what config_write_export() wrote; 0 where there is none.  Returns 0, or with
 * err filled: -EEXIST (the file is somebody else's), or what the system said.
 */
int config_remove_export(const char *folder, const char *name, struct error *err);

#endif
