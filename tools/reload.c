/* SPDX-License-Identifier: MIT */
/*
 * ublkctl reload: what is declared by now is made, what is no longer is removed.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static int reload_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = { OPTION_DEF_JSON, { .name = NULL } };
	bool json = false;
	const struct client_flag flags[] = { { "json", &json }, { .name = NULL } };
	struct client_words words = { .flags = flags };
	json_t *reply;
	int operand, status;

	status = client_parse(verb, options, &words, argc, argv, 0, 0, "nothing", &operand);
	if (!status)
		status = client_ask(words.socket, "Reload", NULL, CLIENT_FOR_EVER, &reply);
	return status ? status : client_print_results(reply, json);
}

const struct verb verb_reload = {
	.name = "reload",
	.arguments = "[--json]",
	.summary = "have ublkd read its configuration anew",
	.main = reload_main,
};
