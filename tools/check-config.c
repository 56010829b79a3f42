/* SPDX-License-Identifier: MIT */
/*
 * ublkctl check-config: check the configuration, also against this machine; works without ublkd.
 */
#include "common/json_set.h"
#include "supervisor/settings.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void print_json(const char *directory, const struct settings *settings)
{
	json_t *json = json_object(), *array = json_array();

	for (unsigned i = 0; i < settings->nr_errors; i++) {
		const struct settings_error *e = &settings->errors[i];
		json_t *error = json_object();

		cli_set_text(error, "file", e->file);
		if (e->line)
			json_set_number(error, "line", e->line);
		cli_set_text(error, "export", e->name);
		cli_set_text(error, "reason", e->text);
		json_array_append_new(array, error);
	}
	cli_set_text(json, "directory", directory);
	json_set_number(json, "exports", settings->nr_exports);
	json_object_set_new(json, "errors", array);
	cli_print_json(json, false);
}

static void print_text(const char *directory, const struct settings *settings)
{
	char errors[24] = "no error", text[SETTINGS_ERROR_TEXT];

	for (unsigned i = 0; i < settings->nr_errors; i++) {
		const struct settings_error *e = &settings->errors[i];

		settings_error_text(e->file, e->line, e->text, text, sizeof(text));
		puts(text);
	}
	if (settings->nr_errors)
		snprintf(errors, sizeof(errors), "%u error%s", settings->nr_errors,
			 settings->nr_errors == 1 ? "" : "s");
	printf("%s: %u export%s, %s\n", directory, settings->nr_exports,
	       settings->nr_exports == 1 ? "" : "s", errors);
}

static int check_config_main(const struct verb *verb, int argc, char **argv)
{
	const char *directory = SETTINGS_DIRECTORY;
	struct settings settings;
	struct error err;
	struct stat st;
	int operand, status;
	bool json;

	status = cli_parse_json(verb, argc, argv, 0, 1, &json, &operand);
	if (status)
		return status;
	if (operand < argc)
		directory = argv[operand];
	if (stat(directory, &st)) {
		error_set(&err, errno, "%s: %s", directory, strerror(errno));
		return cli_fail(EXIT_FAILED, &err);
	}
	if (!S_ISDIR(st.st_mode)) {
		error_set(&err, ENOTDIR, "%s is not a directory", directory);
		return cli_fail(EXIT_FAILED, &err);
	}
	if (settings_load(directory, &settings) || settings_check(directory, &settings)) {
		error_set(&err, ENOMEM, "no memory");
		status = cli_fail(EXIT_FAILED, &err);
	} else if (json) {
		print_json(directory, &settings);
	} else {
		print_text(directory, &settings);
	}
	if (settings.nr_errors)
		status = EXIT_FAILED;
	settings_close(&settings);
	return status;
}

const struct verb verb_check_config = {
	.name = "check-config",
	.arguments = "[--json] [DIRECTORY]",
	.summary = "check ublkd's configuration for errors",
	.main = check_config_main,
};
