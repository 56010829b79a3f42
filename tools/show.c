/* SPDX-License-Identifier: MIT */
/*
 * ublkctl show: everything about one export, by topic, in the order in which an administrator
 * needs it: health and cure first, then storage, device and users, then internals.
 */
#include "common/log.h"
#include "engine/control.h"
#include "engine/holders.h"
#include "supervisor/describe_device.h"
#include "tools/client.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_SIZE  4096
#define TITLE      18 /* width of a line's title */
#define LINE_WIDTH 80

static void print_line(const char *title, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void print_line(const char *title, const char *fmt, ...)
{
	va_list args;

	printf("  %-*s ", TITLE, title);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

static void print_text(const char *title, const json_t *object, const char *key)
{
	char text[TEXT_SIZE];

	if (json_is_string(json_object_get(object, key)))
		print_line(title, "%s", client_text(object, key, "", text, sizeof(text)));
}

static void print_number(const char *title, const json_t *object, const char *key)
{
	if (json_is_integer(json_object_get(object, key)))
		print_line(title, "%lld", (long long)client_number(object, key));
}

/* zero: the meaning of 0. */
static void print_size(const char *title, const json_t *object, const char *key, const char *zero)
{
	char text[24];

	if (!json_is_integer(json_object_get(object, key)))
		return;
	print_line(title, "%s",
		   client_number(object, key) ? client_size(object, key, text, sizeof(text))
					      : zero);
}

static void print_flag(const char *title, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_boolean(value))
		print_line(title, "%s", json_is_true(value) ? "yes" : "no");
}

static void print_health(const json_t *e)
{
	char name[256], state[64], health[64], since[64];

	client_text(e, "state", "?", state, sizeof(state));
	printf("%s: %s", client_text(e, "name", "?", name, sizeof(name)), state);
	if (json_is_string(json_object_get(e, "health")))
		printf(", %s since %s", client_text(e, "health", "?", health, sizeof(health)),
		       client_time(client_number(e, "healthSinceUsec"), since, sizeof(since)));
	putchar('\n');
	print_text("reason", e, "reason");
	print_text("cure", e, "cure");
}

static void print_storage(const json_t *e)
{
	printf("\nstorage\n");
	print_text("URI", e, "uri");
	print_text("backend", e, "backend");
	print_text("program", e, "program");
	print_size("size", e, "size", "0");
	print_flag("read-only", e, "readOnly");
	print_text("origin", e, "origin");
}

static void print_holders(const json_t *holders)
{
	char text[TEXT_SIZE];

	if (!json_array_size(holders))
		print_line("in use by", "nobody");
	for (size_t i = 0; i < json_array_size(holders); i++)
		print_line(i ? "" : "in use by", "%s",
			   client_holder(json_array_get(holders, i), text, sizeof(text)));
}

static void print_device(const json_t *details, const json_t *e)
{
	if (!json_is_string(json_object_get(e, "device")))
		return;
	printf("\ndevice\n");
	print_text("path", e, "device");
	print_text("link", e, "link");
	print_text("kernel's state", details, "kernelState");
	print_holders(json_object_get(details, "holders"));
}

static void print_moved(const char *title, const json_t *e, const char *requests, const char *bytes,
			const char *requests_rate, const char *bytes_rate)
{
	double per_second = json_number_value(json_object_get(e, bytes_rate));
	char total[24], rate[24];

	if (!json_is_integer(json_object_get(e, requests)))
		return;
	print_line(title, "%.0f/s, %s/s; %lld requests, %s in all",
		   json_number_value(json_object_get(e, requests_rate)),
		   size_format(per_second > 0 ? (uint64_t)per_second : 0, rate, sizeof(rate)),
		   (long long)client_number(e, requests),
		   client_size(e, bytes, total, sizeof(total)));
}

static void print_polls(const json_t *queues)
{
	long long polls = 0, hits = 0, ns = 0;

	for (size_t i = 0; i < json_array_size(queues); i++) {
		polls += client_number(json_array_get(queues, i), "polls");
		hits += client_number(json_array_get(queues, i), "pollHits");
		ns += client_number(json_array_get(queues, i), "pollNsec");
	}
	if (polls)
		print_line("polling",
			   "%lld spins, %lld of which a request ended; %.1f s of CPU time", polls,
			   hits, (double)ns / 1e9);
}

static void print_activity(const json_t *details, const json_t *e)
{
	if (!json_is_integer(json_object_get(e, "reads")))
		return;
	printf("\nI/O\n");
	print_moved("reads", e, "reads", "readBytes", "readsPerSecond", "readBytesPerSecond");
	print_moved("writes", e, "writes", "writtenBytes", "writesPerSecond",
		    "writtenBytesPerSecond");
	print_text("path", details, "ioPath");
	print_text("reason", details, "ioPathReason");
	print_polls(json_object_get(details, "queues"));
	print_number("worker's PID", e, "pid");
	print_number("recoveries", details, "recoveries");
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
		table_addf(&table, "%lld", (long long)client_number(q, "copied"));
	}
	table_end(&table, "  ");
}

static void print_change(const json_t *c)
{
	char time[40], last[40], state[64], reason[TEXT_SIZE];

	client_text(c, "reason", "", reason, sizeof(reason));
	printf("  %s  %s%s%s", client_time(client_number(c, "timeUsec"), time, sizeof(time)),
	       client_text(c, "state", "?", state, sizeof(state)), *reason ? ": " : "", reason);
	if (client_number(c, "repeated"))
		printf(" (%lld times, last at %s)", (long long)client_number(c, "repeated") + 1,
		       client_time(client_number(c, "lastUsec"), last, sizeof(last)));
	putchar('\n');
}

static void print_history(const json_t *history)
{
	if (json_array_size(history))
		printf("\nhistory\n");
	for (size_t i = 0; i < json_array_size(history); i++)
		print_change(json_array_get(history, i));
}

static void print_options(const json_t *options)
{
	char name[256], value[TEXT_SIZE];

	if (json_array_size(options))
		printf("\noptions\n");
	for (size_t i = 0; i < json_array_size(options); i++) {
		const json_t *o = json_array_get(options, i);
		bool given = json_is_true(json_object_get(o, "given"));

		print_line(client_text(o, "name", "?", name, sizeof(name)), "%s%s",
			   client_text(o, "value", "", value, sizeof(value)),
			   given ? "" : " (default)");
	}
}

static void print_limits(const json_t *limits)
{
	bool discards =
		client_number(limits, "maxDiscard") || client_number(limits, "maxWriteZeroes");

	if (!json_is_object(limits))
		return;
	printf("\nlimits\n");
	print_size("logical block", limits, "logicalBlock", "0");
	print_size("physical block", limits, "physicalBlock", "0");
	print_size("minimum I/O", limits, "minIo", "logical block");
	print_size("optimal I/O", limits, "optimalIo", "unknown");
	print_size("maximum I/O", limits, "maxIo", "no limit");
	print_size("discard", limits, "maxDiscard", "not supported");
	print_size("write zeroes", limits, "maxWriteZeroes", "not supported");
	if (discards)
		print_size("discard granule", limits, "discardGranularity", "logical block");
	print_flag("rotational", limits, "rotational");
	print_flag("write cache", limits, "volatileCache");
	print_flag("FUA", limits, "fua");
}

static void print_flags(const json_t *flags)
{
	char text[256];
	size_t at = 0;

	if (!json_array_size(flags))
		return;
	printf("\nkernel's flags\n");
	for (size_t i = 0; i < json_array_size(flags); i++) {
		const char *flag = json_string_value(json_array_get(flags, i));
		size_t length = strlen(text_escape(flag ? flag : "?", text, sizeof(text)));

		if (at && at + 1 + length > LINE_WIDTH) {
			putchar('\n');
			at = 0;
		}
		at += (size_t)printf("%s%s", at ? " " : "  ", text);
	}
	putchar('\n');
}

static void print_details(const json_t *details)
{
	const json_t *e = json_object_get(details, "export");

	print_health(e);
	print_storage(e);
	print_device(details, e);
	print_activity(details, e);
	client_print_numbers("facts", json_object_get(details, "facts"));
	print_history(json_object_get(details, "history"));
	print_queues(json_object_get(details, "queues"));
	print_options(json_object_get(details, "options"));
	print_limits(json_object_get(details, "limits"));
	print_flags(json_object_get(details, "kernelFlags"));
}

/* Users of the device; a warning says where they cannot be found out. */
static void set_holders(json_t *details, const char *device)
{
	const pid_t own = getpid();
	struct holders holders;
	int ret = holders_find(strrchr(device, '/') + 1, &own, 1, &holders);

	if (ret && ret != -ENODEV)
		log_warning(NULL, "cannot determine who uses %s: %s", device, strerror(-ret));
	if (ret)
		return;
	json_object_set_new(details, "holders", describe_holders(&holders));
	holders_close(&holders);
}

/* Without ublkd: from the kernel and from ublkd's records. */
static int get_offline(const char *operand, json_t **details)
{
	json_t *exports, *export;
	struct control control;
	struct error err;
	int status = client_offline(&exports);

	if (status)
		return status;
	export = client_match(exports, operand);
	if (!export) {
		error_set(&err, ENOENT,
			  "there is no device of '%s', and ublkd is not running: start ublkd",
			  operand);
		status = cli_fail(EXIT_FAILED, &err);
	} else if (control_open(&control, CONTROL_DEADLINE_MS, &err)) {
		status = cli_fail(EXIT_FAILED, &err);
	} else {
		*details = describe_device_details(&control, (uint32_t)client_number(export, "id"));
		control_close(&control);
		if (*details) {
			json_object_set(*details, "export", export);
			set_holders(*details, json_string_value(json_object_get(export, "device")));
		} else {
			error_set(&err, ENODEV, "'%s' was removed meanwhile", operand);
			status = cli_fail(EXIT_FAILED, &err);
		}
	}
	json_decref(exports);
	return status;
}

static int get_details(const char *socket, const char *operand, json_t **details)
{
	json_t *reply;
	int status;

	if (!socket && !client_finds_ublkd())
		return get_offline(operand, details);
	status = client_ask_about(socket, "Show", operand, NULL, CLIENT_PROMPT_MS, &reply);
	if (status)
		return status;
	*details = json_incref(json_object_get(reply, "details"));
	json_decref(reply);
	return EXIT_DONE;
}

static int show_main(const struct verb *verb, int argc, char **argv)
{
	const char *socket;
	json_t *details;
	int operand, status;
	bool json;

	status = client_parse_json(verb, argc, argv, 1, 1, "one export", &operand, &json, &socket);
	if (!status)
		status = get_details(socket, argv[operand], &details);
	if (status)
		return status;
	if (json) {
		cli_print_json(details, false);
	} else {
		print_details(details);
		json_decref(details);
	}
	return EXIT_DONE;
}

const struct verb verb_show = {
	.name = "show",
	.arguments = "[--json] NAME|DEVICE",
	.summary = "show everything about an export, or about another ublk device",
	.main = show_main,
};
