/* SPDX-License-Identifier: MIT */
/*
 * ublkctl list: all exports, and the ublk devices of other programs. While ublkd does not run,
 * the kernel and ublkd's records say what there is; table and JSON are the same.
 */
#include "engine/control.h"
#include "supervisor/describe_offline.h"
#include "tools/client.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <stdio.h>

static void print_exports(const json_t *exports)
{
	static const struct table_column columns[] = {
		{ "NAME", TABLE_LEFT },   { "DEVICE", TABLE_LEFT }, { "STATE", TABLE_LEFT },
		{ "HEALTH", TABLE_LEFT }, { "SIZE", TABLE_RIGHT },  { "RO", TABLE_LEFT },
		{ "ORIGIN", TABLE_LEFT }, { "STORAGE", TABLE_CUT }, { .title = NULL }
	};
	struct table table;
	char text[4096];

	table_begin(&table, columns);
	for (size_t i = 0; i < json_array_size(exports); i++) {
		const json_t *e = json_array_get(exports, i);
		const json_t *read_only = json_object_get(e, "readOnly");

		table_add(&table, client_text(e, "name", "?", text, sizeof(text)));
		table_add(&table, client_text(e, "device", "-", text, sizeof(text)));
		table_add(&table, client_text(e, "state", "?", text, sizeof(text)));
		table_add(&table, client_text(e, "health", "-", text, sizeof(text)));
		table_add(&table, client_size(e, "size", text, sizeof(text)));
		table_add(&table, !read_only ? "-" : json_is_true(read_only) ? "yes" : "no");
		table_add(&table, client_text(e, "origin", "-", text, sizeof(text)));
		/* Of a foreign device the program that serves it is all that is known. */
		table_add(&table, client_text(e, json_object_get(e, "uri") ? "uri" : "program", "-",
					      text, sizeof(text)));
	}
	table_end(&table, "");
	for (size_t i = 0; i < json_array_size(exports); i++)
		client_print_trouble(json_array_get(exports, i));
}

static int get_exports(const char *socket, json_t **exports)
{
	struct client client;
	struct error err;
	json_t *reply;
	int status = EXIT_DONE, ret = client_open(&client, socket, &err);

	if (client_is_absent(ret) && !socket)
		return client_offline(exports);
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	if (client_call(&client, "List", NULL, CLIENT_PROMPT_MS, &reply, &err)) {
		status = client_fail(&client, &err);
	} else {
		*exports = json_incref(json_object_get(reply, "exports"));
		json_decref(reply);
	}
	client_close(&client);
	return status;
}

static int list_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	json_t *exports;
	int operand, status;
	bool json;

	status = client_parse_json(verb, argc, argv, 0, 0, "nothing", &operand, &json, &socket);
	if (!status)
		status = get_exports(socket, &exports);
	if (status)
		return status;
	if (json) {
		cli_print_json(exports, false);
	} else {
		print_exports(exports);
		json_decref(exports);
	}
	return EXIT_DONE;
}

const struct verb verb_list = {
	.name = "list",
	.arguments = "[--json]",
	.summary = "list all exports, and the ublk devices of other programs",
	.main = list_main,
};
