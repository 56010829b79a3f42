/* SPDX-License-Identifier: MIT */
/*
 * ublkctl upgrade: replaces running workers with the installed version.
 */
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>

static int upgrade_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = {
		{ "all", OPTION_FLAG, NULL, "off", 0, 0, "upgrade every export" },
		OPTION_DEF_JSON,
		{ .name = NULL },
	};
	bool json = false, all = false;
	const struct client_flag flags[] = { { "json", &json }, { "all", &all }, { .name = NULL } };
	struct client_words words = { .flags = flags };
	struct error err;
	json_t *reply;
	int operand, status;

	status = client_parse(verb, options, &words, argc, argv, 0, 1, "one export", &operand);
	if (status)
		return status;
	if (all == (argc > operand)) {
		error_set(&err, EINVAL, "expected one export, or --all: ublkctl upgrade %s",
			  verb->arguments);
		return cli_fail(EXIT_USAGE, &err);
	}
	if (all)
		status = client_ask(words.socket, "Upgrade", NULL, CLIENT_FOR_EVER, &reply);
	else
		status = client_ask_about(words.socket, "Upgrade", argv[operand], NULL,
					  CLIENT_FOR_EVER, &reply);
	return status ? status : client_print_results(reply, json);
}

const struct verb verb_upgrade = {
	.name = "upgrade",
	.arguments = "[NAME | --all] [--json]",
	.summary = "replace running workers with the installed version",
	.main = upgrade_main,
};
