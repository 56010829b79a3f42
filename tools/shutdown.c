/* SPDX-License-Identifier: MIT */
/*
 * ublkctl shutdown: stops ublkd; its exports stay live, or are removed first.
 */
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>

static int shutdown_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = {
		{ "remove", OPTION_FLAG, NULL, "off", 0, 0,
		  "remove every export first; without this option they stay live" },
		{ "force", OPTION_FLAG, NULL, "off", 0, 0,
		  "also remove devices that are in use: all I/O to them then fails with EIO, and "
		  "unwritten data is lost" },
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
		error_set(&err, EINVAL, "--force requires --remove");
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
	.summary = "stop ublkd",
	.main = shutdown_main,
};
