/* SPDX-License-Identifier: MIT */
/*
 * Parses the command line and prints help, both from tables of options.
 */
#include "common/log.h"
#include "config.h"
#include "engine/spec.h"
#include "engine/ublk_abi.h"
#include "tools/verbs.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONG_MAX_OPTIONS 64
#define OPTION_COLUMN    34    /* width of an option in a help text */
#define LONG_BASE        0x100 /* getopt's value of the first long option */

int cli_fail(int status, const struct error *err)
{
	log_line(LOG_LEVEL_ERROR, NULL, "%s", err->text);
	return status;
}

void cli_print_options(const struct option_def *table, const char *prefix)
{
	bool is_long = !strcmp(prefix, "--");
	char syntax[80], left[128];

	for (; table && table->name; table++) {
		option_syntax(table, syntax, sizeof(syntax));
		if (table->type == OPTION_FLAG && is_long)
			snprintf(left, sizeof(left), "%s%s", prefix, table->name);
		else
			snprintf(left, sizeof(left), "%s%s%s%s", prefix, table->name,
				 is_long ? " " : "=", syntax);
		printf("  %-*s ", OPTION_COLUMN, left);
		if (strlen(left) > OPTION_COLUMN)
			printf("\n  %*s ", OPTION_COLUMN, "");
		fputs(table->help, stdout);
		if (table->dflt && table->type != OPTION_FLAG)
			printf(" (default: %s)", table->dflt);
		putchar('\n');
	}
}

static bool takes_backend_options(const struct cli *cli)
{
	return cli->set_backend || cli->uri;
}

static int set_backend_option(const struct cli *cli, const char *assignment, struct error *err)
{
	return cli->set_backend ? cli->set_backend(cli->context, assignment, err)
				: cli_uri_set_backend(cli->uri, assignment, err);
}

static void print_help(const struct cli *cli)
{
	printf("usage: ublkctl %s %s\n%s\n\noptions:\n", cli->verb->name, cli->verb->arguments,
	       cli->verb->summary);
	for (const struct option_def *const *t = cli->tables; *t; t++)
		cli_print_options(*t, "--");
	if (takes_backend_options(cli))
		printf("  %-*s %s\n", OPTION_COLUMN, "-o KEY=VALUE",
		       "set an option of the backend; 'ublkctl backends' lists them");
	printf("  %-*s %s\n", OPTION_COLUMN, "--help", "print this help");
	printf("  %-*s %s\n", OPTION_COLUMN, "--version", "print the version");
}

void cli_print_version(void)
{
	printf("ublkctl %s\n", PACKAGE_VERSION);
}

static const struct option_def *def_at(const struct cli *cli, int index)
{
	for (const struct option_def *const *t = cli->tables; *t; t++) {
		int n = (int)option_count(*t);

		if (index < n)
			return &(*t)[index];
		index -= n;
	}
	return NULL;
}

/*
 * getopt accepts any unambiguous prefix of a name. ublkctl does not: a later version may add
 * an option that makes the prefix of a script ambiguous.
 */
static bool is_spelt_out(const char *argument, const struct option_def *def)
{
	size_t length = strlen(def->name);

	return !strncmp(argument, "--", 2) && !strncmp(argument + 2, def->name, length) &&
	       (!argument[2 + length] || argument[2 + length] == '=');
}

int cli_parse(const struct cli *cli, int argc, char **argv, int *operand, struct error *err)
{
	struct option longs[LONG_MAX_OPTIONS] = { { "help", no_argument, NULL, 'h' },
						  { "version", no_argument, NULL, 'V' } };
	const struct option_def *def;
	const char *name = cli->verb->name;
	int c, ret;

	for (int i = 0; i + 3 < LONG_MAX_OPTIONS && (def = def_at(cli, i)); i++)
		longs[i + 2] = (struct option){ def->name,
						def->type == OPTION_FLAG ? optional_argument
									 : required_argument,
						NULL, LONG_BASE + i };
	opterr = 0;
	optind = 0;
	while ((c = getopt_long(argc, argv, takes_backend_options(cli) ? ":ho:" : ":h", longs,
				NULL)) != -1) {
		if (c == 'h') {
			print_help(cli);
			exit(EXIT_DONE);
		}
		if (c == 'V') {
			cli_print_version();
			exit(EXIT_DONE);
		}
		if (c == '?' && optopt && optopt < LONG_BASE && optopt != 'h')
			return error_set(err, EINVAL,
					 "unknown option '-%c': 'ublkctl %s --help' lists them",
					 optopt, name);
		if (c == '?')
			return error_set(err, EINVAL,
					 "unknown option '%s': 'ublkctl %s --help' lists them",
					 argv[optind - 1], name);
		if (c == ':')
			return error_set(err, EINVAL, "'%s' needs a value: see 'ublkctl %s --help'",
					 argv[optind - 1], name);
		if (c >= LONG_BASE && !is_spelt_out(argv[optind - 1 - (optarg == argv[optind - 1])],
						    def_at(cli, c - LONG_BASE)))
			return error_set(err, EINVAL, "unknown option '%s': write --%s in full",
					 argv[optind - 1 - (optarg == argv[optind - 1])],
					 def_at(cli, c - LONG_BASE)->name);
		if (c == 'o')
			ret = set_backend_option(cli, optarg, err);
		else
			ret = cli->set(cli->context, def_at(cli, c - LONG_BASE), optarg, err);
		if (ret)
			return ret;
	}
	*operand = optind;
	return 0;
}

int cli_uri_set(struct cli_uri *uri, const struct option_def *def, const char *text,
		struct error *err)
{
	if (!uri->is_open)
		return 0;
	return option_find(spec_options, def->name) >= 0
		       ? spec_set(&uri->spec, def->name, text, err)
		       : spec_set_backend_option(&uri->spec, def->name, text, err);
}

int cli_uri_set_backend(struct cli_uri *uri, const char *assignment, struct error *err)
{
	return uri->is_open ? spec_set_backend(&uri->spec, assignment, err) : 0;
}

int cli_parse_uri(const struct cli *cli, int argc, char **argv, struct error *err)
{
	struct cli_uri *uri = cli->uri;
	int operand, ret;

	uri->is_open = false;
	ret = cli_parse(cli, argc, argv, &operand, err);
	if (ret)
		return ret;
	if (argc - operand != 1)
		return error_set(err, EINVAL, "%s: ublkctl %s %s",
				 argc == operand ? "the URI is missing" : "expected one URI",
				 cli->verb->name, cli->verb->arguments);
	ret = spec_open(&uri->spec, argv[operand], err);
	if (ret)
		return ret;
	uri->is_open = true;
	ret = cli_parse(cli, argc, argv, &operand, err);
	return ret ? ret : spec_check(&uri->spec, err);
}

int cli_set_flag(void *context, const struct option_def *def, const char *text, struct error *err)
{
	struct option_value value;
	int ret = option_parse(def, text, &value, err);

	if (!ret)
		*(bool *)context = value.number;
	return ret;
}

int cli_parse_json(const struct verb *verb, int argc, char **argv, int least, int most, bool *json,
		   int *operand)
{
	static const struct option_def json_options[] = { OPTION_DEF_JSON, { .name = NULL } };
	static const struct option_def *const tables[] = { json_options, NULL };
	struct cli cli = { .verb = verb, .tables = tables, .set = cli_set_flag, .context = json };
	struct error err;

	*json = false;
	if (cli_parse(&cli, argc, argv, operand, &err))
		return cli_fail(EXIT_USAGE, &err);
	if (argc - *operand < least || argc - *operand > most) {
		if (argc - *operand < least)
			error_set(&err, EINVAL, "expected one argument: ublkctl %s %s", verb->name,
				  verb->arguments);
		else
			error_set(&err, EINVAL, "unexpected argument '%s': ublkctl %s %s",
				  argv[*operand + most], verb->name, verb->arguments);
		return cli_fail(EXIT_USAGE, &err);
	}
	return EXIT_DONE;
}

/* "memory:" and so on. A relative path has no scheme, and could be any text. */
static bool begins_with_scheme(const char *text)
{
	const struct backend *b;

	for (unsigned i = 0; (b = backend_at(i)); i++) {
		size_t length = strlen(b->scheme);

		/* nbd has variants, such as nbd+unix and nbds. */
		if (!strncmp(text, b->scheme, length) && strchr(":+s", text[length]) &&
		    strchr(text, ':'))
			return true;
	}
	return *text == '/';
}

bool cli_is_named(const char *operand)
{
	const char *equals = strchr(operand, '=');

	/* The path of a file, or a URI, may contain '=', too. */
	return equals && equals > operand && begins_with_scheme(equals + 1) &&
	       !begins_with_scheme(operand) && access(operand, F_OK);
}

char *cli_split_name(char **operand)
{
	char *name = *operand, *equals = strchr(name, '=');
	size_t valid = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789._-");

	if (!equals || equals == name || (name + valid != equals && !cli_is_named(name)))
		return NULL;
	*equals = 0;
	*operand = equals + 1;
	return name;
}

json_t *cli_options_json(const struct option_def *table)
{
	json_t *array = json_array();
	char syntax[80];

	for (; table && table->name; table++) {
		json_t *option;

		option_syntax(table, syntax, sizeof(syntax));
		option = json_pack("{s:s, s:s, s:s}", "name", table->name, "value", syntax, "help",
				   table->help);
		cli_set_text(option, "default", table->dflt);
		json_array_append_new(array, option);
	}
	return array;
}

void cli_set_text(json_t *json, const char *key, const char *text)
{
	char escaped[4096];

	if (text && json_object_set_new(json, key, json_string(text)))
		json_object_set_new(json, key,
				    json_string(text_escape(text, escaped, sizeof(escaped))));
}

void cli_print_json(json_t *value, bool compact)
{
	json_dumpf(value, stdout,
		   (compact ? JSON_COMPACT : JSON_INDENT(2)) | JSON_PRESERVE_ORDER |
			   JSON_ENSURE_ASCII);
	putchar('\n');
	fflush(stdout);
	json_decref(value);
}

int cli_device_id(const char *text, uint32_t *id, struct error *err)
{
	static const char *const prefixes[] = { UBLK_BLOCK_PREFIX, UBLK_CHAR_PREFIX, "ublkb",
						"ublkc" };
	const char *digits = text;
	unsigned long n;
	char *end;

	for (unsigned i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		size_t len = strlen(prefixes[i]);

		if (!strncmp(text, prefixes[i], len)) {
			digits = text + len;
			break;
		}
	}
	errno = 0;
	n = strtoul(digits, &end, 10);
	if (*digits < '0' || *digits > '9' || *end || errno || n >= UBLK_ID_AUTO)
		return error_set(
			err, EINVAL,
			"'%s' is not a ublk device: use its path, such as " UBLK_BLOCK_PREFIX
			"0, or its number",
			text);
	*id = (uint32_t)n;
	return 0;
}
