/* SPDX-License-Identifier: MIT */
/*
 * The Varlink server against clients that do as they should and clients that do
 * not.  Everything is in one thread: each step of a client is followed by turns of
 * the loop until what is awaited has come, or can no longer come.
 */
#include "common/error.h"
#include "common/log.h"
#include "varlink/varlink.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define BOUND_MS 20000

static const char description[] =
	"# A test's\n"
	"interface org.example.test\n"
	"method Echo(text: ?string, number: ?int, object: ?object) -> (text: ?string, number: ?int, object: ?object)\n"
	"method Change() -> ()\n"
	"method Later(name: string) -> (name: string)\n"
	"method Count(to: int) -> (number: int)\n"
	"method Watch() -> (text: string)\n"
	"method Fail(message: string) -> ()\n"
	"method Wrong() -> (number: int)\n"
	"method WrongError() -> ()\n"
	"method Missing() -> ()\n"
	"method Big(bytes: int) -> (text: string)\n"
	"error Failed (message: string)\n"
	"error NotYours ()\n";

static struct {
	uv_loop_t loop;
	struct varlink *server;
	struct varlink_call *held[600]; /* of Later and Watch, until the test answers */
	unsigned nr_held, nr_cancelled, nr_run, nr_closed;
	bool forbid_changes, forbid_all;
	struct varlink_peer peer;
	bool in_group;
} test;

/* ---- methods ---- */

static void run_echo(struct varlink_call *call, json_t *parameters, void *context)
{
	assert_ptr_equal(context, &test);
	test.nr_run++;
	test.peer = *varlink_peer(call);
	test.in_group = varlink_peer_in_group(varlink_peer(call), getgid());
	varlink_reply(call, json_incref(parameters));
}

static void run_change(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)parameters;
	(void)context;
	test.nr_run++;
	varlink_reply(call, NULL);
}

static void cancelled(struct varlink_call *call, void *context)
{
	struct varlink_call **held = context;

	assert_ptr_equal(*held, call);
	assert_true(varlink_is_gone(call));
	test.nr_cancelled++;
}

/* Answers itself when its peer goes away. */
static void cancelled_and_answered(struct varlink_call *call, void *context)
{
	cancelled(call, context);
	*(struct varlink_call **)context = NULL;
	varlink_reply(call, NULL);
}

static void hold(struct varlink_call *call, json_t *parameters, void *context)
{
	const char *name = json_string_value(json_object_get(parameters, "name"));
	struct varlink_call **held = &test.held[test.nr_held++];

	(void)context;
	*held = call;
	assert_int_equal(varlink_on_cancel(call,
					   name && !strcmp(name, "careful") ? cancelled_and_answered
									    : cancelled,
					   held),
			 0);
}

static void answer_held(unsigned i, const char *name)
{
	struct varlink_call *call = test.held[i];

	test.held[i] = NULL;
	varlink_reply(call, json_pack("{s:s}", "name", name));
}

static void run_count(struct varlink_call *call, json_t *parameters, void *context)
{
	json_int_t to = json_integer_value(json_object_get(parameters, "to"));

	(void)context;
	test.nr_run++;
	for (json_int_t i = 1; i < to; i++)
		if (varlink_reply_more(call, json_pack("{s:I}", "number", i)))
			break;
	varlink_reply(call, json_pack("{s:I}", "number", to));
}

static void run_fail(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)context;
	varlink_error(call, "Failed", json_incref(parameters));
}

static void run_wrong(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)parameters;
	(void)context;
	varlink_reply(call, json_pack("{s:s}", "number", "one"));
}

static void run_wrong_error(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)parameters;
	(void)context;
	varlink_error(call, "NoSuchError", NULL);
}

static void run_big(struct varlink_call *call, json_t *parameters, void *context)
{
	size_t bytes = (size_t)json_integer_value(json_object_get(parameters, "bytes"));
	char *text = malloc(bytes);

	(void)context;
	assert_non_null(text);
	memset(text, 'x', bytes);
	test.nr_run++;
	varlink_reply(call, json_pack("{s:s#}", "text", text, (int)bytes));
	free(text);
}

static const struct varlink_method methods[] = {
	{ "Echo", false, false, run_echo },   { "Change", true, false, run_change },
	{ "Later", false, false, hold },      { "Count", false, true, run_count },
	{ "Watch", false, true, hold },       { "Fail", false, false, run_fail },
	{ "Wrong", false, false, run_wrong }, { "WrongError", false, false, run_wrong_error },
	{ "Big", false, false, run_big },     { .name = NULL },
};
static const struct varlink_interface tested = {
	.description = description,
	.methods = methods,
	.context = &test,
};
static const struct varlink_interface *const interfaces[] = { &tested, NULL };

/* ---- the server ---- */

static bool may(const struct varlink_peer *peer, bool changes, void *context)
{
	assert_ptr_equal(context, &test);
	assert_int_equal(peer->uid, getuid());
	return !test.forbid_all && !(changes && test.forbid_changes);
}

static void start(const struct varlink_limits *limits)
{
	struct varlink_setup setup = {
		.vendor = "the test",
		.product = "a server",
		.version = "1",
		.url = "https://example.org/",
		.may = may,
		.context = &test,
		.check_replies = true,
	};
	struct error err;

	memset(&test, 0, sizeof(test));
	if (limits)
		setup.limits = *limits;
	assert_int_equal(uv_loop_init(&test.loop), 0);
	assert_int_equal(varlink_create(&test.server, &test.loop, &setup, &err), 0);
}

static void closed(void *context)
{
	(*(unsigned *)context)++;
}

/* Calls that are still held are answered after the server is gone. */
static void end(void)
{
	varlink_close(test.server, closed, &test.nr_closed);
	assert_int_equal(test.nr_closed, 0);
	uv_run(&test.loop, UV_RUN_DEFAULT);
	assert_int_equal(test.nr_closed, 1);
	for (unsigned i = 0; i < test.nr_held; i++)
		if (test.held[i])
			answer_held(i, "late");
	assert_int_equal(uv_loop_close(&test.loop), 0);
}

static void turn(unsigned times)
{
	while (times--)
		uv_run(&test.loop, UV_RUN_NOWAIT);
}

static bool is_over(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - from->tv_sec) * 1000 + (now.tv_nsec - from->tv_nsec) / 1000000 >
	       BOUND_MS;
}

/* ---- clients ---- */

struct peer {
	int fd;
	char *in;
	size_t have;
	bool eof;
};

static struct peer connected(void)
{
	struct peer peer = { 0 };
	struct error err;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	peer.fd = fds[0];
	peer.in = calloc(1, 1);
	if (varlink_serve(test.server, fds[1], interfaces, &err))
		fail_msg("%s", err.text);
	return peer;
}

static void leave(struct peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	free(peer->in);
	*peer = (struct peer){ .fd = -1 };
}

/* Sends bytes, with turns of the loop where the socket is full; false: it was closed. */
static bool send_bytes(struct peer *peer, const char *bytes, size_t length)
{
	struct timespec from;

	clock_gettime(CLOCK_MONOTONIC, &from);
	while (length) {
		ssize_t n = send(peer->fd, bytes, length, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0) {
			turn(1);
			assert_false(is_over(&from));
			continue;
		}
		bytes += n;
		length -= (size_t)n;
	}
	return true;
}

static bool send_text(struct peer *peer, const char *text)
{
	return send_bytes(peer, text, strlen(text) + 1);
}

static void send_echo(struct peer *peer, int number)
{
	char text[200];

	snprintf(text, sizeof(text),
		 "{\"method\":\"org.example.test.Echo\",\"parameters\":{\"number\":%d}}", number);
	assert_true(send_text(peer, text));
}

static void read_some(struct peer *peer)
{
	char bytes[65536];
	ssize_t n = recv(peer->fd, bytes, sizeof(bytes), 0);

	if (!n || (n < 0 && errno == ECONNRESET))
		peer->eof = true;
	if (n <= 0)
		return;
	peer->in = realloc(peer->in, peer->have + (size_t)n);
	assert_non_null(peer->in);
	memcpy(peer->in + peer->have, bytes, (size_t)n);
	peer->have += (size_t)n;
}

/* The next answer, which the caller releases; NULL: the connection was closed instead. */
static json_t *answer(struct peer *peer)
{
	struct timespec from;
	char *stop;
	json_t *json;

	clock_gettime(CLOCK_MONOTONIC, &from);
	while (!(stop = memchr(peer->in, 0, peer->have))) {
		if (peer->eof)
			return NULL;
		turn(1);
		read_some(peer);
		assert_false(is_over(&from));
	}
	json = json_loads(peer->in, 0, NULL);
	assert_non_null(json);
	peer->have -= (size_t)(stop - peer->in) + 1;
	memmove(peer->in, stop + 1, peer->have);
	return json;
}

/* The reply is the wanted one, written with ' for ". */
static void expect_json(json_t *got, const char *wanted)
{
	char *text = strdup(wanted), *found;
	json_t *json;

	assert_non_null(text);
	for (char *c = text; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	assert_non_null(got);
	if (!json_equal(got, json)) {
		found = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY);
		fail_msg("%s came, and not %s", found, text);
	}
	json_decref(got);
	json_decref(json);
	free(text);
}

static void expect_answer(struct peer *peer, const char *wanted)
{
	expect_json(answer(peer), wanted);
}

static void expect_closed(struct peer *peer)
{
	json_t *json = answer(peer);

	if (json)
		fail_msg("%s", json_dumps(json, JSON_COMPACT));
}

static void expect_silence(struct peer *peer)
{
	turn(20);
	read_some(peer);
	assert_int_equal(peer->have, 0);
	assert_false(peer->eof);
}

/* A request with ' for ". */
static void ask(struct peer *peer, const char *request)
{
	char *text = strdup(request);

	for (char *c = text; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	assert_true(send_text(peer, text));
	free(text);
}

static void expect(struct peer *peer, const char *request, const char *wanted)
{
	ask(peer, request);
	expect_answer(peer, wanted);
}

#define INVALID(what) \
	"{'error':'org.varlink.service.InvalidParameter','parameters':{'parameter':'" what "'}}"

#define INVALID_REPLY(what) \
	"{'error':'org.varlink.service.InvalidReply','parameters':{'parameter':'" what "'}}"

/* ---- what a server answers ---- */

static void test_answers(void **state)
{
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	expect(&peer, "{'method':'org.example.test.Echo','parameters':{'text':'a','number':-5}}",
	       "{'parameters':{'text':'a','number':-5}}");
	expect(&peer, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
	expect(&peer, "{'method':'org.example.test.Echo','parameters':null,'more':null}",
	       "{'parameters':{}}");
	expect(&peer, "{'method':'org.example.test.Echo','parameters':{},'more':true}",
	       "{'parameters':{}}");
	expect(&peer,
	       " {\n'parameters' :\t{'object':{'deep':[1,[2,{'x':null}]]}}, 'method': 'org.example.test.Echo'} ",
	       "{'parameters':{'object':{'deep':[1,[2,{'x':null}]]}}}");
	expect(&peer, "{'method':'org.example.test.Fail','parameters':{'message':'it is broken'}}",
	       "{'error':'org.example.test.Failed','parameters':{'message':'it is broken'}}");
	assert_int_equal(test.peer.uid, getuid());
	assert_int_equal(test.peer.gid, getgid());
	assert_int_equal(test.peer.pid, getpid());
	assert_true(test.in_group);
	leave(&peer);
	end();
}

static void test_describes_itself(void **state)
{
	struct peer peer;
	json_t *json;

	(void)state;
	start(NULL);
	peer = connected();
	expect(&peer, "{'method':'org.varlink.service.GetInfo','parameters':{}}",
	       "{'parameters':{'vendor':'the test','product':'a server','version':'1','url':"
	       "'https://example.org/','interfaces':['org.varlink.service','org.example.test']}}");
	ask(&peer, "{'method':'org.varlink.service.GetInterfaceDescription','parameters':"
		   "{'interface':'org.example.test'}}");
	json = answer(&peer);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "parameters"),
							      "description")),
			    description);
	json_decref(json);
	ask(&peer, "{'method':'org.varlink.service.GetInterfaceDescription','parameters':"
		   "{'interface':'org.varlink.service'}}");
	json = answer(&peer);
	assert_non_null(strstr(json_string_value(json_object_get(
				       json_object_get(json, "parameters"), "description")),
			       "interface org.varlink.service"));
	json_decref(json);
	expect(&peer,
	       "{'method':'org.varlink.service.GetInterfaceDescription','parameters':"
	       "{'interface':'org.example'}}",
	       "{'error':'org.varlink.service.InterfaceNotFound','parameters':{'interface':'org.example'}}");
	leave(&peer);
	end();
}

static void test_refuses_malformed_calls(void **state)
{
	static const struct {
		const char *request, *wanted;
	} bad[] = {
		{ "{}", INVALID("method") },
		{ "{'method':5}", INVALID("method") },
		{ "{'method':'Echo'}", INVALID("method") },
		{ "{'method':'org.example.test.Echo','parameters':[]}", INVALID("parameters") },
		{ "{'method':'org.example.test.Echo','parameters':'x'}", INVALID("parameters") },
		{ "{'method':'org.example.test.Echo','more':1}", INVALID("more") },
		{ "{'method':'org.example.test.Echo','oneway':'true'}", INVALID("oneway") },
		{ "{'method':'org.example.test.Echo','upgrade':true}", INVALID("upgrade") },
		{ "{'method':'org.example.test.Echo','parameters':{'text':1}}", INVALID("text") },
		{ "{'method':'org.example.test.Echo','parameters':{'number':'1'}}",
		  INVALID("number") },
		{ "{'method':'org.example.test.Echo','parameters':{'nosuch':1}}",
		  INVALID("nosuch") },
		{ "{'method':'org.example.test.Later','parameters':{}}", INVALID("name") },
		{ "{'method':'org.example.test.Later','parameters':{'name':null}}",
		  INVALID("name") },
		{ "{'method':'org.example.tes.Echo'}",
		  "{'error':'org.varlink.service.InterfaceNotFound','parameters':{'interface':'org.example.tes'}}" },
		{ "{'method':'.'}",
		  "{'error':'org.varlink.service.InterfaceNotFound','parameters':{'interface':''}}" },
		{ "{'method':'org.example.test.'}",
		  "{'error':'org.varlink.service.MethodNotFound','parameters':{'method':'org.example.test.'}}" },
		{ "{'method':'org.example.test.Failed'}",
		  "{'error':'org.varlink.service.MethodNotFound','parameters':{'method':'org.example.test.Failed'}}" },
		{ "{'method':'org.example.test.Missing'}",
		  "{'error':'org.varlink.service.MethodNotImplemented','parameters':{'method':'org.example.test.Missing'}}" },
		{ "{'method':'org.example.test.Count','parameters':{'to':3}}",
		  "{'error':'org.varlink.service.ExpectedMore','parameters':{}}" },
	};
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect(&peer, bad[i].request, bad[i].wanted);
	/* The connection is as good as before. */
	expect(&peer, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
	assert_int_equal(test.nr_run, 1);
	assert_int_equal(test.nr_held, 0);
	leave(&peer);
	end();
}

static void test_a_malformed_request_ends_the_connection(void **state)
{
	static const char *const bad[] = {
		"",
		"x",
		"[]",
		"{",
		"5",
		"{\"method\":\"org.example.test.Echo\"} x",
		"{\"method\":\"org.example.test.Echo\",\"method\":\"org.example.test.Echo\"}",
		"{\"method\":\"\\u0000\"}",
		"{\"method\":\"\xff\"}",
		"{\"method\":\"org.example.test.Echo\",\"parameters\":{\"number\":99999999999999999999}}",
		"{'method':'org.example.test.Echo'}",
		"GET / HTTP/1.1\r\n\r\n",
	};

	(void)state;
	start(NULL);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct peer peer = connected(), other = connected();
		json_t *json;

		assert_true(send_text(&peer, bad[i]));
		json = answer(&peer);
		assert_string_equal(json_string_value(json_object_get(json, "error")),
				    "org.varlink.service.InvalidParameter");
		assert_non_null(strstr(json_string_value(json_object_get(
					       json_object_get(json, "parameters"), "parameter")),
				       "request: "));
		json_decref(json);
		expect_closed(&peer);
		expect(&other, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
		leave(&peer);
		leave(&other);
	}
	assert_int_equal(test.nr_run, sizeof(bad) / sizeof(*bad));
	end();
}

/* Depth is jansson's to refuse, before it takes the stack. */
static void test_deep_requests_are_refused(void **state)
{
	static const unsigned depths[] = { 5000, 400000 };

	(void)state;
	for (unsigned i = 0; i < sizeof(depths) / sizeof(*depths); i++) {
		char *text = malloc(depths[i] + 100);
		struct peer peer;
		json_t *json;
		size_t n;

		start(NULL);
		peer = connected();
		n = (size_t)sprintf(text, "{\"parameters\":{\"object\":{\"a\":");
		memset(text + n, '[', depths[i]);
		text[n + depths[i]] = 0;
		assert_true(send_text(&peer, text));
		json = answer(&peer);
		assert_non_null(json_object_get(json, "error"));
		json_decref(json);
		expect_closed(&peer);
		free(text);
		leave(&peer);
		end();
	}
}

static void test_permission(void **state)
{
	static const char denied[] =
		"{'error':'org.varlink.service.PermissionDenied','parameters':{}}";
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	expect(&peer, "{'method':'org.example.test.Change'}", "{'parameters':{}}");
	test.forbid_changes = true;
	expect(&peer, "{'method':'org.example.test.Change'}", denied);
	/* Whoever may not, is not told what is wrong with what was sent, either. */
	expect(&peer, "{'method':'org.example.test.Change','parameters':{'x':1}}", denied);
	expect(&peer, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
	test.forbid_all = true;
	expect(&peer, "{'method':'org.example.test.Echo'}", denied);
	expect(&peer, "{'method':'org.varlink.service.GetInfo'}", denied);
	leave(&peer);
	end();
}

static void test_groups_of_a_peer(void **state)
{
	static const gid_t others[] = { 11, 12 };
	const struct varlink_peer peer = { .gid = 10, .groups = others, .nr_groups = 2 };

	(void)state;
	for (gid_t gid = 10; gid <= 12; gid++)
		assert_true(varlink_peer_in_group(&peer, gid));
	assert_false(varlink_peer_in_group(&peer, 0));
	assert_false(varlink_peer_in_group(&peer, 13));
}

static void refuse(struct varlink_call *call, void *context)
{
	assert_ptr_equal(context, &test);
	varlink_error(call, "NotYours", NULL);
}

static void test_an_interface_refuses_in_its_own_words(void **state)
{
	static const struct varlink_interface own = {
		.description = description,
		.methods = methods,
		.context = &test,
		.refuse = refuse,
	};
	static const struct varlink_interface *const of_own[] = { &own, NULL };
	struct peer peer = { .fd = -1 };
	struct error err;
	int fds[2];

	(void)state;
	start(NULL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	peer.fd = fds[0];
	peer.in = calloc(1, 1);
	assert_int_equal(varlink_serve(test.server, fds[1], of_own, &err), 0);
	test.forbid_changes = true;
	expect(&peer, "{'method':'org.example.test.Change'}",
	       "{'error':'org.example.test.NotYours','parameters':{}}");
	leave(&peer);
	end();
}

/* Our own mistakes are found by tests. */
static void test_wrong_replies_are_reported(void **state)
{
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	expect(&peer, "{'method':'org.example.test.Wrong'}", INVALID_REPLY("number"));
	expect(&peer, "{'method':'org.example.test.WrongError'}", INVALID_REPLY(""));
	leave(&peer);
	end();
}

/* ---- frames ---- */

static void test_requests_in_pieces(void **state)
{
	static const char request[] =
		"{\"method\":\"org.example.test.Echo\",\"parameters\":{\"text\":\"\xc3\xa9\"}}";
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	for (size_t i = 0; i < sizeof(request); i++) {
		assert_true(send_bytes(&peer, request + i, 1));
		turn(2);
		assert_int_equal(test.nr_run, i + 1 == sizeof(request));
	}
	expect_answer(&peer, "{'parameters':{'text':'\xc3\xa9'}}");
	/* Two and a half at once, cut at each byte in turn. */
	for (size_t cut = 1; cut < sizeof(request); cut++) {
		char three[3 * sizeof(request)];

		for (unsigned i = 0; i < 3; i++)
			memcpy(three + i * sizeof(request), request, sizeof(request));
		assert_true(send_bytes(&peer, three, 2 * sizeof(request) + cut));
		expect_answer(&peer, "{'parameters':{'text':'\xc3\xa9'}}");
		expect_answer(&peer, "{'parameters':{'text':'\xc3\xa9'}}");
		expect_silence(&peer);
		assert_true(send_bytes(&peer, request + cut, sizeof(request) - cut));
		expect_answer(&peer, "{'parameters':{'text':'\xc3\xa9'}}");
	}
	leave(&peer);
	end();
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
	struct peer peer;
	char wanted[100];

	(void)state;
	start(NULL);
	peer = connected();
	for (int i = 0; i < 50; i++)
		send_echo(&peer, i);
	ask(&peer, "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	for (int i = 50; i < 60; i++)
		send_echo(&peer, i);
	for (int i = 0; i < 50; i++) {
		snprintf(wanted, sizeof(wanted), "{'parameters':{'number':%d}}", i);
		expect_answer(&peer, wanted);
	}
	expect_silence(&peer);
	assert_int_equal(test.nr_run, 50);
	assert_int_equal(test.nr_held, 1);
	answer_held(0, "n");
	expect_answer(&peer, "{'parameters':{'name':'n'}}");
	for (int i = 50; i < 60; i++) {
		snprintf(wanted, sizeof(wanted), "{'parameters':{'number':%d}}", i);
		expect_answer(&peer, wanted);
	}
	leave(&peer);
	end();
}

/* More than the server keeps: it reads on when it has room. */
static void test_many_requests_wait_in_the_socket(void **state)
{
	const struct varlink_limits limits = { .frame_bytes = 1000 };
	struct peer peer;
	char wanted[100];
	int sent = 0, got = 0;

	(void)state;
	start(&limits);
	peer = connected();
	ask(&peer, "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	turn(5);
	for (; sent < 150; sent++)
		send_echo(&peer, sent);
	turn(50);
	answer_held(0, "n");
	expect_answer(&peer, "{'parameters':{'name':'n'}}");
	for (; got < sent; got++) {
		snprintf(wanted, sizeof(wanted), "{'parameters':{'number':%d}}", got);
		expect_answer(&peer, wanted);
	}
	leave(&peer);
	end();
}

static char *frame_of(size_t bytes)
{
	static const char head[] =
		"{\"method\":\"org.example.test.Echo\",\"parameters\":{\"text\":\"",
			  tail[] = "\"}}";
	char *frame = malloc(bytes + 1);

	assert_non_null(frame);
	memset(frame, 'x', bytes);
	memcpy(frame, head, sizeof(head) - 1);
	memcpy(frame + bytes - (sizeof(tail) - 1), tail, sizeof(tail));
	return frame;
}

static void test_long_requests(void **state)
{
	static const size_t sizes[] = { 100, 4095, 4096, 4097, 65536, (1 << 20) - 1, 1 << 20 };
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		char *frame = frame_of(sizes[i]);
		json_t *json;

		assert_true(send_text(&peer, frame));
		json = answer(&peer);
		assert_true(json_string_length(json_object_get(json_object_get(json, "parameters"),
							       "text")) > sizes[i] - 100);
		json_decref(json);
		free(frame);
	}
	leave(&peer);
	end();
}

static void test_too_long_requests_end_the_connection(void **state)
{
	static const size_t sizes[] = { (1 << 20) + 1, (1 << 20) + 4096, 100 << 20 };

	(void)state;
	start(NULL);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct peer peer = connected(), other = connected();
		char *frame = frame_of(sizes[i]);

		send_text(&peer, frame);
		expect_answer(&peer, INVALID("request: it is too long"));
		expect_closed(&peer);
		expect(&other, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
		free(frame);
		leave(&peer);
		leave(&other);
	}
	end();
}

static void test_a_request_must_end_in_time(void **state)
{
	const struct varlink_limits limits = { .frame_ms = 20 };
	struct peer idle, slow, working;

	(void)state;
	start(&limits);
	idle = connected();
	slow = connected();
	working = connected();
	ask(&working, "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	assert_true(send_bytes(&slow, "{", 1));
	expect_closed(&slow);
	/* A peer that has begun no request may take its time, and so may one that waits for us. */
	answer_held(0, "n");
	expect_answer(&working, "{'parameters':{'name':'n'}}");
	expect(&idle, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
	leave(&idle);
	leave(&slow);
	leave(&working);
	end();
}

/* ---- one way, many, and none ---- */

static void test_oneway_is_not_answered(void **state)
{
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	ask(&peer, "{'method':'org.example.test.Echo','oneway':true}");
	ask(&peer, "{'method':'org.example.test.NoSuch','oneway':true}");
	ask(&peer, "{'method':'org.example.test.Fail','parameters':{'message':'m'},'oneway':true}");
	ask(&peer,
	    "{'method':'org.example.test.Count','parameters':{'to':3},'oneway':true,'more':true}");
	expect_silence(&peer);
	assert_int_equal(test.nr_run, 1);
	expect(&peer, "{'method':'org.example.test.Echo'}", "{'parameters':{}}");
	/* The call is done also for a peer that does not stay. */
	ask(&peer, "{'method':'org.example.test.Change','oneway':true}");
	ask(&peer, "{'method':'org.example.test.Change'}");
	ask(&peer, "{'method':'org.example.test.Change','oneway':true}");
	leave(&peer);
	turn(20);
	assert_int_equal(test.nr_run, 4);
	end();
}

static void test_more_answers(void **state)
{
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	ask(&peer, "{'method':'org.example.test.Count','parameters':{'to':3},'more':true}");
	ask(&peer, "{'method':'org.example.test.Echo'}");
	expect_answer(&peer, "{'parameters':{'number':1},'continues':true}");
	expect_answer(&peer, "{'parameters':{'number':2},'continues':true}");
	expect_answer(&peer, "{'parameters':{'number':3}}");
	expect_answer(&peer, "{'parameters':{}}");
	leave(&peer);
	end();
}

/* ---- peers that go away ---- */

static void test_calls_of_a_closed_connection_are_cancelled(void **state)
{
	struct peer peers[4];

	(void)state;
	start(NULL);
	for (unsigned i = 0; i < 4; i++) {
		peers[i] = connected();
		if (i < 2)
			ask(&peers[i],
			    "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
		else if (i == 2)
			ask(&peers[i], "{'method':'org.example.test.Watch','more':true}");
		else
			ask(&peers[i],
			    "{'method':'org.example.test.Later','parameters':{'name':'careful'}}");
		turn(5);
	}
	assert_int_equal(test.nr_held, 4);
	for (unsigned i = 1; i < 4; i++)
		leave(&peers[i]);
	turn(10);
	assert_int_equal(test.nr_cancelled, 3);
	assert_null(test.held[3]);
	assert_int_equal(varlink_reply_more(test.held[2], json_pack("{s:s}", "text", "x")), -EPIPE);
	assert_int_equal(varlink_on_cancel(test.held[1], cancelled, &test.held[1]), -EPIPE);
	answer_held(0, "n");
	expect_answer(&peers[0], "{'parameters':{'name':'n'}}");
	answer_held(1, "n");
	answer_held(2, "n");
	leave(&peers[0]);
	end();
}

/* Without a last word, an answer is still awaited. */
static void test_half_closed_connections_are_answered(void **state)
{
	struct peer peer;

	(void)state;
	start(NULL);
	peer = connected();
	ask(&peer, "{'method':'org.example.test.Echo'}");
	ask(&peer, "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	send_echo(&peer, 7);
	assert_true(send_bytes(&peer, "{\"meth", 6));
	shutdown(peer.fd, SHUT_WR);
	expect_answer(&peer, "{'parameters':{}}");
	expect_silence(&peer);
	assert_int_equal(test.nr_cancelled, 0);
	answer_held(0, "n");
	expect_answer(&peer, "{'parameters':{'name':'n'}}");
	expect_answer(&peer, "{'parameters':{'number':7}}");
	expect_closed(&peer);
	leave(&peer);
	end();
}

/* Cut after each byte of two requests and in the midst of answers. */
static void test_cut_connections(void **state)
{
	static const char requests[] =
		"{\"method\":\"org.example.test.Echo\"}\0"
		"{\"method\":\"org.example.test.Big\",\"parameters\":{\"bytes\":1000000}}";

	(void)state;
	start(NULL);
	for (size_t cut = 0; cut <= sizeof(requests); cut++)
		for (unsigned turns = 0; turns < 4; turns++) {
			struct peer peer = connected();

			assert_true(send_bytes(&peer, requests, cut));
			turn(turns);
			leave(&peer);
		}
	turn(20);
	end();
}

/* ---- slow readers ---- */

static void test_a_peer_that_does_not_read_delays_no_other(void **state)
{
	struct peer slow, other;
	unsigned run;

	(void)state;
	start(NULL);
	slow = connected();
	other = connected();
	for (unsigned i = 0; i < 8; i++)
		ask(&slow, "{'method':'org.example.test.Big','parameters':{'bytes':3000000}}");
	turn(20);
	run = test.nr_run;
	/* Its next one is not even begun. */
	assert_int_equal(run, 1);
	for (int i = 0; i < 20; i++) {
		char wanted[100];

		send_echo(&other, i);
		snprintf(wanted, sizeof(wanted), "{'parameters':{'number':%d}}", i);
		expect_answer(&other, wanted);
	}
	assert_int_equal(test.nr_run, run + 20);
	for (unsigned i = 0; i < 8; i++) {
		json_t *json = answer(&slow);

		assert_int_equal(json_string_length(json_object_get(
					 json_object_get(json, "parameters"), "text")),
				 3000000);
		json_decref(json);
	}
	leave(&slow);
	leave(&other);
	end();
}

static void test_a_stream_that_is_not_read_ends(void **state)
{
	const struct varlink_limits limits = { .unsent_bytes = 10000 };
	struct peer slow;
	unsigned sent = 0;
	char text[1001];
	int ret;

	(void)state;
	start(&limits);
	slow = connected();
	ask(&slow, "{'method':'org.example.test.Watch','more':true}");
	turn(5);
	memset(text, 'x', sizeof(text) - 1);
	text[1000] = 0;
	do {
		ret = varlink_reply_more(test.held[0], json_pack("{s:s}", "text", text));
		turn(1);
	} while (!ret && ++sent < 100000);
	assert_int_equal(ret, -EPIPE);
	turn(5);
	assert_int_equal(test.nr_cancelled, 1);
	while (sent--) {
		json_t *json = answer(&slow);

		if (!json)
			break;
		json_decref(json);
	}
	assert_true(slow.eof);
	leave(&slow);
	end();
}

/* ---- many ---- */

static bool is_served(struct peer *peer)
{
	json_t *json = NULL;

	if (send_text(peer, "{\"method\":\"org.example.test.Echo\"}"))
		json = answer(peer);
	json_decref(json);
	return json;
}

static void test_the_longest_idle_makes_room(void **state)
{
	const struct varlink_limits limits = { .connections = 4 };
	struct peer peers[6];

	(void)state;
	start(&limits);
	for (unsigned i = 0; i < 4; i++) {
		peers[i] = connected();
		sleep_us(2000);
		turn(2);
	}
	/* The first is the last that was used, and the second has a call under way. */
	ask(&peers[1], "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	turn(5);
	sleep_us(2000);
	assert_true(is_served(&peers[0]));
	peers[4] = connected();
	turn(5);
	expect_closed(&peers[2]);
	peers[5] = connected();
	turn(5);
	expect_closed(&peers[3]);
	assert_true(is_served(&peers[0]));
	assert_true(is_served(&peers[4]));
	assert_true(is_served(&peers[5]));
	answer_held(0, "n");
	expect_answer(&peers[1], "{'parameters':{'name':'n'}}");
	for (unsigned i = 0; i < 6; i++)
		leave(&peers[i]);
	end();
}

/* The loop's clock stands still between them. */
static void test_of_those_idle_for_as_long_the_first_makes_room(void **state)
{
	const struct varlink_limits limits = { .connections = 4 };
	struct peer peers[5];

	(void)state;
	start(&limits);
	for (unsigned i = 0; i < 5; i++)
		peers[i] = connected();
	turn(5);
	expect_closed(&peers[0]);
	for (unsigned i = 1; i < 5; i++)
		assert_true(is_served(&peers[i]));
	for (unsigned i = 0; i < 5; i++)
		leave(&peers[i]);
	end();
}

static void test_a_connection_beyond_the_bound_is_turned_away(void **state)
{
	const struct varlink_limits limits = { .connections = 3 };
	struct peer peers[3];
	struct error err;
	int fds[2];

	(void)state;
	start(&limits);
	for (unsigned i = 0; i < 3; i++) {
		peers[i] = connected();
		ask(&peers[i], "{'method':'org.example.test.Watch','more':true}");
		turn(5);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(varlink_serve(test.server, fds[1], interfaces, &err), -EUSERS);
	turn(5);
	assert_int_equal(recv(fds[0], &err, 1, 0), 0);
	close(fds[0]);
	leave(&peers[0]);
	turn(10);
	peers[0] = connected();
	assert_true(is_served(&peers[0]));
	for (unsigned i = 0; i < 3; i++)
		leave(&peers[i]);
	end();
}

static void test_five_hundred_clients(void **state)
{
	const struct varlink_limits limits = { .connections = 600 };
	static struct peer peers[500];
	struct rlimit files;
	char wanted[100];

	(void)state;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	start(&limits);
	for (unsigned i = 0; i < 500; i++) {
		peers[i] = connected();
		ask(&peers[i], "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
		send_echo(&peers[i], (int)i);
	}
	turn(20);
	assert_int_equal(test.nr_held, 500);
	for (unsigned i = 500; i--;)
		answer_held(i, "n");
	for (unsigned i = 0; i < 500; i++) {
		expect_answer(&peers[i], "{'parameters':{'name':'n'}}");
		snprintf(wanted, sizeof(wanted), "{'parameters':{'number':%u}}", i);
		expect_answer(&peers[i], wanted);
	}
	for (unsigned i = 0; i < 500; i++)
		leave(&peers[i]);
	end();
}

/* ---- sockets to listen on ---- */

static int listening(char *path, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, size, "%s/test-varlink.%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
		 (int)getpid());
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -errno;
	}
	return fd;
}

static void test_listens(void **state)
{
	struct peer peers[3];
	struct error err;
	char path[100];

	(void)state;
	start(NULL);
	if (varlink_listen(test.server, listening(path, sizeof(path)), interfaces, &err))
		fail_msg("%s", err.text);
	for (unsigned i = 0; i < 3; i++) {
		peers[i] = (struct peer){ .fd = connect_to(path), .in = calloc(1, 1) };
		assert_true(peers[i].fd >= 0);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_true(is_served(&peers[i]));
	/* Stopping: who has a call keeps it, nobody else is let in. */
	ask(&peers[1], "{'method':'org.example.test.Later','parameters':{'name':'n'}}");
	turn(5);
	varlink_stop(test.server);
	expect_closed(&peers[0]);
	expect_closed(&peers[2]);
	assert_int_equal(connect_to(path), -ECONNREFUSED);
	answer_held(0, "n");
	expect_answer(&peers[1], "{'parameters':{'name':'n'}}");
	expect_closed(&peers[1]);
	for (unsigned i = 0; i < 3; i++)
		leave(&peers[i]);
	unlink(path);
	end();
}

/* Another user, a child, connects this often; returns how many of these stay open. */
static unsigned open_of_another_user(unsigned nr)
{
	int to_child[2], to_parent[2], status;
	struct error err;
	char path[100], byte;
	pid_t child;

	assert_true(nr >= 1 && nr <= 64);
	assert_int_equal(
		varlink_listen(test.server, listening(path, sizeof(path)), interfaces, &err), 0);
	chmod(path, 0666);
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(to_parent), 0);
	child = fork();
	if (!child) {
		struct pollfd fds[64];
		unsigned open = 0;

		close(to_child[1]);
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(99);
		for (unsigned i = 0; i < nr; i++)
			fds[i] = (struct pollfd){ .fd = connect_to(path), .events = POLLIN };
		if (write(to_parent[1], "c", 1) != 1 || read(to_child[0], &byte, 1) != 1)
			_exit(98);
		poll(fds, nr, 0);
		for (unsigned i = 0; i < nr; i++)
			open += fds[i].fd >= 0 && !fds[i].revents;
		_exit((int)open);
	}
	assert_int_equal(read(to_parent[0], &byte, 1), 1);
	turn(3 * nr);
	assert_int_equal(write(to_child[1], "g", 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	for (unsigned i = 0; i < 2; i++) {
		close(to_child[i]);
		close(to_parent[i]);
	}
	unlink(path);
	return (unsigned)WEXITSTATUS(status);
}

static bool can_be_another_user(void)
{
	if (getuid())
		print_message("only root can be somebody else\n");
	return !getuid();
}

static void test_one_user_takes_no_more_than_its_share(void **state)
{
	const struct varlink_limits limits = { .connections = 40, .connections_a_uid = 4 };

	(void)state;
	if (!can_be_another_user())
		skip();
	start(&limits);
	assert_int_equal(open_of_another_user(6), 4);
	turn(10);
	end();
}

/* Of four, two are reserved for root. */
static void test_root_makes_no_room_for_others(void **state)
{
	const struct varlink_limits limits = { .connections = 4 };
	struct peer root;

	(void)state;
	if (!can_be_another_user())
		skip();
	start(&limits);
	root = connected();
	turn(2);
	sleep_us(2000);
	assert_int_equal(open_of_another_user(20), 1);
	assert_true(is_served(&root));
	leave(&root);
	turn(10);
	end();
}

static void test_refuses_broken_interfaces_and_sockets(void **state)
{
	static const struct varlink_method no_such[] = { { "NoSuch", false, false, run_echo },
							 { .name = NULL } };
	static const struct varlink_interface broken = { .description = "interface a.b method",
							 .methods = no_such },
					      other = { .description = "interface a.b",
							.methods = no_such };
	static const struct varlink_interface *const of_broken[] = { &broken, NULL },
						     *const of_other[] = { &other, NULL };
	struct error err;
	int fds[2];

	(void)state;
	start(NULL);
	assert_int_equal(varlink_listen(test.server, socket(AF_UNIX, SOCK_STREAM, 0), of_broken,
					&err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "line 1"));
	assert_int_equal(varlink_listen(test.server, socket(AF_UNIX, SOCK_STREAM, 0), of_other,
					&err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "no method NoSuch"));
	assert_int_equal(varlink_listen(test.server, socket(AF_UNIX, SOCK_DGRAM, 0), interfaces,
					&err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "ListenStream"));
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(varlink_listen(test.server, fds[0], interfaces, &err), -ENOTSOCK);
	assert_int_equal(varlink_serve(test.server, fds[1], interfaces, &err), -ENOTSOCK);
	end();
}

/* ---- without memory ---- */

/* Speaks to a server on a path, with no memory of its own; false: the server could not be made. */
static bool converse(const char *path, int fd, bool *is_served_well)
{
	static const char requests[] =
		"{\"method\":\"org.example.test.Echo\",\"parameters\":{\"text\":\"x\"}}\0"
		"{\"method\":\"org.varlink.service.GetInfo\"}\0"
		"{\"method\":\"org.example.test.Count\",\"parameters\":{\"to\":3},\"more\":true}\0"
		"{\"method\":\"org.example.test.NoSuch\"}\0"
		"{\"method\":\"org.example.test.Fail\",\"parameters\":{\"message\":\"last\"}}";
	struct varlink_setup setup = { .vendor = "v",
				       .product = "p",
				       .version = "1",
				       .url = "u",
				       .may = may,
				       .context = &test,
				       .check_replies = true };
	char answers[4096];
	size_t have = 0;
	ssize_t n = -1;
	struct timespec from;
	struct error err;
	int peer;

	memset(&test, 0, sizeof(test));
	*is_served_well = false;
	assert_int_equal(uv_loop_init(&test.loop), 0);
	if (varlink_create(&test.server, &test.loop, &setup, &err)) {
		assert_int_equal(err.code, ENOMEM);
		close(fd);
		assert_int_equal(uv_loop_close(&test.loop), 0);
		return false;
	}
	if (varlink_listen(test.server, fd, interfaces, &err)) {
		assert_int_equal(err.code, ENOMEM);
		end();
		return false;
	}
	peer = connect_to(path);
	assert_true(peer >= 0);
	assert_int_equal(send(peer, requests, sizeof(requests), MSG_NOSIGNAL), sizeof(requests));
	clock_gettime(CLOCK_MONOTONIC, &from);
	while (n && !*is_served_well) {
		turn(1);
		n = recv(peer, answers + have, sizeof(answers) - 1 - have, 0);
		if (n > 0)
			have += (size_t)n;
		*is_served_well = have && memmem(answers, have, "\"last\"", 6);
		if (n < 0 && errno == ECONNRESET)
			break;
		assert_false(is_over(&from));
	}
	close(peer);
	end();
	return true;
}

static void test_lack_of_memory_is_survived(void **state)
{
	static const char *const calls[] = { "calloc", "malloc", "realloc", "strdup" };
	unsigned failed = 0, well = 0;
	char path[100];

	(void)state;
	for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		for (unsigned n = 1;; n++) {
			int fd = listening(path, sizeof(path));
			bool is_well, more;

			fake_start(&fake_linux_7_2);
			fake_fail(calls[i], n, 0);
			converse(path, fd, &is_well);
			more = fake_failed();
			fake_fail(NULL, 0, 0);
			fake_stop();
			unlink(path);
			if (!more) {
				assert_true(is_well);
				break;
			}
			failed++;
			well += is_well;
		}
	}
	/* A server without memory for a connection takes it when it has some. */
	assert_true(well >= 1);
	assert_true(failed > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_describes_itself),
		cmocka_unit_test(test_refuses_malformed_calls),
		cmocka_unit_test(test_a_malformed_request_ends_the_connection),
		cmocka_unit_test(test_deep_requests_are_refused),
		cmocka_unit_test(test_permission),
		cmocka_unit_test(test_groups_of_a_peer),
		cmocka_unit_test(test_an_interface_refuses_in_its_own_words),
		cmocka_unit_test(test_wrong_replies_are_reported),
		cmocka_unit_test(test_requests_in_pieces),
		cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
		cmocka_unit_test(test_many_requests_wait_in_the_socket),
		cmocka_unit_test(test_long_requests),
		cmocka_unit_test(test_too_long_requests_end_the_connection),
		cmocka_unit_test(test_a_request_must_end_in_time),
		cmocka_unit_test(test_oneway_is_not_answered),
		cmocka_unit_test(test_more_answers),
		cmocka_unit_test(test_calls_of_a_closed_connection_are_cancelled),
		cmocka_unit_test(test_half_closed_connections_are_answered),
		cmocka_unit_test(test_cut_connections),
		cmocka_unit_test(test_a_peer_that_does_not_read_delays_no_other),
		cmocka_unit_test(test_a_stream_that_is_not_read_ends),
		cmocka_unit_test(test_the_longest_idle_makes_room),
		cmocka_unit_test(test_of_those_idle_for_as_long_the_first_makes_room),
		cmocka_unit_test(test_a_connection_beyond_the_bound_is_turned_away),
		cmocka_unit_test(test_five_hundred_clients),
		cmocka_unit_test(test_listens),
		cmocka_unit_test(test_one_user_takes_no_more_than_its_share),
		cmocka_unit_test(test_root_makes_no_room_for_others),
		cmocka_unit_test(test_refuses_broken_interfaces_and_sockets),
		cmocka_unit_test(test_lack_of_memory_is_survived),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
