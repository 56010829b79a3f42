/* SPDX-License-Identifier: MIT */
/*
 * ublkctl list: ublkd's exports, and every other ublk device that the kernel has.
 * Without ublkd those devices alone.
 */
#include "common/process.h"
#include "engine/control.h"
#include "engine/device_list.h"
#include "tools/client.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void show(struct control *control, const struct ublk_dev_info *info, json_t *list)
{
	struct ublk_dev_params params = { 0 };
	char path[32], size[24], server[32], pid[16] = "-";
	struct error ignored;
	uint64_t bytes = 0;

	if (!control_get_params(control, info->dev_id, &params, &ignored))
		bytes = params.basic.dev_sectors << UBLK_SECTOR_SHIFT;
	snprintf(path, sizeof(path), UBLK_BLOCK_PREFIX "%u", info->dev_id);
	process_name(info->server_pid, server, sizeof(server));
	text_make_printable(server);
	if (list) {
		json_t *device =
			json_pack("{s:s, s:i, s:s, s:I, s:i, s:i, s:I}", "device", path, "id",
				  (int)info->dev_id, "state", devices_state_name(info->state),
				  "size", (json_int_t)bytes, "queues", (int)info->nr_hw_queues,
				  "depth", (int)info->queue_depth, "flags",
				  (json_int_t)info->flags);

		json_object_set_new(device, "server-pid",
				    info->server_pid > 0 ? json_integer(info->server_pid)
							 : json_null());
		json_object_set_new(device, "server", *server ? json_string(server) : json_null());
		json_array_append_new(list, device);
		return;
	}
	if (info->server_pid > 0)
		snprintf(pid, sizeof(pid), "%d", info->server_pid);
	printf("%-14s %-9s %8s %6u %6u %8s  %s\n", path, devices_state_name(info->state),
	       size_format(bytes, size, sizeof(size)), info->nr_hw_queues, info->queue_depth, pid,
	       *server ? server : "-");
}

static int list_devices(bool json)
{
	int status = EXIT_DONE;
	json_t *list = NULL;
	struct control control;
	struct error err;
	uint32_t *ids;
	unsigned nr;
	int ret;

	if (control_open(&control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = device_list_find(&ids, &nr);
	if (ret) {
		error_set(&err, ret, "/dev: %s", strerror(-ret));
		control_close(&control);
		return cli_fail(EXIT_FAILED, &err);
	}
	if (json)
		list = json_array();
	else
		printf("%-14s %-9s %8s %6s %6s %8s  %s\n", "DEVICE", "STATE", "SIZE", "QUEUES",
		       "DEPTH", "PID", "SERVER");
	for (unsigned i = 0; i < nr; i++) {
		struct ublk_dev_info info;

		ret = control_get_info(&control, ids[i], &info, &err);
		/* A device that went away meanwhile is not an error. */
		if (!ret)
			show(&control, &info, list);
		else if (ret != -ENODEV)
			status = cli_fail(EXIT_FAILED, &err);
	}
	free(ids);
	control_close(&control);
	if (json)
		cli_print_json(list, false);
	return status;
}

/* ---- what ublkd says ---- */

static void add_rate(struct table *table, const json_t *export, const char *key, bool is_size)
{
	const json_t *rate = json_object_get(export, key);
	double number = json_number_value(rate);
	char text[24];

	if (!json_is_number(rate) || number < 0)
		table_add(table, "-");
	else if (is_size)
		table_add(table, size_format((uint64_t)number, text, sizeof(text)));
	else
		table_addf(table, "%.0f", number);
}

/* What is wrong with an export, since when, and what to do. */
static void print_trouble(const json_t *e)
{
	char name[256], health[32], reason[4096], cure[4096], since[64], origin[32];

	/* Of a foreign device it is the kernel's word for its state. */
	if (!json_is_string(json_object_get(e, "reason")) ||
	    !strcmp(client_text(e, "origin", "", origin, sizeof(origin)), "foreign"))
		return;
	printf("\n%s: ", client_text(e, "name", "?", name, sizeof(name)));
	if (json_is_string(json_object_get(e, "cure")))
		printf("%s since %s: ", client_text(e, "health", "", health, sizeof(health)),
		       client_time(client_number(e, "healthSince"), since, sizeof(since)));
	printf("%s\n", client_text(e, "reason", "?", reason, sizeof(reason)));
	if (*client_text(e, "cure", "", cure, sizeof(cure)))
		printf("  %s\n", cure);
}

static void print_exports(const json_t *exports)
{
	static const struct table_column columns[] = {
		{ "NAME", TABLE_LEFT },       { "DEVICE", TABLE_LEFT },
		{ "STATE", TABLE_LEFT },      { "HEALTH", TABLE_LEFT },
		{ "SIZE", TABLE_RIGHT },      { "BACKEND", TABLE_LEFT },
		{ "PID", TABLE_RIGHT },       { "READS/s", TABLE_RIGHT },
		{ "READ/s", TABLE_RIGHT },    { "WRITES/s", TABLE_RIGHT },
		{ "WRITTEN/s", TABLE_RIGHT }, { .title = NULL }
	};
	struct table table;
	char text[4096];

	table_begin(&table, columns);
	for (size_t i = 0; i < json_array_size(exports); i++) {
		const json_t *e = json_array_get(exports, i);

		table_add(&table, client_text(e, "name", "?", text, sizeof(text)));
		table_add(&table, client_text(e, "device", "-", text, sizeof(text)));
		table_add(&table, client_text(e, "state", "?", text, sizeof(text)));
		table_add(&table, client_text(e, "health", "-", text, sizeof(text)));
		table_add(&table, client_size(e, "size", text, sizeof(text)));
		table_add(&table, client_text(e, "backend", "-", text, sizeof(text)));
		if (client_number(e, "pid"))
			table_addf(&table, "%lld", (long long)client_number(e, "pid"));
		else
			table_add(&table, "-");
		add_rate(&table, e, "readsPerSecond", false);
		add_rate(&table, e, "readBytesPerSecond", true);
		add_rate(&table, e, "writesPerSecond", false);
		add_rate(&table, e, "writtenBytesPerSecond", true);
	}
	table_end(&table, "");
	for (size_t i = 0; i < json_array_size(exports); i++)
		print_trouble(json_array_get(exports, i));
}

static int list_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	struct client client;
	struct error err;
	json_t *reply, *exports;
	int operand, status, ret;
	bool json;

	status = client_parse_json(verb, argc, argv, 0, 0, "nothing", &operand, &json, &socket);
	if (status)
		return status;
	ret = client_open(&client, socket, &err);
	if (client_is_absent(ret) && !socket)
		return list_devices(json);
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	if (client_call(&client, "List", NULL, CLIENT_PROMPT_MS, &reply, &err)) {
		status = client_fail(&client, &err);
	} else {
		exports = json_object_get(reply, "exports");
		if (json)
			cli_print_json(json_incref(exports), false);
		else
			print_exports(exports);
		json_decref(reply);
	}
	client_close(&client);
	return status;
}

const struct verb verb_list = {
	.name = "list",
	.arguments = "[--json]",
	.summary = "list ublkd's exports and the other ublk devices that the kernel has",
	.main = list_main,
};
