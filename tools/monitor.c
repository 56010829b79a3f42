/* SPDX-License-Identifier: MIT */
/*
 * ublkctl monitor: each change of an export's state, as it happens.
 */
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>

static int print_change(void *context, json_t *reply)
{
	const bool *json = context;
	const json_t *export = json_object_get(reply, "export");
	const json_t *change = json_object_get(reply, "change");
	char time[40], name[256], state[64], reason[4096];

	if (*json) {
		cli_print_json(json_incref(reply), true);
	} else {
		client_text(change, "reason", "", reason, sizeof(reason));
		printf("%s %s: %s%s%s\n",
		       client_time(client_number(change, "timeUsec"), time, sizeof(time)),
		       client_text(export, "name", "?", name, sizeof(name)),
		       client_text(change, "state", "?", state, sizeof(state)), *reason ? ": " : "",
		       reason);
		fflush(stdout);
	}
	/* The reader of our output is gone. */
	return ferror(stdout);
}

static int monitor_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	struct client client;
	struct error err;
	int operand, status, ret;
	bool json;

	status = client_parse_json(verb, argc, argv, 0, 0, "nothing", &operand, &json, &socket);
	if (status)
		return status;
	if (client_open(&client, socket, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = client_stream(&client, "Monitor", NULL, print_change, &json, &err);
	if (ret < 0)
		status = client_fail(&client, &err);
	else if (ret)
		status = EXIT_FAILED;
	client_close(&client);
	return status;
}

const struct verb verb_monitor = {
	.name = "monitor",
	.arguments = "[--json]",
	.summary = "print changes of state and health until interrupted",
	.main = monitor_main,
};
