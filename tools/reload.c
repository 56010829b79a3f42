/* SPDX-License-Identifier: MIT */
/*
 * ublkctl reload: creates exports that were declared since, removes those no longer declared.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static int reload_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	json_t *reply;
	int operand, status;
	bool json;

	status = client_parse_json(verb, argc, argv, 0, 0, "nothing", &operand, &json, &socket);
	if (!status)
		status = client_ask(socket, "Reload", NULL, CLIENT_FOR_EVER, &reply);
	return status ? status : client_print_results(reply, json);
}

const struct verb verb_reload = {
	.name = "reload",
	.arguments = "[--json]",
	.summary = "have ublkd read its configuration again",
	.main = reload_main,
};
