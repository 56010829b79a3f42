/* SPDX-License-Identifier: MIT */
/*
 * ublkctl stats: how many requests an export has completed, and their latencies.
 */
#include "tools/client.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <stdio.h>

static void add_time(struct table *table, const json_t *operation, const char *key)
{
	table_addf(table, "%.1f", (double)client_number(operation, key) / 1e3);
}

static void print_operations(const json_t *operations)
{
	static const struct table_column columns[] = {
		{ "OPERATION", TABLE_LEFT }, { "COMPLETED", TABLE_RIGHT },
		{ "FAILED", TABLE_RIGHT },   { "BYTES", TABLE_RIGHT },
		{ "MEAN µs", TABLE_RIGHT },  { "p50", TABLE_RIGHT },
		{ "p90", TABLE_RIGHT },      { "p99", TABLE_RIGHT },
		{ "p99.9", TABLE_RIGHT },    { .title = NULL }
	};
	struct table table;
	char text[256];

	table_begin(&table, columns);
	for (size_t i = 0; i < json_array_size(operations); i++) {
		const json_t *o = json_array_get(operations, i);

		table_add(&table, client_text(o, "name", "?", text, sizeof(text)));
		table_addf(&table, "%lld", (long long)client_number(o, "completed"));
		table_addf(&table, "%lld", (long long)client_number(o, "failed"));
		table_add(&table, client_size(o, "bytes", text, sizeof(text)));
		add_time(&table, o, "meanNsec");
		add_time(&table, o, "p50Nsec");
		add_time(&table, o, "p90Nsec");
		add_time(&table, o, "p99Nsec");
		add_time(&table, o, "p999Nsec");
	}
	table_end(&table, "");
}

static void print_stats(const json_t *stats)
{
	char text[256], time[40];

	printf("name: %s\n", client_text(stats, "name", "?", text, sizeof(text)));
	printf("device: %s\n", client_text(stats, "device", "-", text, sizeof(text)));
	printf("since: %s\n", client_time(client_number(stats, "sinceUsec"), time, sizeof(time)));
	printf("in flight: %lld\n\n", (long long)client_number(stats, "inFlight"));
	print_operations(json_object_get(stats, "operations"));
	client_print_numbers("failed requests", json_object_get(stats, "errors"));
	client_print_numbers("facts", json_object_get(stats, "facts"));
}

static int stats_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	json_t *reply, *stats;
	int operand, status;
	bool json;

	status = client_parse_json(verb, argc, argv, 1, 1, "one export", &operand, &json, &socket);
	if (!status)
		status = client_ask_about(socket, "Stats", argv[operand], NULL, CLIENT_PROMPT_MS,
					  &reply);
	if (status)
		return status;
	stats = json_object_get(reply, "stats");
	if (json)
		cli_print_json(json_incref(stats), false);
	else
		print_stats(stats);
	json_decref(reply);
	return EXIT_DONE;
}

const struct verb verb_stats = {
	.name = "stats",
	.arguments = "[--json] NAME|DEVICE",
	.summary = "show how many requests an export has completed, and their latencies",
	.main = stats_main,
};
