/* SPDX-License-Identifier: MIT */
/*
 * The verbs that ask ublkd, and what they print, with a server in its place that
 * has the real interface and answers by the name that it is asked about.  Every
 * answer of it is checked by the interface's description.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/interfaces.h"
#include "varlink/varlink.h"
#include "tests/unit/test.h"
#include "tools/verbs.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static char socket_path[100], directory[80];
static pid_t server;

/* ---- the server ---- */

static bool may(const struct varlink_peer *peer, bool changes, void *context)
{
	(void)peer;
	(void)changes;
	(void)context;
	return true;
}

static const char *name_of(const json_t *parameters)
{
	const char *name = json_string_value(json_object_get(parameters, "name"));

	return name ? name : "unnamed";
}

/* The names that mean trouble; true: it is answered. */
static bool fails(struct varlink_call *call, const json_t *parameters)
{
	const char *name = name_of(parameters);

	if (!strcmp(name, "nosuch"))
		varlink_error(call, "NoSuchExport",
			      json_pack("{s:s, s:s}", "name", name, "message",
					"there is no nosuch"));
	else if (!strcmp(name, "busy"))
		varlink_error(call, "Busy",
			      json_pack("{s:s, s:s, s:[{s:s, s:i, s:s}, {s:s, s:s}]}", "name", name,
					"message", "busy is in use", "holders", "kind", "process",
					"pid", 12, "command", "f\x1bio", "kind", "mount", "path",
					"/mnt/a"));
	else if (!strcmp(name, "invalid"))
		varlink_error(call, "Invalid", json_pack("{s:s}", "message", "it makes no sense"));
	else if (!strcmp(name, "failed"))
		varlink_error(call, "Failed",
			      json_pack("{s:s, s:i}", "message", "no space is left", "errno",
					ENOSPC));
	else if (!strcmp(name, "denied"))
		varlink_error(call, "NotPermitted", json_pack("{s:s}", "message", "only root may"));
	else if (!strcmp(name, "exists"))
		varlink_error(call, "Exists",
			      json_pack("{s:s, s:s}", "name", name, "message",
					"it has another URI"));
	else
		return false;
	return true;
}

static json_t *export_of(const char *name, const char *uri, const char *reason)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:I, s:b, s:i, s:i, s:i, "
			 "s:i, s:i, s:f, s:f, s:f, s:f}",
			 "name", name, "uri", uri, "origin", "requested", "state", "live", "reason",
			 reason, "backend", "file", "device", "/dev/ublkb3", "id", 3, "link",
			 "/dev/ublk/data", "size", (json_int_t)3 << 30, "readOnly", 0, "pid", 77,
			 "reads", 100, "writes", 3, "readBytes", 1 << 20, "writtenBytes", 0,
			 "readsPerSecond", 12.0, "writesPerSecond", 3.4, "readBytesPerSecond",
			 2097152.0, "writtenBytesPerSecond", 0.0);
}

static void run_list(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)parameters;
	(void)context;
	varlink_reply(call,
		      json_pack("{s:[o, {s:s, s:s, s:s, s:s, s:i}, {s:s, s:s, s:s}]}", "exports",
				export_of("data", "/var/data", "a\x1b[31mb"), "name", "/dev/ublkb9",
				"origin", "foreign", "state", "foreign", "device", "/dev/ublkb9",
				"id", 9, "name", "bad", "origin", "declared", "state", "failed"));
}

static json_t *queues(void)
{
	return json_pack("[{s:i, s:i, s:s, s:i, s:I, s:i, s:i}, {s:i, s:s, s:i, s:i, s:i, s:i}]",
			 "index", 0, "thread", 4711, "cpus", "0-3,8", "inFlight", 5, "requests",
			 (json_int_t)12345678901, "rounds", 9, "copied", 1, "index", 1, "cpus", "",
			 "inFlight", 0, "requests", 0, "rounds", 0, "copied", 0);
}

static void run_show(struct varlink_call *call, json_t *parameters, void *context)
{
	json_t *details;

	(void)context;
	if (fails(call, parameters))
		return;
	details = json_pack("{s:o, s:[{s:s, s:s, s:b}, {s:s, s:s, s:b}], s:o, s:i, s:[s, s], s:s, "
			    "s:s, s:s, s:{s:i}, s:i}",
			    "export", export_of(name_of(parameters), "/var/data", "as it is"),
			    "options", "name", "queues", "value", "2", "given", 1, "name", "depth",
			    "value", "128", "given", 0, "queues", queues(), "depth", 128,
			    "kernelFlags", "recovery", "user-copy", "kernelState", "live", "ioPath",
			    "user-copy", "ioPathReason", "it is cheapest", "facts", "reconnects", 4,
			    "recoveries", 2);
	json_object_set_new(
		details, "limits",
		json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:b}",
			  "logicalBlock", 512, "physicalBlock", 4096, "minIo", 512, "optimalIo", 0,
			  "maxIo", 1048576, "discardGranularity", 512, "maxDiscard", 1 << 30,
			  "maxWriteZeroes", 0, "readOnly", 0, "rotational", 0, "volatileCache", 1,
			  "fua", 1));
	json_object_set_new(details, "history",
			    json_pack("[{s:I, s:s}, {s:I, s:s, s:s, s:i, s:I}]", "timeUsec",
				      (json_int_t)1000000000000000, "state", "opening", "timeUsec",
				      (json_int_t)1000000001500000, "state", "live", "reason",
				      "its worker was new", "repeated", 7, "lastUsec",
				      (json_int_t)1000000002000000));
	json_object_set_new(details, "holders",
			    json_pack("[{s:s, s:i, s:s}]", "kind", "process", "pid", 12, "command",
				      "fio"));
	varlink_reply(call, json_pack("{s:o}", "details", details));
}

static void run_stats(struct varlink_call *call, json_t *parameters, void *context)
{
	json_t *stats;

	(void)context;
	if (fails(call, parameters))
		return;
	stats = json_pack("{s:s, s:s, s:I, s:i, s:{s:i}, s:{s:i}, s:o}", "name",
			  name_of(parameters), "device", "/dev/ublkb3", "sinceUsec",
			  (json_int_t)1000000000000000, "inFlight", 6, "errors", "EIO", 3, "facts",
			  "connections", 2, "queues", queues());
	json_object_set_new(stats, "operations",
			    json_pack("[{s:s, s:i, s:i, s:I, s:i, s:i, s:i, s:i, s:i}]", "name",
				      "read", "completed", 1000, "failed", 3, "bytes",
				      (json_int_t)4096000, "meanNsec", 15500, "p50Nsec", 14000,
				      "p90Nsec", 20000, "p99Nsec", 90100, "p999Nsec", 1000000));
	varlink_reply(call, json_pack("{s:o}", "stats", stats));
}

/* The options come back as the reason. */
static void run_export(struct varlink_call *call, json_t *parameters, void *context)
{
	json_t *options = json_object_get(parameters, "options"), *export;
	char *text;

	(void)context;
	if (fails(call, parameters))
		return;
	if (json_is_true(json_object_get(parameters, "persist")))
		json_object_set_new(options, "persist", json_true());
	text = options ? json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS) : strdup("none");
	export = export_of(name_of(parameters),
			   json_string_value(json_object_get(parameters, "uri")), text);
	free(text);
	varlink_reply(call, json_pack("{s:o}", "export", export));
}

/* Parameters come back where there is room for them. */
static void run_remove(struct varlink_call *call, json_t *parameters, void *context)
{
	bool wait = json_is_true(json_object_get(parameters, "wait"));

	(void)context;
	if (wait && !strcmp(name_of(parameters), "busy")) {
		varlink_reply(call, NULL);
		return;
	}
	if (fails(call, parameters))
		return;
	if (!strcmp(name_of(parameters), "declared")) {
		varlink_reply(call, json_pack("{s:s}", "declaredIn", "/etc/declared.conf"));
		return;
	}
	if (!strcmp(name_of(parameters), "data") && !wait)
		varlink_error(call, "Failed",
			      json_pack("{s:s, s:i}", "message", "removed data, without a wait",
					"errno", EIO));
	else
		varlink_reply(call, NULL);
}

static void run_resize(struct varlink_call *call, json_t *parameters, void *context)
{
	json_t *size = json_object_get(parameters, "size");

	(void)context;
	if (!fails(call, parameters))
		varlink_reply(call, json_pack("{s:I}", "size",
					      size ? json_integer_value(size) : (json_int_t)4096));
}

static void run_simple(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)context;
	if (!fails(call, parameters))
		varlink_reply(call, NULL);
}

static void run_many(struct varlink_call *call, json_t *parameters, void *context)
{
	bool all_well = json_object_get(parameters, "name") != NULL;

	(void)context;
	if (fails(call, parameters))
		return;
	if (all_well)
		varlink_reply(call, json_pack("{s:[{s:s, s:b}]}", "results", "name",
					      name_of(parameters), "done", 1));
	else
		varlink_reply(call,
			      json_pack("{s:[{s:s, s:b, s:s}, {s:s, s:b, s:s}]}", "results", "name",
					"data", "done", 1, "message", "was made", "name", "other",
					"done", 0, "message", "its file is gone"));
}

static void run_monitor(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)parameters;
	(void)context;
	for (unsigned i = 0; i < 3; i++) {
		json_t *reply = json_pack("{s:o, s:{s:I, s:s, s:s?}}", "export",
					  export_of("data", "/var/data", "x"), "change", "timeUsec",
					  (json_int_t)1000000000000000 + i * 1000000, "state",
					  i == 1 ? "recovering" : "live", "reason",
					  i == 1 ? "its worker died" : NULL);

		if (i < 2)
			varlink_reply_more(call, reply);
		else
			varlink_reply(call, reply);
	}
}

static const struct varlink_method methods[] = {
	{ "List", false, false, run_list },
	{ "Show", false, false, run_show },
	{ "Stats", false, false, run_stats },
	{ "Export", true, false, run_export },
	{ "Remove", true, false, run_remove },
	{ "Resize", true, false, run_resize },
	{ "Suspend", true, false, run_simple },
	{ "Resume", true, false, run_simple },
	{ "Upgrade", true, false, run_many },
	{ "Reload", true, false, run_many },
	{ "Shutdown", true, false, run_many },
	{ "Monitor", false, true, run_monitor },
	{ .name = NULL },
};
static const struct varlink_interface interface = {
	.description = interface_io_ublkd,
	.methods = methods,
};

static int bound_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static void serve(int fd)
{
	static const struct varlink_interface *const interfaces[] = { &interface, NULL };
	struct varlink_setup setup = {
		.vendor = "test",
		.product = "ublkd",
		.version = "1",
		.url = "",
		.may = may,
		.check_replies = true,
	};
	struct varlink *varlink;
	struct error err;
	uv_loop_t loop;

	uv_loop_init(&loop);
	if (varlink_create(&varlink, &loop, &setup, &err) ||
	    varlink_listen(varlink, fd, interfaces, &err))
		_exit(1);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

static int start_server(void **state)
{
	const char *where = getenv("TMPDIR");
	int fd;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	setenv("TZ", "UTC", 1);
	snprintf(directory, sizeof(directory), "%s/test-verbs.XXXXXX", where ? where : "/tmp");
	assert_non_null(mkdtemp(directory));
	snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
	fd = bound_socket(socket_path);
	server = fork();
	assert_true(server >= 0);
	if (!server) {
		alarm(250);
		serve(fd);
	}
	close(fd);
	return 0;
}

static int stop_server(void **state)
{
	int status;

	(void)state;
	kill(server, SIGTERM);
	waitpid(server, &status, 0);
	unlink(socket_path);
	rmdir(directory);
	return 0;
}

/* ---- a verb ---- */

#define MOST 16

struct output {
	int status;
	char out[1 << 15], err[1 << 13];
};

static void read_all(int fd, char *text, size_t size)
{
	size_t length = 0;
	ssize_t got;

	while ((got = read(fd, text + length, size - 1 - length)) > 0)
		length += (size_t)got;
	text[length] = 0;
	close(fd);
}

static struct output *run_words(const struct verb *verb, const char *const *words)
{
	static struct output output;
	int out[2], err[2], argc = 0, status;
	char *argv[MOST];
	pid_t child;

	argv[argc++] = (char *)(uintptr_t)verb->name;
	for (; *words; words++)
		argv[argc++] = strdup(*words);
	argv[argc] = NULL;
	assert_int_equal(pipe(out), 0);
	assert_int_equal(pipe(err), 0);
	fflush(stdout);
	child = fork();
	if (!child) {
		alarm(60);
		dup2(out[1], STDOUT_FILENO);
		dup2(err[1], STDERR_FILENO);
		close(out[0]);
		close(err[0]);
		close(out[1]);
		close(err[1]);
		log_setup("ublkctl", LOG_LEVEL_INFO);
		if (chdir(directory))
			_exit(9);
		status = verb->main(verb, argc, argv);
		fflush(stdout);
		_exit(status);
	}
	close(out[1]);
	close(err[1]);
	read_all(out[0], output.out, sizeof(output.out));
	read_all(err[0], output.err, sizeof(output.err));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	output.status = WEXITSTATUS(status);
	while (argc-- > 1)
		free(argv[argc]);
	return &output;
}

#define RUN(verb, ...) \
	run_words(verb, (const char *const[]){ "--socket", socket_path, __VA_ARGS__, NULL })
#define RUN_ALONE(verb) run_words(verb, (const char *const[]){ "--socket", socket_path, NULL })

/* All of it, in that order. */
static void expect_in(const char *text, const char *const *parts)
{
	const char *at = text;

	for (; *parts; parts++) {
		at = strstr(at, *parts);
		if (!at)
			fail_msg("'%s' is not, or not there, in:\n%s", *parts, text);
		at += strlen(*parts);
	}
}

#define EXPECT_IN(text, ...) expect_in(text, (const char *const[]){ __VA_ARGS__, NULL })

static void expect_done(const struct output *o)
{
	if (o->status || *o->err)
		fail_msg("%d: %s", o->status, o->err);
}

/* A single line with those words, nothing on stdout. */
static void expect_failure(const struct output *o, int status, const char *words)
{
	const char *newline = strchr(o->err, '\n');

	if (o->status != status || !newline || newline[1] || !strstr(o->err, words))
		fail_msg("%d: %s", o->status, o->err);
	assert_string_equal(o->out, "");
}

static json_t *json_of(const struct output *o)
{
	json_t *json = json_loads(o->out, 0, NULL);

	expect_done(o);
	if (!json)
		fail_msg("no JSON: %s", o->out);
	return json;
}

static const char *string_in(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "(none)";
}

/* ---- what they print ---- */

static void test_list(void **state)
{
	struct output *o = RUN_ALONE(&verb_list);
	json_t *json;

	(void)state;
	expect_done(o);
	EXPECT_IN(o->out,
		  "NAME         DEVICE       STATE    HEALTH  SIZE  RO  ORIGIN     STORAGE\n",
		  "data         /dev/ublkb3  live     -         3G  no  requested  /var/data\n",
		  "/dev/ublkb9  /dev/ublkb9  foreign  -          -  -   foreign    -\n",
		  "bad          -            failed   -          -  -   declared   -\n",
		  "\ndata: a\\x1b[31mb\n");
	json = json_of(RUN(&verb_list, "--json"));
	assert_int_equal(json_array_size(json), 3);
	assert_string_equal(string_in(json_array_get(json, 0), "uri"), "/var/data");
	json_decref(json);
}

static void test_show(void **state)
{
	struct output *o = RUN(&verb_show, "data");
	json_t *json;

	(void)state;
	expect_done(o);
	EXPECT_IN(o->out, "data: live\n", "  reason             as it is\n", "\nstorage\n",
		  "  URI                /var/data\n", "  size               3G\n", "\ndevice\n",
		  "  path               /dev/ublkb3\n", "  in use by          process 12 (fio)\n",
		  "\nI/O\n", "  reads              12/s, 2M/s; 100 requests, 1M in all\n",
		  "  path               user-copy\n", "  reason             it is cheapest\n",
		  "  recoveries         2\n", "\nfacts\n", "  reconnects         4\n",
		  "\nhistory\n", "  2001-09-09T01:46:40+0000  opening\n",
		  "  2001-09-09T01:46:41+0000  live: its worker was new (8 times, last at "
		  "2001-09-09T01:46:42+0000)\n",
		  "\nqueues\n", "4711", "0-3,8", "12345678901", "-", "any", "\noptions\n",
		  "  queues             2\n", "  depth              128 (default)\n", "\nlimits\n",
		  "  logical block      512\n", "  optimal I/O        unknown\n",
		  "  write zeroes       not supported\n", "  write cache        yes\n",
		  "\nkernel's flags\n  recovery user-copy\n");
	json = json_of(RUN(&verb_show, "--json", "data"));
	assert_int_equal(json_array_size(json_object_get(json, "queues")), 2);
	json_decref(json);
	/* By its device, and by its link. */
	EXPECT_IN(RUN(&verb_show, "/dev/ublkb3")->out, "data: live\n");
	EXPECT_IN(RUN(&verb_show, "3")->out, "data: live\n");
	EXPECT_IN(RUN(&verb_show, "/dev/ublk/data")->out, "data: live\n");
	EXPECT_IN(RUN(&verb_show, "9")->out, "/dev/ublkb9: live\n");
	expect_failure(RUN(&verb_show, "/dev/ublkb5"), EXIT_FAILED, "no export '/dev/ublkb5'");
	expect_failure(RUN(&verb_show, "nosuch"), EXIT_FAILED, "there is no nosuch");
	expect_failure(RUN_ALONE(&verb_show), EXIT_USAGE, "expected one export");
}

static void test_stats(void **state)
{
	struct output *o = RUN(&verb_stats, "data");
	json_t *json;

	(void)state;
	expect_done(o);
	EXPECT_IN(o->out, "name: data\n", "since: 2001-09-09T01:46:40+0000\n", "in flight: 6\n",
		  "OPERATION", "p99.9\n", "read", "1000", "3", "3.9M", "15.5", "14.0", "20.0",
		  "90.1", "1000.0\n", "failed requests\n", "  EIO                3\n", "facts\n",
		  "  connections        2\n");
	json = json_of(RUN(&verb_stats, "--json", "data"));
	assert_string_equal(string_in(json, "device"), "/dev/ublkb3");
	json_decref(json);
}

static void test_monitor(void **state)
{
	struct output *o = RUN_ALONE(&verb_monitor);

	(void)state;
	expect_done(o);
	assert_string_equal(o->out, "2001-09-09T01:46:40+0000 data: live\n"
				    "2001-09-09T01:46:41+0000 data: recovering: its worker died\n"
				    "2001-09-09T01:46:42+0000 data: live\n");
	o = RUN(&verb_monitor, "--json");
	expect_done(o);
	EXPECT_IN(o->out, "{\"export\":", "\n{\"export\":", "\"recovering\"",
		  "\n{\"export\":", "}\n");
}

/* ---- what they ask ---- */

static void expect_export(const struct output *o, const char *name, const char *uri,
			  const char *options)
{
	json_t *json = json_of(o);

	assert_string_equal(string_in(json, "name"), name);
	assert_string_equal(string_in(json, "uri"), uri);
	assert_string_equal(string_in(json, "reason"), options);
	json_decref(json);
}

static void test_export(void **state)
{
	char path[200], options[400];

	(void)state;
	expect_done(RUN(&verb_export, "memory:1M"));
	assert_string_equal(RUN(&verb_export, "memory:1M")->out, "/dev/ublkb3\n");
	expect_export(RUN(&verb_export, "--json", "memory:1M"), "unnamed", "memory:1M", "{}");
	expect_export(RUN(&verb_export, "--json", "d.a-t_a=memory:1M"), "d.a-t_a", "memory:1M",
		      "{}");
	expect_export(
		RUN(&verb_export, "--json", "--queues", "2", "--read-only", "--persist",
		    "--io-path=copy", "x=/var/y=z"),
		"x", "/var/y=z",
		"{\"io-path\":\"copy\",\"persist\":true,\"queues\":\"2\",\"read-only\":\"on\"}");
	expect_export(RUN(&verb_export, "--json", "--create", "1G", "/a"), "unnamed", "/a",
		      "{\"create\":\"1G\"}");
	expect_export(RUN(&verb_export, "--json", "-o", "connections=3", "-o", "tls-verify",
			  "nbds://host/x?tls-psk-file=y"),
		      "unnamed", "nbds://host/x?tls-psk-file=y",
		      "{\"connections\":\"3\",\"tls-verify\":\"on\"}");

	/* Paths are of the directory that we are in. */
	snprintf(path, sizeof(path), "%s/a.img", directory);
	expect_export(RUN(&verb_export, "--json", "a.img"), "unnamed", path, "{}");
	snprintf(path, sizeof(path), "file:%s/./a b", directory);
	expect_export(RUN(&verb_export, "--json", "file:./a b"), "unnamed", path, "{}");
	snprintf(path, sizeof(path), "nbd+unix:///x?socket=%s/s", directory);
	expect_export(RUN(&verb_export, "--json", "nbd+unix:///x?socket=s"), "unnamed", path, "{}");
	expect_export(RUN(&verb_export, "--json", "nbd+unix:///x?socket=/s"), "unnamed",
		      "nbd+unix:///x?socket=/s", "{}");
	expect_export(RUN(&verb_export, "--json", "nbd+unix:///x?socket=%2Fs"), "unnamed",
		      "nbd+unix:///x?socket=%2Fs", "{}");
	snprintf(options, sizeof(options), "{\"tls-psk-file\":\"%s/keys\",\"tls-username\":\"me\"}",
		 directory);
	expect_export(RUN(&verb_export, "--json", "-o", "tls-psk-file=keys", "-o",
			  "tls-username=me", "nbds://h/"),
		      "unnamed", "nbds://h/", options);
}

static void test_nonsense_is_refused_before_ublkd_is_asked(void **state)
{
	static const struct {
		const char *words[4], *about;
	} bad[] = {
		{ { NULL }, "URI is missing" },
		{ { "a", "b" }, "expected one URI" },
		{ { "x=nosuch:1" }, "nosuch" },
		{ { "--queues", "0", "memory:1M" }, "queues" },
		{ { "-o", "nosuch=1", "memory:1M" }, "nosuch" },
		{ { "memory:lots" }, "lots" },
		{ { "--persist=perhaps", "memory:1M" }, "persist" },
		{ { "--frob", "memory:1M" }, "--frob" },
		{ { "/a\xff" }, "URI: '/a\\xff' is not valid UTF-8" },
		{ { "-o", "tls-username=a\xff", "nbds://h/" },
		  "tls-username: 'a\\xff' is not valid UTF-8" },
		{ { "-o", "tls-psk-file=/k\xed\xa0\x80", "nbds://h/" },
		  "tls-psk-file: '/k\\xed\\xa0\\x80' is not valid UTF-8" },
		{ { "-o", "tls-psk-file=\xc3", "nbds://h/" }, "tls-psk-file: " },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const char *words[8] = { "--socket", "/nonexistent" };

		for (unsigned n = 0; n < 4 && bad[i].words[n]; n++)
			words[n + 2] = bad[i].words[n];
		expect_failure(run_words(&verb_export, words), EXIT_USAGE, bad[i].about);
	}
	expect_failure(RUN(&verb_resize, "data", "big"), EXIT_USAGE, "'big' is not a valid size");
	expect_failure(RUN(&verb_resize, "data", "0"), EXIT_USAGE, "'0' is not a valid size");
	expect_failure(RUN(&verb_remove, "--force", "--wait", "data"), EXIT_USAGE, "not both");
	expect_failure(RUN_ALONE(&verb_upgrade), EXIT_USAGE, "or --all");
	expect_failure(RUN(&verb_upgrade, "--all", "data"), EXIT_USAGE, "or --all");
	expect_failure(RUN(&verb_shutdown, "--force"), EXIT_USAGE, "--remove");
	expect_failure(RUN(&verb_reload, "data"), EXIT_USAGE, "unexpected argument");
}

static void test_remove(void **state)
{
	(void)state;
	expect_done(RUN(&verb_remove, "other"));
	expect_failure(RUN(&verb_remove, "busy"), EXIT_FAILED,
		       "busy is in use: held by process 12 (f\\x1bio), mount /mnt/a\n");
	expect_failure(RUN(&verb_remove, "/dev/ublkb3"), EXIT_FAILED,
		       "removed data, without a wait");
	expect_failure(RUN(&verb_remove, "/dev/ublk/data"), EXIT_FAILED, "removed data");
	EXPECT_IN(RUN(&verb_remove, "declared")->err, "/etc/declared.conf declares declared");
	EXPECT_IN(RUN(&verb_remove, "--wait", "busy")->err, "waiting: busy is in use");
	expect_failure(RUN(&verb_remove, "nosuch"), EXIT_FAILED, "there is no nosuch");
	expect_failure(RUN(&verb_remove, "/dev/ublkb5"), EXIT_FAILED, "no export '/dev/ublkb5'");
	expect_failure(RUN(&verb_remove, "/dev/ublk/nothing"), EXIT_FAILED, "no export");
	expect_failure(RUN(&verb_remove, "/dev/null"), EXIT_FAILED, "no export '/dev/null'");
}

static void test_resize(void **state)
{
	json_t *json;

	(void)state;
	assert_string_equal(RUN(&verb_resize, "data")->out, "data: 4K\n");
	assert_string_equal(RUN(&verb_resize, "/dev/ublkb3", "3G")->out, "data: 3G\n");
	json = json_of(RUN(&verb_resize, "--json", "--force", "data", "512"));
	assert_int_equal(json_integer_value(json_object_get(json, "size")), 512);
	json_decref(json);
	expect_failure(RUN(&verb_resize, "9", "1G"), EXIT_USAGE,
		       "ublkd does not serve this device");
	expect_failure(RUN(&verb_resize, "nothing"), EXIT_FAILED, "no export 'nothing'");
}

static void test_errors_are_one_line_each(void **state)
{
	static const struct verb *const verbs[] = { &verb_show, &verb_stats, &verb_suspend,
						    &verb_resume, &verb_upgrade };

	(void)state;
	for (unsigned i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		expect_failure(RUN(verbs[i], "nosuch"), EXIT_FAILED, "there is no nosuch");
		expect_failure(RUN(verbs[i], "invalid"), EXIT_USAGE, "it makes no sense");
		expect_failure(RUN(verbs[i], "failed"), EXIT_FAILED, "no space is left");
		expect_failure(RUN(verbs[i], "denied"), EXIT_FAILED, "only root may");
	}
	expect_failure(RUN(&verb_export, "exists=memory:1M"), EXIT_FAILED, "another URI");
	expect_done(RUN(&verb_suspend, "data"));
	expect_done(RUN(&verb_resume, "data"));
}

static void test_results_of_many(void **state)
{
	static const struct verb *const verbs[] = { &verb_reload, &verb_shutdown };
	struct output *o;
	json_t *json;

	(void)state;
	for (unsigned i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		o = RUN_ALONE(verbs[i]);
		assert_int_equal(o->status, EXIT_FAILED);
		assert_string_equal(o->out, "data: was made\n");
		EXPECT_IN(o->err, "other: its file is gone\n");
	}
	o = RUN(&verb_upgrade, "data");
	expect_done(o);
	assert_string_equal(o->out, "data: done\n");
	assert_int_equal(RUN(&verb_upgrade, "--all")->status, EXIT_FAILED);
	o = RUN(&verb_shutdown, "--remove", "--force", "--json");
	assert_int_equal(o->status, EXIT_FAILED);
	json = json_loads(o->out, 0, NULL);
	assert_int_equal(json_array_size(json), 2);
	json_decref(json);
}

/* ---- who answers is not ublkd, or nobody ---- */

static const struct verb *const asking[] = { &verb_list,     &verb_show,    &verb_stats,
					     &verb_monitor,  &verb_suspend, &verb_resume,
					     &verb_remove,   &verb_resize,  &verb_reload,
					     &verb_shutdown, &verb_export,  &verb_upgrade };

static bool wants_name(const struct verb *verb)
{
	return strstr(verb->arguments, "NAME");
}

static struct output *run_at(const struct verb *verb, const char *path)
{
	const char *words[4] = { "--socket", path };

	if (wants_name(verb))
		words[2] = verb == &verb_export ? "memory:1M" : "data";
	return run_words(verb, words);
}

static void test_without_ublkd(void **state)
{
	char path[120];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/nobody", directory);
	for (unsigned i = 0; i < sizeof(asking) / sizeof(*asking); i++)
		expect_failure(run_at(asking[i], path), EXIT_FAILED, "ublkd is not running");
	/* A ublkd that has died leaves its socket. */
	fd = bound_socket(path);
	close(fd);
	expect_failure(run_at(&verb_list, path), EXIT_FAILED, "systemctl start ublkd");
	unlink(path);
}

static void answer_with(int fd, const char *bytes, size_t length)
{
	char request[4096];
	int peer = accept(fd, NULL, NULL);

	if (peer < 0 || read(peer, request, sizeof(request)) <= 0 ||
	    write(peer, bytes, length) != (ssize_t)length)
		_exit(1);
	close(peer);
	_exit(0);
}

static void test_answers_of_something_else(void **state)
{
	static const struct {
		const char *text, *about;
		bool is_cut;
	} all[] = {
		{ "", "closed the connection", true },
		{ "{\"parameters\":{}}", "closed the connection", true },
		{ "SSH-2.0\n", "malformed answer", false },
		{ "[]", "malformed answer", false },
		{ "{\"error\":5}", "an error", false },
		{ "{\"error\":\"a.b.\x1b[1m\"}", "malformed answer", false },
		{ "{\"error\":\"a.b.C\\u001b\"}", "a.b.C\\x1b", false },
		{ "{\"error\":\"org.varlink.service.MethodNotFound\"}", "older", false },
		{ "{\"error\":\"org.varlink.service.PermissionDenied\"}", "run as root", false },
	};
	char path[120];
	int status;

	(void)state;
	snprintf(path, sizeof(path), "%s/other", directory);
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int fd = bound_socket(path);
		pid_t child = fork();

		if (!child) {
			alarm(60);
			answer_with(fd, all[i].text, strlen(all[i].text) + !all[i].is_cut);
		}
		close(fd);
		expect_failure(run_at(&verb_list, path), EXIT_FAILED, all[i].about);
		waitpid(child, &status, 0);
		assert_int_equal(status, 0);
		unlink(path);
	}
	/* A member that an answer lacks is no reason to crash. */
	for (unsigned i = 0; i < sizeof(asking) / sizeof(*asking); i++) {
		int fd = bound_socket(path);
		pid_t child = fork();

		if (!child) {
			alarm(60);
			answer_with(fd, "{}", 3);
		}
		close(fd);
		run_at(asking[i], path);
		waitpid(child, &status, 0);
		unlink(path);
	}
}

static void test_help_of_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(asking) / sizeof(*asking); i++) {
		struct output *o = run_words(asking[i], (const char *const[]){ "--help", NULL });

		expect_done(o);
		EXPECT_IN(o->out, asking[i]->arguments, asking[i]->summary, "--socket PATH");
		if (strstr(asking[i]->arguments, "[OPTIONS]"))
			continue;
		assert_int_equal(!strstr(asking[i]->arguments, "--json"),
				 !strstr(o->out, "--json"));
		expect_failure(run_words(asking[i], (const char *const[]){ "--frob", NULL }),
			       EXIT_USAGE, "--frob");
	}
}

/* A client in another language, which knows no more than the description. */
static void test_a_client_made_from_the_description(void **state)
{
	const char *source = getenv("TEST_SOURCE");
	char command[600], answer[4096] = "";
	FILE *out;

	(void)state;
	if (system("python3 -c 1 >/dev/null 2>&1")) {
		print_message("python3 is not here\n");
		skip();
	}
	snprintf(command, sizeof(command),
		 "python3 -B '%s/tests/lib/varlink.py' --examples %s io.ublkd 2>&1",
		 source ? source : ".", socket_path);
	out = popen(command, "r");
	assert_non_null(out);
	while (fgets(answer + strlen(answer), (int)(sizeof(answer) - strlen(answer)), out))
		continue;
	if (pclose(out))
		fail_msg("%s", answer);
	for (const struct varlink_method *m = methods; m->name; m++)
		assert_non_null(strstr(answer, m->name));
	EXPECT_IN(answer, "Monitor org.varlink.service.ExpectedMore");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_show),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_monitor),
		cmocka_unit_test(test_export),
		cmocka_unit_test(test_nonsense_is_refused_before_ublkd_is_asked),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_errors_are_one_line_each),
		cmocka_unit_test(test_results_of_many),
		cmocka_unit_test(test_without_ublkd),
		cmocka_unit_test(test_answers_of_something_else),
		cmocka_unit_test(test_help_of_all),
		cmocka_unit_test(test_a_client_made_from_the_description),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
