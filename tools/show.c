/* SPDX-License-Identifier: MIT */
/*
 * ublkctl show: everything about one export.
 */
#include "tools/client.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <stdio.h>

#define TEXT_SIZE 4096

static void print_text(const char *title, const json_t *object, const char *key)
{
	char text[TEXT_SIZE];

	if (json_is_string(json_object_get(object, key)))
		printf("%s: %s\n", title, client_text(object, key, "", text, sizeof(text)));
}

static void print_number(const char *title, const json_t *object, const char *key)
{
	if (json_is_integer(json_object_get(object, key)))
		printf("%s: %lld\n", title, (long long)client_number(object, key));
}

static void print_size(const char *title, const json_t *object, const char *key)
{
	char text[24];

	if (json_is_integer(json_object_get(object, key)))
		printf("%s: %s\n", title, client_size(object, key, text, sizeof(text)));
}

static void print_flag(const char *title, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_boolean(value))
		printf("%s: %s\n", title, json_is_true(value) ? "yes" : "no");
}

static void print_rate(const char *title, const json_t *object, const char *requests,
		       const char *bytes)
{
	double per_second = json_number_value(json_object_get(object, bytes));
	char text[24];

	if (json_is_number(json_object_get(object, requests)))
		printf("%s: %.0f/s, %s/s\n", title,
		       json_number_value(json_object_get(object, requests)),
		       size_format(per_second > 0 ? (uint64_t)per_second : 0, text, sizeof(text)));
}

static void print_export(const json_t *details)
{
	const json_t *e = json_object_get(details, "export");
	char since[64];

	print_text("name", e, "name");
	print_text("uri", e, "uri");
	print_text("origin", e, "origin");
	print_text("state", e, "state");
	print_text("health", e, "health");
	print_text("reason", e, "reason");
	print_text("cure", e, "cure");
	if (json_is_string(json_object_get(e, "cure")))
		printf("since: %s\n",
		       client_time(client_number(e, "healthSince"), since, sizeof(since)));
	print_text("backend", e, "backend");
	print_text("device", e, "device");
	print_text("link", e, "link");
	print_size("size", e, "size");
	print_flag("read-only", e, "readOnly");
	print_number("pid", e, "pid");
	print_number("recoveries", details, "recoveries");
	print_rate("reads", e, "readsPerSecond", "readBytesPerSecond");
	print_rate("writes", e, "writesPerSecond", "writtenBytesPerSecond");
}

static void print_limits(const json_t *limits)
{
	if (!json_is_object(limits))
		return;
	printf("\nlimits\n");
	print_size("  logical block", limits, "logicalBlock");
	print_size("  physical block", limits, "physicalBlock");
	print_size("  least I/O", limits, "minIo");
	print_size("  best I/O", limits, "optimalIo");
	print_size("  most I/O", limits, "maxIo");
	print_size("  discard granularity", limits, "discardGranularity");
	print_size("  most discarded", limits, "maxDiscard");
	print_size("  most zeroed", limits, "maxWriteZeroes");
	print_flag("  read-only", limits, "readOnly");
	print_flag("  rotational", limits, "rotational");
	print_flag("  write cache", limits, "volatileCache");
	print_flag("  FUA", limits, "fua");
}

static void print_kernel(const json_t *details)
{
	const json_t *flags = json_object_get(details, "kernelFlags");
	char text[256];

	printf("\nkernel\n");
	print_text("  state", details, "kernelState");
	print_number("  depth", details, "depth");
	printf("  flags:");
	for (size_t i = 0; i < json_array_size(flags); i++) {
		const char *flag = json_string_value(json_array_get(flags, i));

		printf(" %s", text_escape(flag ? flag : "?", text, sizeof(text)));
	}
	putchar('\n');
	print_text("  I/O path", details, "ioPath");
	print_text("  because", details, "ioPathReason");
}

static void print_options(const json_t *options)
{
	static const struct table_column columns[] = { { "OPTION", TABLE_LEFT },
						       { "VALUE", TABLE_LEFT },
						       { "", TABLE_LEFT },
						       { .title = NULL } };
	struct table table;
	char text[TEXT_SIZE];

	if (!json_array_size(options))
		return;
	printf("\noptions\n");
	table_begin(&table, columns);
	for (size_t i = 0; i < json_array_size(options); i++) {
		const json_t *o = json_array_get(options, i);

		table_add(&table, client_text(o, "name", "?", text, sizeof(text)));
		table_add(&table, client_text(o, "value", "", text, sizeof(text)));
		table_add(&table, json_is_true(json_object_get(o, "given")) ? "" : "default");
	}
	table_end(&table, "  ");
}

static void print_queues(const json_t *queues)
{
	static const struct table_column columns[] = {
		{ "QUEUE", TABLE_RIGHT },    { "THREAD", TABLE_RIGHT },
		{ "CPUS", TABLE_LEFT },      { "IN FLIGHT", TABLE_RIGHT },
		{ "REQUESTS", TABLE_RIGHT }, { "ROUNDS", TABLE_RIGHT },
		{ "COPIED", TABLE_RIGHT },   { .title = NULL }
	};
	struct table table;
	char text[256];

	if (!json_array_size(queues))
		return;
	printf("\nqueues\n");
	table_begin(&table, columns);
	for (size_t i = 0; i < json_array_size(queues); i++) {
		const json_t *q = json_array_get(queues, i);

		table_addf(&table, "%lld", (long long)client_number(q, "index"));
		if (client_number(q, "thread"))
			table_addf(&table, "%lld", (long long)client_number(q, "thread"));
		else
			table_add(&table, "-");
		client_text(q, "cpus", "", text, sizeof(text));
		table_add(&table, *text ? text : "any");
		table_addf(&table, "%lld", (long long)client_number(q, "inFlight"));
		table_addf(&table, "%lld", (long long)client_number(q, "requests"));
		table_addf(&table, "%lld", (long long)client_number(q, "rounds"));
		table_addf(&table, "%lld", (long long)client_number(q, "fallbacks"));
	}
	table_end(&table, "  ");
}

static void print_holders(const json_t *holders)
{
	char text[TEXT_SIZE];

	printf("\nheld open by\n");
	if (!json_array_size(holders))
		printf("  nobody\n");
	for (size_t i = 0; i < json_array_size(holders); i++)
		printf("  %s\n", client_holder(json_array_get(holders, i), text, sizeof(text)));
}

static void print_history(const json_t *history)
{
	char time[40], state[64], reason[TEXT_SIZE];

	printf("\nhistory\n");
	for (size_t i = 0; i < json_array_size(history); i++) {
		const json_t *c = json_array_get(history, i);

		client_text(c, "reason", "", reason, sizeof(reason));
		printf("  %s  %s%s%s\n",
		       client_time(client_number(c, "time") / 1000000, time, sizeof(time)),
		       client_text(c, "state", "?", state, sizeof(state)), *reason ? ": " : "",
		       reason);
	}
}

static int show_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	json_t *reply, *details;
	int operand, status;
	bool json;

	status = client_parse_json(verb, argc, argv, 1, 1, "one export", &operand, &json, &socket);
	if (!status)
		status = client_ask_about(socket, "Show", argv[operand], NULL, CLIENT_PROMPT_MS,
					  &reply);
	if (status)
		return status;
	details = json_object_get(reply, "details");
	if (json) {
		cli_print_json(json_incref(details), false);
	} else {
		print_export(details);
		print_kernel(details);
		print_limits(json_object_get(details, "limits"));
		print_options(json_object_get(details, "options"));
		print_queues(json_object_get(details, "queues"));
		client_print_numbers("facts", json_object_get(details, "facts"));
		print_holders(json_object_get(details, "holders"));
		print_history(json_object_get(details, "history"));
	}
	json_decref(reply);
	return EXIT_DONE;
}

const struct verb verb_show = {
	.name = "show",
	.arguments = "[--json] NAME|DEVICE",
	.summary = "show everything about an export",
	.main = show_main,
};
