/* SPDX-License-Identifier: MIT */
/*
 * ublkctl's verbs, one file each, and what their files share.
 */
#ifndef UBLKD_VERBS_H
#define UBLKD_VERBS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/option.h"
#include "engine/spec.h"

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1, /* the thing itself failed */
	EXIT_USAGE = 2,  /* the command line or a parameter is invalid */
	EXIT_TIMEOUT = 3 /* wait: not yet */
};

struct verb {
	const char *name;
	const char *arguments; /* "[OPTIONS] URI" */
	const char *summary;   /* one line, no full stop */
	/* argv[0] is the verb's name.  Returns an exit status. */
	int (*main)(const struct verb *verb, int argc, char **argv);
};

extern const struct verb verb_backends, verb_check_config, verb_export, verb_features, verb_list,
	verb_monitor, verb_nbd_list, verb_reload, verb_remove, verb_resize, verb_resume, verb_run,
	verb_show, verb_shutdown, verb_stats, verb_suspend, verb_upgrade, verb_wait;

/* Options that several verbs have, for their tables. */
#define OPTION_DEF_JSON                                              \
	{                                                            \
		"json", OPTION_FLAG, NULL, "off", 0, 0, "print JSON" \
	}

#define OPTION_DEF_CREATE                                                                          \
	{                                                                                          \
		"create", OPTION_SIZE, NULL, NULL, 512, 0,                                         \
			"file: create a sparse file of this size; an existing file is not touched" \
	}

/* The URI of a verb, with the options that apply to it. */
struct cli_uri {
	struct spec spec;
	bool is_open; /* spec_close() is due */
};

/*
 * Parses argv by tables (a NULL-terminated array of option tables; `set` is called for each
 * option, with NULL as text for a flag alone) and, where there is set_backend or uri, by
 * "-o KEY=VALUE". Operands are left in argv from *operand on. --help and --version print and
 * exit 0. Returns 0, or -EINVAL with err filled.
 */
struct cli {
	const struct verb *verb;
	const struct option_def *const *tables;
	int (*set)(void *context, const struct option_def *def, const char *text,
		   struct error *err);
	/* NULL: cli_uri_set_backend(), where there is uri */
	int (*set_backend)(void *context, const char *assignment, struct error *err);
	void *context;
	struct cli_uri *uri; /* of cli_parse_uri(); NULL: the verb takes none */
};
int cli_parse(const struct cli *cli, int argc, char **argv, int *operand, struct error *err);

/*
 * cli_parse() for a verb with one operand, a URI. The URI decides which options are valid and may
 * come last, so the line is parsed twice. cli->uri is open from the first reading on. Returns 0, or
 * -errno with err filled.
 */
int cli_parse_uri(const struct cli *cli, int argc, char **argv, struct error *err);

/*
 * Sets an option of every export, or of the URI's backend; once more the same does no harm.
 * Does nothing before the URI is open. Returns 0, or -EINVAL with err filled.
 */
int cli_uri_set(struct cli_uri *uri, const struct option_def *def, const char *text,
		struct error *err);
int cli_uri_set_backend(struct cli_uri *uri, const char *assignment, struct error *err);

/*
 * Splits a name off a URI, as in "data=/var/data.img": returns the name and sets *operand to the
 * URI; NULL: there is no name. The caller checks the name: "a b=memory:1M" has an invalid one.
 */
char *cli_split_name(char **operand);

/* Whether an operand can only mean NAME=URI: no such file, and a URI follows '='. */
bool cli_is_named(const char *operand);

/* A struct cli's set for a verb with one flag: context is the bool that it sets. */
int cli_set_flag(void *context, const struct option_def *def, const char *text, struct error *err);

/* cli_parse() for a verb whose only option is --json, and which takes `most` operands at most. */
int cli_parse_json(const struct verb *verb, int argc, char **argv, int least, int most, bool *json,
		   int *operand);

/* Prints err as the program's one line and returns status. */
int cli_fail(int status, const struct error *err);

void cli_print_version(void);

/* Prints a table's options as help does. */
void cli_print_options(const struct option_def *table, const char *prefix);

/* An array of a table's options, as 'backends --json' shows them. */
json_t *cli_options_json(const struct option_def *table);

/* Sets a member to text; text that is not UTF-8 is escaped. Leaves the member out where text is
   NULL. */
void cli_set_text(json_t *json, const char *key, const char *text);

/* Prints value on stdout, one line if compact, and releases it. */
void cli_print_json(json_t *value, bool compact);

/* The device id of "/dev/ublkb3", "ublkb3" or "3".  Returns 0, or -EINVAL with err filled. */
int cli_device_id(const char *text, uint32_t *id, struct error *err);

#endif
