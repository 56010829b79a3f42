/* SPDX-License-Identifier: MIT */
/*
 * ublkctl check-config: what is wrong with the configuration; works without ublkd.
 */
#include "supervisor/config.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static void print_json(const struct config *config)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < config->nr_errors; i++) {
		const struct config_error *e = &config->errors[i];

		json_array_append_new(
			array,
			json_pack("{s:s, s:o, s:o, s:s}", "file", e->file, "line",
				  e->line ? json_integer(e->line) : json_null(), "export",
				  e->name ? json_string(e->name) : json_null(), "reason", e->text));
	}
	cli_print_json(array, false);
}

static void print_text(const struct config *config)
{
	for (unsigned i = 0; i < config->nr_errors; i++) {
		const struct config_error *e = &config->errors[i];

		if (e->line)
			printf("%s:%u: %s\n", e->file, e->line, e->text);
		else
			printf("%s: %s\n", e->file, e->text);
	}
}

static int check_config_main(const struct verb *verb, int argc, char **argv)
{
	const char *folder = CONFIG_FOLDER;
	struct config config;
	struct error err;
	struct stat st;
	int operand, status;
	bool json;

	status = cli_parse_json(verb, argc, argv, 0, 1, &json, &operand);
	if (status)
		return status;
	if (operand < argc) {
		folder = argv[operand];
		if (stat(folder, &st) || !S_ISDIR(st.st_mode)) {
			error_set(&err, ENOTDIR, "%s is no folder", folder);
			return cli_fail(EXIT_FAILED, &err);
		}
	}
	if (config_load(folder, &config)) {
		error_set(&err, ENOMEM, "no memory");
		status = cli_fail(EXIT_FAILED, &err);
	} else if (json) {
		print_json(&config);
	} else {
		print_text(&config);
	}
	if (config.nr_errors)
		status = EXIT_FAILED;
	config_close(&config);
	return status;
}

const struct verb verb_check_config = {
	.name = "check-config",
	.arguments = "[--json] [FOLDER]",
	.summary = "say what is wrong with ublkd's configuration",
	.main = check_config_main,
};
