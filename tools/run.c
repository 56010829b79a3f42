/* SPDX-License-Identifier: MIT */
/*
 * ublkctl run: one device, served from the foreground until a signal, without ublkd.
 *
 * The first signal asks for an orderly end: the device is stopped while the process still serves
 * it. The second signal gives up on requests in flight, which may then fail. SIGUSR1 has the
 * device adopt the size of its storage ('ublkctl resize' sends it).
 *
 * The device's path is printed on stdout once it is live, and nothing else before, so that a
 * script can wait for that line. Attributes of the device are written by a process of its own
 * (engine/attribute.h): the kernel may hold such a write for as long as the storage is silent.
 */
#include "common/log.h"
#include "common/process.h"
#include "engine/attribute.h"
#include "engine/standalone.h"
#include "engine/host_local.h"
#include "supervisor/describe_counters.h"
#include "tools/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How long printing the device's path waits for the write of an attribute. */
#define ATTRIBUTE_MS 300u

static const struct option_def run_options[] = {
	OPTION_DEF_CREATE,
	OPTION_DEF_JSON,
	{ "verbose", OPTION_FLAG, NULL, "off", 0, 0, "print more on the standard error" },
	{ .name = NULL },
};

/* The command line is read twice, see cli_parse_uri(). */
struct run {
	struct cli_uri uri;
	bool json, verbose;
};

/* ---- signals: the first asks for the end, the second aborts requests in flight ---- */

static struct control *stopped;
static volatile sig_atomic_t nr_signals;
static int signal_event = -1, resize_event = -1;

static void on_signal(int number)
{
	uint64_t one = 1;
	int saved = errno;

	(void)number;
	if (nr_signals++)
		stopped->abort = 1;
	if (write(signal_event, &one, sizeof(one)) < 0)
		stopped->abort = 1;
	errno = saved;
}

/* SIGUSR1: 'ublkctl resize' asks the device to adopt the size of its storage. */
static void on_resize(int number)
{
	uint64_t one = 1;
	int saved = errno;

	(void)number;
	if (write(resize_event, &one, sizeof(one)) < 0)
		errno = saved; /* EAGAIN: a signal is pending already */
	errno = saved;
}

static int catch_signals(struct control *control, struct error *err)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal };

	stopped = control;
	signal_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	resize_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (signal_event < 0 || resize_event < 0)
		return error_set(err, errno, "eventfd: %s", strerror(errno));
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_resize }, NULL);
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		struct sigaction before;

		/* Ignored at the start, by nohup: keep it ignored. */
		if (numbers[i] == SIGHUP && !sigaction(SIGHUP, NULL, &before) &&
		    before.sa_handler == SIG_IGN)
			continue;
		sigaction(numbers[i], &action, NULL);
	}
	return 0;
}

static void resize_on_signal(struct standalone *s)
{
	struct error err;
	uint64_t events;

	if (read(resize_event, &events, sizeof(events)) < 0)
		return;
	if (standalone_resize(s, &err))
		log_error(s->serving.instance.name, "%s", err.text);
}

/* Returns true for a signal, false where the device ended by itself. */
static bool wait_for_end(struct standalone *s)
{
	struct pollfd fds[] = {
		{ .fd = signal_event, .events = POLLIN },
		{ .fd = standalone_event(s), .events = POLLIN },
		{ .fd = standalone_grown_event(s), .events = POLLIN },
		{ .fd = resize_event, .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, sizeof(fds) / sizeof(*fds), -1) <= 0)
			continue;
		if (fds[0].revents || fds[1].revents)
			return fds[0].revents;
		if (fds[2].revents)
			standalone_follow_size(s);
		if (fds[3].revents)
			resize_on_signal(s);
	}
}

/* ---- the command line ---- */

static int set_option(void *context, const struct option_def *def, const char *text,
		      struct error *err)
{
	struct run *run = context;

	if (!strcmp(def->name, "json"))
		return cli_set_flag(&run->json, def, text, err);
	if (!strcmp(def->name, "verbose"))
		return cli_set_flag(&run->verbose, def, text, err);
	return cli_uri_set(&run->uri, def, text, err);
}

static int parse_arguments(struct run *run, const struct verb *verb, int argc, char **argv,
			   struct error *err)
{
	static const struct option_def *const tables[] = { spec_options, run_options, NULL };
	struct cli cli = {
		.verb = verb,
		.tables = tables,
		.set = set_option,
		.context = run,
		.uri = &run->uri,
	};
	int ret;

	ret = cli_parse_uri(&cli, argc, argv, err);
	if (!ret && cli_is_named(run->uri.spec.uri))
		ret = error_set(
			err, EINVAL,
			"'%s': run takes no name: leave out 'NAME=', or use 'ublkctl export'",
			run->uri.spec.uri);
	return ret ? ret : spec_check_cpus(&run->uri.spec, err);
}

/* ---- what it prints ---- */

static void print_live(const struct standalone *s, bool json)
{
	const struct instance *e = &s->serving.instance;
	char size[24];

	log_info(e->name, "%s is live: %s, %u queue%s of %u, %s%s", s->path_name,
		 size_format(e->limits.size, size, sizeof(size)), e->nr_queues,
		 e->nr_queues == 1 ? "" : "s", e->depth, e->limits.read_only ? "read-only, " : "",
		 e->limits.volatile_cache ? "write cache" : "no write cache");
	log_info(e->name, "I/O path %s: %s", io_path_name(s->device.path), s->device.path_reason);
	if (json) {
		cli_print_json(
			json_pack("{s:s, s:s, s:i, s:s, s:I, s:i, s:i, s:i, s:b, s:s, s:s, s:i}",
				  "event", "live", "device", s->path_name, "id",
				  (int)s->device.info.dev_id, "backend", e->backend->scheme, "size",
				  (json_int_t)e->limits.size, "logicalBlock",
				  (int)e->limits.logical_block, "nrQueues", (int)e->nr_queues,
				  "depth", (int)e->depth, "readOnly", (int)e->limits.read_only,
				  "ioPath", io_path_name(s->device.path), "ioPathReason",
				  s->device.path_reason, "pid", (int)getpid()),
			true);
		return;
	}
	printf("%s\n", s->path_name);
	if (fflush(stdout))
		log_warning(e->name, "stdout: %s", strerror(errno));
}

static json_t *queues_json(struct counters *counters)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < counters_nr_queues(counters); i++) {
		const struct queue_counters *c = counters_queue(counters, i);

		json_array_append_new(array, json_pack("{s:i, s:I, s:I, s:I}", "index", (int)i,
						       "requests", (json_int_t)c->completed,
						       "rounds", (json_int_t)c->rounds, "copied",
						       (json_int_t)c->fallbacks));
	}
	return array;
}

static void print_summary_json(struct standalone *s)
{
	cli_print_json(json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "event", "end", "device",
				 s->path_name, "operations", describe_operations(s->counters),
				 "queues", queues_json(s->counters), "errors",
				 describe_errors(s->counters), "facts",
				 describe_facts(s->counters)),
		       true);
}

static void print_summary(struct standalone *s)
{
	const char *name = s->serving.instance.name;
	struct op_counters sum;
	char text[24];

	for (unsigned op = 0; op < IO_OPS; op++) {
		counters_sum(s->counters, op, &sum);
		if (!sum.completed)
			continue;
		log_info(name,
			 "%s: requests %" PRIu64 ", failed %" PRIu64
			 ", bytes %s; latency in µs: mean %.1f, median %.1f, p99 %.1f, "
			 "p99.9 %.1f",
			 counters_op_name(op), sum.completed, sum.failed,
			 size_format(sum.bytes, text, sizeof(text)),
			 (double)sum.latency_ns / (double)sum.completed / 1e3,
			 (double)counters_percentile(&sum, 50) / 1e3,
			 (double)counters_percentile(&sum, 99) / 1e3,
			 (double)counters_percentile(&sum, 99.9) / 1e3);
	}
	for (unsigned kind = 0; kind < COUNTERS_ERRORS; kind++) {
		uint64_t n = counters_sum_errors(s->counters, kind);

		if (n)
			log_info(name, "requests that failed with %s: %" PRIu64,
				 counters_error_name(kind), n);
	}
	for (unsigned i = 0; i < INSTANCE_GAUGES && s->counters->gauge_names[i][0]; i++)
		log_info(name, "%s: %s", s->counters->gauge_names[i],
			 size_format(s->counters->gauges[i], text, sizeof(text)));
}

/* ---- the verb ---- */

static struct attribute_writer attributes;

static int write_attribute(struct control *control, const char *path, const char *value)
{
	(void)control;
	return attribute_write(&attributes, path, value, ATTRIBUTE_MS);
}

static int serve_device(struct run *run, struct control *control)
{
	struct standalone standalone;
	struct error err;
	bool asked;
	int ret;

	ret = process_hide_memory();
	if (ret)
		log_warning(NULL,
			    "cannot disable core dumps, which would contain data and keys: %s",
			    strerror(-ret));
	process_prepare_for_io(NULL);
	if (catch_signals(control, &err) ||
	    standalone_start(&standalone, &run->uri.spec, &host_here, control, &err))
		return cli_fail(EXIT_FAILED, &err);
	print_live(&standalone, run->json);
	asked = wait_for_end(&standalone);
	ret = standalone_stop(&standalone, &err);
	if (!asked && !ret)
		log_info(standalone.serving.instance.name, "%s was stopped by another program",
			 standalone.path_name);
	if (run->json)
		print_summary_json(&standalone);
	else
		print_summary(&standalone);
	standalone_forget(&standalone);
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

static int run_main(const struct verb *verb, int argc, char **argv)
{
	struct run run = { 0 };
	struct control control;
	struct error err;
	int status;

	if (parse_arguments(&run, verb, argc, argv, &err)) {
		if (run.uri.is_open)
			spec_close(&run.uri.spec);
		return cli_fail(EXIT_USAGE, &err);
	}
	log_setup("ublkctl", run.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	/* Before the control ring is opened: the child process must not inherit it. */
	if (attribute_start(&attributes, &err) ||
	    control_open(&control, CONTROL_DEADLINE_MS, &err)) {
		status = cli_fail(EXIT_FAILED, &err);
	} else {
		control.write_attribute = write_attribute;
		status = serve_device(&run, &control);
		control_close(&control);
	}
	attribute_end(&attributes);
	spec_close(&run.uri.spec);
	return status;
}

const struct verb verb_run = {
	.name = "run",
	.arguments = "[OPTIONS] URI",
	.summary = "serve one device from the foreground until SIGINT or SIGTERM",
	.main = run_main,
};
