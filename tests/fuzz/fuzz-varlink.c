/* SPDX-License-Identifier: MIT */
/*
 * The Varlink server and the reader of interface descriptions: a libFuzzer target.
 *
 *   fuzz-varlink [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-varlink --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * An input's first byte says what the rest of it is:
 *   0  an interface description; one that is taken must give the same when read anew,
 *      and takes examples made of its own types
 *   1  a value, which is checked by each type of a description
 *   2  a script of two clients: bytes that they send, and what happens between
 *
 * Whatever clients do: no sanitizer's report, each call that begins is answered or
 * cancelled, what a method sees is what the description says, answers are JSON, one for
 * each request that wants one, and nothing is left when the server has closed.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/interfaces.h"
#include "varlink/varlink.h"
#include "varlink/idl.h"
#include "tests/fuzz/seeds.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum kind {
	KIND_DESCRIPTION,
	KIND_VALUE,
	KIND_SCRIPT,
	KINDS
};

/* A script's acts: the low two bits; the others are a length or say which. */
enum act {
	ACT_SEND,  /* the next bytes, as many as the others say, at once */
	ACT_FRAME, /* a request of the table, by the others */
	ACT_TURN,  /* turns of the loop; the highest bit: held calls are answered */
	ACT_END,   /* the highest bits: half-close, hang up, read, change the client */
};

static const char description[] =
	"interface a.b\n"
	"type T (x: int, y: ?[]T, z: ?(one, two))\n"
	"method Echo(s: ?string, t: ?T, m: ?[string]float, o: ?object) -> (s: ?string, t: ?T, "
	"m: ?[string]float, o: ?object)\n"
	"method Hold() -> ()\n"
	"method Stream(n: int) -> (n: int)\n"
	"method Change(b: bool) -> ()\n"
	"method Nothing() -> ()\n"
	"error E (s: string)\n";

static const char *const requests[] = {
	"{\"method\":\"a.b.Echo\",\"parameters\":{\"s\":\"x\",\"t\":{\"x\":1,\"y\":[{\"x\":2}]}}}",
	"{\"method\":\"a.b.Echo\",\"parameters\":{\"m\":{\"k\":1.5},\"o\":{\"p\":[]}},\"oneway\":true}",
	"{\"method\":\"a.b.Hold\"}",
	"{\"method\":\"a.b.Hold\",\"oneway\":true}",
	"{\"method\":\"a.b.Stream\",\"parameters\":{\"n\":9},\"more\":true}",
	"{\"method\":\"a.b.Stream\",\"parameters\":{\"n\":2}}",
	"{\"method\":\"a.b.Change\",\"parameters\":{\"b\":true}}",
	"{\"method\":\"a.b.Nothing\"}",
	"{\"method\":\"a.b.NoSuch\"}",
	"{\"method\":\"org.varlink.service.GetInfo\"}",
	"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"a.b\"}}",
	"{\"method\":\"a.b.Echo\",\"parameters\":{\"t\":{\"x\":\"1\"}},\"more\":true}",
	"{\"method\":5}",
	"{}",
	"[]",
	"",
};
#define REQUESTS (sizeof(requests) / sizeof(*requests))

#define CLIENTS 2
#define HELD    64

static void broken(const char *what)
{
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static struct {
	uv_loop_t loop;
	struct varlink *server;
	int fds[CLIENTS];
	char *in[CLIENTS];
	size_t have[CLIENTS];
	struct varlink_call *held[HELD];
	unsigned nr_held, nr_begun, nr_ended;
	bool is_closed;
} run;

static struct varlink_idl *stub;

/* ---- descriptions ---- */

static void check_value(const struct varlink_type *type, json_t *value)
{
	char where[40];
	int ret;

	memset(where, '#', sizeof(where));
	ret = varlink_idl_check(type, value, where, sizeof(where));
	if (ret && (ret != -EINVAL || !memchr(where, 0, sizeof(where))))
		broken("a refused value's place");
	if (varlink_idl_check(type, value, NULL, 0) != ret)
		broken("a value is right and wrong");
}

static void try_description(const char *text)
{
	const struct varlink_idl_method *method;
	struct varlink_idl *idl, *again;
	json_t *empty = json_object();
	struct error err = { 0 };

	if (varlink_idl_parse(text, &idl, &err)) {
		if (err.code != EINVAL || strncmp(err.text, "line ", 5))
			broken("a refusal without its line");
		json_decref(empty);
		return;
	}
	if (varlink_idl_parse(varlink_idl_text(idl), &again, &err) ||
	    strcmp(varlink_idl_name(idl), varlink_idl_name(again)))
		broken("a text is taken once, and not twice");
	for (unsigned i = 0; (method = varlink_idl_method_at(idl, i)); i++) {
		if (varlink_idl_method(again, method->name) != varlink_idl_method_at(again, i))
			broken("a method is not found by its name");
		check_value(method->in, empty);
		check_value(method->out, empty);
	}
	varlink_idl_free(again);
	varlink_idl_free(idl);
	json_decref(empty);
}

static void try_value(const char *text, size_t size)
{
	json_t *value = json_loadb(text, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	const struct varlink_idl_method *method;

	if (!value)
		return;
	for (unsigned i = 0; (method = varlink_idl_method_at(stub, i)); i++) {
		check_value(method->in, value);
		check_value(method->out, value);
	}
	json_decref(value);
}

/* ---- methods ---- */

static void begin(const char *name, json_t *parameters)
{
	run.nr_begun++;
	if (varlink_idl_check(varlink_idl_method(stub, name)->in, parameters, NULL, 0))
		broken("a method sees what its description does not have");
}

static void run_echo(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)context;
	begin("Echo", parameters);
	run.nr_ended++;
	varlink_reply(call, json_incref(parameters));
}

static void forget(struct varlink_call *call, void *context)
{
	for (unsigned i = 0; i < run.nr_held; i++)
		if (run.held[i] == call) {
			run.held[i] = run.held[--run.nr_held];
			run.nr_ended++;
			varlink_error(call, "E", json_pack("{s:s}", "s", "gone"));
			return;
		}
	(void)context;
	broken("a call is cancelled that is not there");
}

static void run_hold(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)context;
	begin("Hold", parameters);
	/* Some are not told of their end; they are answered all the same. */
	if (run.nr_held == HELD || varlink_is_gone(call) ||
	    (run.nr_begun & 1 && varlink_on_cancel(call, forget, NULL))) {
		run.nr_ended++;
		varlink_reply(call, NULL);
		return;
	}
	run.held[run.nr_held++] = call;
}

static void run_stream(struct varlink_call *call, json_t *parameters, void *context)
{
	json_int_t n = json_integer_value(json_object_get(parameters, "n"));

	(void)context;
	begin("Stream", parameters);
	for (json_int_t i = 0; i < n && i < 50; i++)
		if (varlink_reply_more(call, json_pack("{s:I}", "n", i)))
			break;
	run.nr_ended++;
	varlink_reply(call, json_pack("{s:I}", "n", n));
}

static void run_change(struct varlink_call *call, json_t *parameters, void *context)
{
	(void)call;
	(void)parameters;
	(void)context;
	broken("who may not, does");
}

static const struct varlink_method methods[] = {
	{ "Echo", false, false, run_echo },
	{ "Hold", false, false, run_hold },
	{ "Stream", false, true, run_stream },
	{ "Change", true, false, run_change },
	{ .name = NULL },
};
static const struct varlink_interface interface = {
	.description = description,
	.methods = methods,
};

static bool may(const struct varlink_peer *peer, bool changes, void *context)
{
	(void)peer;
	(void)context;
	return !changes;
}

/* ---- clients ---- */

static void connect_client(unsigned i)
{
	static const struct varlink_interface *const interfaces[] = { &interface, NULL };
	int fds[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		broken("socketpair");
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	run.fds[i] = fds[0];
	run.have[i] = 0;
	/* Full, with calls of clients whose end is not noticed yet. */
	ret = varlink_serve(run.server, fds[1], interfaces, NULL);
	if (ret && ret != -EUSERS)
		broken("a connection is not served");
}

static void check_answer(const char *text)
{
	json_t *answer = json_loads(text, 0, NULL);
	const json_t *error = json_object_get(answer, "error");

	if (!json_is_object(json_object_get(answer, "parameters")))
		broken("an answer is none");
	/* The server checks them. */
	if (error && !strcmp(json_string_value(error), "org.varlink.service.InvalidReply"))
		broken("an answer is not what the description has");
	json_decref(answer);
}

static void read_answers(unsigned i)
{
	char bytes[4096], *end;
	ssize_t n;

	while (run.fds[i] >= 0 && (n = recv(run.fds[i], bytes, sizeof(bytes), 0)) > 0) {
		run.in[i] = realloc(run.in[i], run.have[i] + (size_t)n);
		memcpy(run.in[i] + run.have[i], bytes, (size_t)n);
		run.have[i] += (size_t)n;
		while ((end = memchr(run.in[i], 0, run.have[i]))) {
			check_answer(run.in[i]);
			run.have[i] -= (size_t)(end - run.in[i]) + 1;
			memmove(run.in[i], end + 1, run.have[i]);
		}
	}
}

static void hang_up(unsigned i)
{
	if (run.fds[i] >= 0)
		close(run.fds[i]);
	run.fds[i] = -1;
}

static void answer_held(void)
{
	while (run.nr_held) {
		struct varlink_call *call = run.held[--run.nr_held];

		run.nr_ended++;
		varlink_reply(call, NULL);
	}
}

static void send_bytes(unsigned client, const void *bytes, size_t size)
{
	if (run.fds[client] >= 0 && send(run.fds[client], bytes, size, MSG_NOSIGNAL) < 0)
		return;
}

static void turn(unsigned times)
{
	while (times--)
		uv_run(&run.loop, UV_RUN_NOWAIT);
}

static void play(const uint8_t *data, size_t size)
{
	unsigned client = 0;

	while (size) {
		unsigned act = *data & 3, value = *data >> 2;

		data++;
		size--;
		switch (act) {
		case ACT_SEND:
			value = value < size ? value : (unsigned)size;
			send_bytes(client, data, value);
			data += value;
			size -= value;
			break;
		case ACT_FRAME:
			value %= REQUESTS;
			send_bytes(client, requests[value], strlen(requests[value]) + 1);
			break;
		case ACT_TURN:
			turn(1 + (value & 7));
			if (value & 32)
				answer_held();
			break;
		case ACT_END:
			if (value & 32 && run.fds[client] >= 0)
				shutdown(run.fds[client], SHUT_WR);
			if (value & 16)
				hang_up(client);
			if (value & 8)
				read_answers(client);
			if (value & 4)
				client = 1 - client;
			if (value & 2 && run.fds[client] < 0)
				connect_client(client);
			break;
		}
	}
}

static void on_closed(void *context)
{
	*(bool *)context = true;
}

static void try_script(const uint8_t *data, size_t size)
{
	const struct varlink_setup setup = {
		.vendor = "a",
		.product = "b",
		.version = "c",
		.url = "d",
		.may = may,
		.check_replies = true,
		.limits = { .frame_bytes = 300, .unsent_bytes = 600, .connections = 3 },
	};

	memset(&run, 0, sizeof(run));
	if (uv_loop_init(&run.loop) || varlink_create(&run.server, &run.loop, &setup, NULL))
		broken("no server");
	for (unsigned i = 0; i < CLIENTS; i++)
		connect_client(i);
	play(data, size);
	turn(5);
	if (size & 1)
		answer_held();
	for (unsigned i = 0; i < CLIENTS; i++)
		read_answers(i);
	varlink_close(run.server, on_closed, &run.is_closed);
	uv_run(&run.loop, UV_RUN_DEFAULT);
	answer_held();
	if (!run.is_closed || uv_loop_close(&run.loop))
		broken("something is left");
	if (run.nr_begun != run.nr_ended)
		broken("a call has no end");
	for (unsigned i = 0; i < CLIENTS; i++) {
		hang_up(i);
		free(run.in[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	if (*data % KINDS == KIND_DESCRIPTION)
		try_description(text);
	else if (*data % KINDS == KIND_VALUE)
		try_value(text, size - 1);
	else
		try_script(data + 1, size - 1);
	free(text);
	return 0;
}

/* ---- inputs to begin with ---- */

static void write_seed(const char *where, enum kind kind, const void *data, size_t size)
{
	char *seed = malloc(size + 1);

	if (!seed)
		abort();
	*seed = (char)kind;
	memcpy(seed + 1, data, size);
	seeds_write(where, seed, size + 1);
	free(seed);
}

/* Each member of our own descriptions, and the whole of a small one. */
static void write_descriptions(const char *where)
{
	static const char *const texts[] = { interface_io_ublkd, interface_org_varlink_service };
	char one[500];

	write_seed(where, KIND_DESCRIPTION, description, sizeof(description) - 1);
	for (unsigned i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		const char *at = texts[i], *next;

		for (; (next = strstr(at + 1, "\n\n")); at = next) {
			snprintf(one, sizeof(one), "interface a.b\n%.*s", (int)(next - at), at);
			write_seed(where, KIND_DESCRIPTION, one, strlen(one));
		}
	}
}

static void write_scripts(const char *where)
{
	uint8_t script[300];

	for (unsigned i = 0; i < REQUESTS; i++)
		for (unsigned way = 0; way < 8; way++) {
			size_t length = strlen(requests[i]) + 1, n = 0;
			unsigned first = way & 1 ? 30 : 63;

			/* As a frame, or as bytes in two pieces; then an end of some kind. */
			if (way & 2) {
				script[n++] = (uint8_t)(ACT_FRAME | i << 2);
			} else {
				for (size_t at = 0; at < length && n < 200; at += first) {
					size_t piece = length - at < first ? length - at : first;

					script[n++] = (uint8_t)(ACT_SEND | piece << 2);
					memcpy(script + n, requests[i] + at, piece);
					n += piece;
					script[n++] = ACT_TURN;
				}
			}
			script[n++] = ACT_TURN | 3 << 2;
			script[n++] = (uint8_t)(ACT_END | (way & 4 ? 16 + 2 : 8 + 4) << 2);
			script[n++] = ACT_FRAME | 2 << 2;
			script[n++] = ACT_TURN | (way & 1 ? 32 + 3 : 3) << 2;
			script[n++] = (uint8_t)(ACT_END | (way & 1 ? 32 : 16) << 2);
			script[n++] = ACT_TURN | 3 << 2;
			write_seed(where, KIND_SCRIPT, script, n);
		}
}

static void write_seeds(const char *where)
{
	static const char *const values[] = {
		"{\"s\":\"x\",\"t\":{\"x\":1,\"y\":[{\"x\":2,\"z\":\"one\"}],\"z\":null},\"m\":{\"k\":1.5}}",
		"{\"o\":{\"a\":[1,{}]}}",
		"{\"n\":5}",
		"{\"b\":false}",
		"{}",
		"[[[]]]"
	};

	write_descriptions(where);
	for (unsigned i = 0; i < sizeof(values) / sizeof(*values); i++)
		write_seed(where, KIND_VALUE, values[i], strlen(values[i]));
	write_scripts(where);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);
	struct error err;

	if (seeds) {
		write_seeds(seeds);
		exit(0);
	}
	signal(SIGPIPE, SIG_IGN);
	log_setup("fuzz", LOG_LEVEL_ERROR);
	if (varlink_idl_parse(description, &stub, &err))
		broken(err.text);
	return 0;
}
