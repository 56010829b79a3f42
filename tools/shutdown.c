/* SPDX-License-Identifier: MIT */
/*
 * ublkctl shutdown: ublkd ends; its exports live on, or are removed before.
 */
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>

static int shutdown_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = {
		{ "remove", OPTION_FLAG, NULL, "off", 0, 0,
		  "remove every export before; else they live on" },
		{ "force", OPTION_FLAG, NULL, "off", 0, 0,
		  "remove those that are in use, too: their requests fail" },
		OPTION_DEF_JSON,
		{ .name = NULL },
	};
	bool json = false, all = false, force = false;
	const struct client_flag flags[] = {
		{ "json", &json }, { "remove", &all }, { "force", &force }, { .name = NULL }
	};
	struct client_words words = { .flags = flags };
	struct error err;
	json_t *reply;
	int operand, status;

	status = client_parse(verb, options, &words, argc, argv, 0, 0, "nothing", &operand);
	if (status)
		return status;
	if (force && !all) {
		error_set(&err, EINVAL, "--force is for --remove: without it nothing is removed");
		return cli_fail(EXIT_USAGE, &err);
	}
	status = client_ask(words.socket, "Shutdown",
			    json_pack("{s:b, s:b}", "remove", (int)all, "force", (int)force),
			    CLIENT_FOR_EVER, &reply);
	return status ? status : client_print_results(reply, json);
}

const struct verb verb_shutdown = {
	.name = "shutdown",
	.arguments = "[OPTIONS]",
	.summary = "end ublkd",
	.main = shutdown_main,
};
