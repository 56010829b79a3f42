/* SPDX-License-Identifier: MIT */
/*
 * The link between ublkd and a worker (worker/link.h), each side against whatever the
 * other one sends: a libFuzzer target.
 *
 *   fuzz-link [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-link --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * The first byte of an input says which side is tried (enum side).  Steps follow: a
 * byte (enum act), a byte that says how long the message is, and the message.
 *
 * ublkd's side is supervisor/worker.c with its loop.  The process of the worker is a
 * child that only waits: it may be killed, and is replaced then.  The worker's side is
 * the code of worker/ublkd-worker.c, which is compiled in here with its sandbox, its
 * queues and its clock replaced.  Nothing waits in real time: each script ends
 * with the answer or the end that the other side waits for, and the worker's clock
 * goes on by a second whenever it is read.
 *
 * Whatever is sent: no sanitizer's report, no descriptor is left open, an error
 * is one line, and ublkd opens no file that the export does not name.
 */
#include "engine/host_local.h"
#include "common/log.h"
#include "engine/serve.h"
#include "engine/spec.h"
#include "supervisor/fence.h"
#include "supervisor/fiber.h"
#include "supervisor/worker.h"
#include "supervisor/worker_socket.h"
#include "tests/fuzz/seeds.h"
#include "worker/host_remote.h"
#include "worker/limits.h"
#include "worker/conditions.h"
#include "worker/link.h"
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void broken(const char *what)
{
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

/* ---- what stands in for the worker's surroundings ---- */

static int no_sandbox(const struct sandbox *sandbox, struct error *err)
{
	(void)sandbox;
	(void)err;
	return 0;
}

static int no_seal(struct error *err)
{
	(void)err;
	return 0;
}

/* A network is none of the link's: a name server would be waited for. */
static int open_local_spec(struct spec *spec, const char *text, struct error *err)
{
	if (!strncmp(text, "nbd", 3))
		return error_set(err, EINVAL, "no network here");
	return spec_open(spec, text, err);
}

/* Whether the storage is open: a worker that loses its link ends, and leaves it so. */
static bool serving_is_open;

static int open_serving(struct serving *s, const struct serving_of *of, struct error *err)
{
	int ret = serving_open(s, of, err);

	serving_is_open = !ret;
	return ret;
}

static void close_serving(struct serving *s)
{
	serving_close(s);
	serving_is_open = false;
}

static int start_nothing(struct serving *s, const struct serving_setup *setup, struct error *err)
{
	(void)s;
	(void)setup;
	(void)err;
	return 0;
}

static int join_nothing(struct serving *s, struct error *err)
{
	(void)s;
	err->code = 0;
	return 0;
}

static void do_nothing(struct serving *s)
{
	(void)s;
}

static void drain_nothing(struct serving *s, bool on)
{
	(void)s;
	(void)on;
}

static bool is_drained(struct serving *s)
{
	(void)s;
	return true;
}

static int thread_of_none(const struct serving *s, unsigned queue)
{
	(void)s;
	return (int)queue + 1;
}

static time_t worker_second;

static int tick(clockid_t clock, struct timespec *t)
{
	(void)clock;
	*t = (struct timespec){ .tv_sec = worker_second++ };
	return 0;
}

static int sleep_not(const struct timespec *request, struct timespec *rest)
{
	(void)request;
	(void)rest;
	return 0;
}

int worker_main(void);

#define main               worker_main
#define sandbox_enter      no_sandbox
#define sandbox_seal       no_seal
#define spec_open          open_local_spec
#define serving_open       open_serving
#define serving_close      close_serving
#define serving_start      start_nothing
#define serving_join       join_nothing
#define serving_quit       do_nothing
#define serving_wake       do_nothing
#define serving_drain      drain_nothing
#define serving_is_drained is_drained
#define serving_thread     thread_of_none
#define clock_gettime      tick
#define nanosleep          sleep_not
#include "worker/ublkd-worker.c"
#undef main
#undef sandbox_enter
#undef sandbox_seal
#undef spec_open
#undef serving_open
#undef serving_close
#undef serving_start
#undef serving_join
#undef serving_quit
#undef serving_wake
#undef serving_drain
#undef serving_is_drained
#undef serving_thread
#undef clock_gettime
#undef nanosleep

/* ---- scripts ---- */

enum side {
	SIDE_UBLKD,
	SIDE_WORKER,
	SIDES
};

enum act {
	ACT_LINK,      /* a message on the link */
	ACT_ASK,       /* on the socket to ask by */
	ACT_LINK_FD,   /* with a descriptor: for a worker the socket to ask by */
	ACT_ASK_FD,    /* with memory */
	ACT_LINK_FDS,  /* with more descriptors than are taken */
	ACT_LINK_MEM,  /* with memory, as counters have it */
	ACT_CLOSE_ASK, /* and nothing is sent */
	ACT_ROUND,     /* ublkd's loop has a round; nothing is sent */
	ACTS
};

#define FDS_MANY (LINK_FDS + 3)
#define CALL_MS  5000u /* never reached: each script ends with an answer */

static char directory[] = "/tmp/fuzz-link-XXXXXX";
static int null_fd;

static int memory_of(size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		broken("no memory");
	return fd;
}

static void send_text(int socket, const void *text, size_t size, const int *fds, unsigned nr)
{
	union {
		char bytes[CMSG_SPACE(FDS_MANY * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec part = { (void *)(uintptr_t)text, size };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (nr) {
		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nr * sizeof(int));
	}
	/* The link may be closed, or full. */
	if (socket >= 0)
		sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_string(int socket, const char *text)
{
	send_text(socket, text, strlen(text), NULL, 0);
}

struct script {
	const uint8_t *data;
	size_t size;
};

struct step {
	enum act act;
	const uint8_t *text;
	size_t size;
};

static bool next_step(struct script *s, struct step *step)
{
	if (s->size < 2)
		return false;
	step->act = (enum act)(s->data[0] % ACTS);
	step->size = s->data[1];
	step->text = s->data + 2;
	if (step->size > s->size - 2)
		step->size = s->size - 2;
	s->data += 2 + step->size;
	s->size -= 2 + step->size;
	return true;
}

static void send_many(int socket, const struct step *step)
{
	int many[FDS_MANY];

	for (unsigned i = 0; i < FDS_MANY; i++)
		many[i] = null_fd;
	send_text(socket, step->text, step->size, many, FDS_MANY);
}

static void check_line(const struct error *err)
{
	if (!err->code || !*err->text)
		broken("an error without a word");
	for (const char *c = err->text; *c; c++)
		if ((unsigned char)*c < ' ')
			broken("an error that is not one line");
}

/* But for the one that a worker has for good. */
static unsigned open_fds(void)
{
	unsigned nr = 0;

	for (int fd = 0; fd < 256; fd++)
		nr += fd != host_remote_memory() && fcntl(fd, F_GETFD) >= 0;
	return nr;
}

/* ---- ublkd's side ---- */

static int listener = -1;
static pid_t child;
static struct instance export_of_file;

static void have_child(void)
{
	siginfo_t info = { 0 };
	int ready[2];
	char byte = 0;

	if (child && !waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG) && !info.si_pid)
		return;
	if (pipe2(ready, O_CLOEXEC))
		broken("pipe");
	if (listener >= 0)
		close(listener);
	listener = worker_socket_bind("a", &(struct error){ 0 });
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listen(listener, 4);
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (child < 0 || read(ready[0], &byte, 1) != 1)
		broken("no child");
	close(ready[0]);
}

static void on_end(struct worker *w, void *context)
{
	struct error err = { 0 };

	(void)context;
	if (worker_fault(w, &err))
		check_line(&err);
}

static void on_growth(struct worker *w, uint64_t size, void *context)
{
	(void)w;
	(void)context;
	if (!size || size > INT64_MAX)
		broken("a size that there is not");
}

static void on_health(struct worker *w, const json_t *reported, void *context)
{
	static struct health_condition conditions[CAUSES];

	(void)w;
	(void)context;
	conditions_from_json(reported, conditions);
	for (unsigned i = WORKER_CAUSES; i < CAUSES; i++)
		if (conditions[i].set)
			broken("a worker reports a condition of ublkd's");
}

static int on_question(struct worker *w, const char *kind, const json_t *question, void *context)
{
	const char *path = json_string_value(json_object_get(question, "path"));
	int flags = (int)json_integer_value(json_object_get(question, "flags"));

	(void)w;
	(void)context;
	if (strcmp(kind, "open") != 0 || !path || !host_may_open(&export_of_file, path, flags, 0))
		return -EACCES;
	if (strcmp(path, "/a/file") != 0 && strncmp(path, "/sys/", 5) != 0)
		broken("a file that the export does not name");
	return fcntl(null_fd, F_DUPFD_CLOEXEC, 0);
}

static const struct worker_events events = {
	.ended = on_end,
	.grown = on_growth,
	.health = on_health,
	.ask = on_question,
};

static struct worker *called;

static void call(void *context)
{
	struct fence fence = { 0 };
	struct error err = { 0 };
	struct backend_limits limits;
	struct link_fds got;
	json_t *reply;

	(void)context;
	if (worker_call_with_ask(called, worker_request("open"), CALL_MS, &reply, &got, &err)) {
		check_line(&err);
		if (err.code == ETIMEDOUT && !worker_has_refused(called))
			broken("an answer that was not heard");
	} else if (!json_is_object(reply)) {
		broken("an answer that is none");
	} else {
		limits_from_json(json_object_get(reply, "limits"), &limits);
	}
	json_decref(reply);
	link_close_fds(&got);
	worker_give_connections(called, &fence);
	fence_close(&fence);
	worker_forget(called);
}

static void try_ublkd(struct script script)
{
	struct link_fds fds;
	struct step step;
	json_t *request = NULL;
	int link, ask;

	called = worker_adopt_new("a", &events);
	link = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!called || link < 0)
		broken("no connection");
	if (fiber_start(call, NULL) || link_receive(link, &request, &fds))
		broken("no request");
	json_decref(request);
	ask = link_take_fd(&fds, 0);
	while (next_step(&script, &step)) {
		int memory;

		switch (step.act) {
		case ACT_LINK:
			send_text(link, step.text, step.size, NULL, 0);
			break;
		case ACT_ASK:
			send_text(ask, step.text, step.size, NULL, 0);
			break;
		case ACT_LINK_FD:
			send_text(link, step.text, step.size, &null_fd, 1);
			break;
		case ACT_ASK_FD:
		case ACT_LINK_MEM:
			memory = memory_of(4096);
			send_text(step.act == ACT_ASK_FD ? ask : link, step.text, step.size,
				  &memory, 1);
			close(memory);
			break;
		case ACT_LINK_FDS:
			send_many(link, &step);
			break;
		case ACT_CLOSE_ASK:
			if (ask >= 0)
				close(ask);
			ask = -1;
			break;
		default:
			uv_run(uv_default_loop(), UV_RUN_NOWAIT);
		}
	}
	send_string(link, "{\"done\": 1}");
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	close(link);
	if (ask >= 0)
		close(ask);
	if (fiber_count())
		broken("a fiber that does not end");
}

/* ---- the worker's side ---- */

static json_int_t asked; /* questions of the worker's, in all inputs: they are numbered */

/* Nobody reads a question before the worker waits for the answer, so that comes first. */
static void send_answers(int ask)
{
	char text[80];

	for (json_int_t i = 1; i <= 4; i++) {
		int memory = memory_of(1 << 20);

		snprintf(text, sizeof(text), "{\"answer\": %lld, \"result\": 0}",
			 (long long)(asked + i));
		send_text(ask, text, strlen(text), &memory, 1);
		close(memory);
	}
}

static void count_questions(int ask)
{
	struct link_fds fds;
	json_t *question;
	int ret;

	while (!(ret = link_receive(ask, &question, &fds)) || ret == -EBADMSG) {
		json_int_t id = json_integer_value(json_object_get(question, "id"));

		if (id > asked)
			asked = id;
		json_decref(question);
		link_close_fds(&fds);
	}
}

static void check_answers(int link)
{
	struct link_fds fds;
	json_t *answer;
	struct error err = { 0 };
	int ret;

	while (!(ret = link_receive(link, &answer, &fds)) || ret == -EBADMSG) {
		if (ret)
			broken("the worker says what is no message");
		if (json_object_get(answer, "failed")) {
			link_to_error(answer, &err);
			check_line(&err);
		} else if (!json_object_get(answer, "done")) {
			broken("the worker answers with something else");
		}
		json_decref(answer);
		link_close_fds(&fds);
	}
}

static void try_worker(struct script script)
{
	struct self w = {
		.start = -1, .listener = -1, .counters_fd = -1, .char_fd = -1, .link = -1
	};
	struct step step;
	int link[2], ask[2];
	int memory = -1;

	counters_destroy(counters_create(1, NULL, &memory));
	if (memory < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ask))
		broken("no sockets");
	w.link = link[1];
	send_answers(ask[0]);
	while (next_step(&script, &step)) {
		switch (step.act) {
		case ACT_ASK:
			send_text(ask[0], step.text, step.size, NULL, 0);
			break;
		case ACT_ASK_FD:
			send_text(ask[0], step.text, step.size, &memory, 1);
			break;
		case ACT_LINK_FD:
			send_text(link[0], step.text, step.size, &ask[1], 1);
			break;
		case ACT_LINK_MEM:
			send_text(link[0], step.text, step.size, &memory, 1);
			break;
		case ACT_LINK_FDS:
			send_many(link[0], &step);
			break;
		default:
			send_text(link[0], step.text, step.size, NULL, 0);
		}
	}
	send_string(link[0], "{\"do\": \"end\", \"id\": 1}");
	shutdown(link[0], SHUT_WR);
	/* The worker hears of the end instead of the fifth answer. */
	shutdown(ask[0], SHUT_WR);
	close(ask[1]);
	worker_second = 0;
	/* A worker that serves would wait for the next ublkd now. */
	while (w.state != WORKER_ENDING && w.link >= 0)
		take_requests(&w);
	host_remote_use(-1);
	check_answers(link[0]);
	count_questions(ask[0]);
	if (serving_is_open)
		close_serving(&w.serving);
	if (w.counters)
		counters_destroy(w.counters);
	if (w.counters_fd >= 0)
		close(w.counters_fd);
	if (w.char_fd >= 0)
		close(w.char_fd);
	if (w.link >= 0)
		close(w.link);
	if (w.spec.backend)
		spec_close(&w.spec);
	close(memory);
	close(link[0]);
	close(ask[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned before, after;

	if (!size)
		return 0;
	if (data[0] % SIDES == SIDE_UBLKD)
		have_child();
	before = open_fds();
	if (data[0] % SIDES == SIDE_UBLKD)
		try_ublkd((struct script){ data + 1, size - 1 });
	else
		try_worker((struct script){ data + 1, size - 1 });
	after = open_fds();
	if (after != before)
		broken("a descriptor is left open");
	return 0;
}

/* ---- its start ---- */

struct seed_step {
	enum act act;
	const char *text;
};

#define SEED_STEPS 8

static const struct {
	enum side side;
	struct seed_step steps[SEED_STEPS];
} seeds[] = {
	{ SIDE_UBLKD,
	  { { ACT_LINK, "{\"event\": \"grown\", \"size\": 8192}" },
	    { ACT_LINK, "{\"done\": 1, \"queues\": 1, \"depth\": 64, \"limits\": {}}" } } },
	{ SIDE_UBLKD,
	  { { ACT_LINK, "{\"event\": \"health\", \"conditions\": [{\"cause\": "
			"\"server-away\", \"since\": 1, \"detail\": \"away\"}]}" } } },
	{ SIDE_UBLKD,
	  { { ACT_LINK, "{\"event\": \"ended\", \"code\": 5, \"text\": \"gone\\n\"}" },
	    { ACT_ROUND, "" },
	    { ACT_LINK, "{\"failed\": 1, \"code\": 19, \"text\": \"no\\u001b\"}" } } },
	{ SIDE_UBLKD,
	  { { ACT_ASK, "{\"ask\": \"open\", \"id\": 1, \"path\": \"/a/file\", \"flags\": 2}" },
	    { ACT_ASK_FD, "{\"ask\": \"keep\", \"slot\": 1, \"wait\": -1}" },
	    { ACT_ASK, "{\"ask\": \"keep\", \"slot\": 1}" },
	    { ACT_ROUND, "" },
	    { ACT_ASK, "{\"ask\": \"open\", \"path\": \"/sys/dev/block/../../x\"}" },
	    { ACT_ROUND, "" },
	    { ACT_CLOSE_ASK, "" } } },
	{ SIDE_UBLKD, { { ACT_LINK_FDS, "{\"done\": 1}" }, { ACT_LINK_FD, "{" } } },
	{ SIDE_UBLKD, { { ACT_LINK, "" } } },
	{ SIDE_WORKER,
	  { { ACT_LINK_FD,
	      "{\"do\": \"setup\", \"id\": 1, \"name\": \"a\", \"uri\": \"null:1G\"}" },
	    { ACT_LINK_MEM, "{\"do\": \"open\", \"id\": 2, \"queues\": 1}" },
	    { ACT_LINK_FD, "{\"do\": \"serve\", \"queues\": 1, \"depth\": 4, \"cpus\": [\"0\"]}" },
	    { ACT_LINK, "{\"do\": \"live\", \"id\": 4}" },
	    { ACT_LINK, "{\"do\": \"look\", \"id\": 5}" },
	    { ACT_LINK, "{\"do\": \"resize\", \"id\": 6, \"size\": 8192}" },
	    { ACT_LINK, "{\"do\": \"drain\", \"id\": 7, \"hold\": true}" } } },
	{ SIDE_WORKER,
	  { { ACT_LINK_FD,
	      "{\"do\": \"setup\", \"uri\": \"memory:1M\", \"uid\": 1, \"resumed\": true}" },
	    { ACT_LINK_MEM, "{\"do\": \"open\", \"id\": 2, \"depth\": 4}" },
	    { ACT_LINK_FD, "{\"do\": \"hello\", \"id\": 3}" },
	    { ACT_LINK_FD, "{\"do\": \"serve\", \"queues\": 1, \"depth\": 4}" },
	    { ACT_LINK, "{\"do\": \"size\", \"id\": 4, \"size\": 4096}" } } },
	{ SIDE_WORKER,
	  { { ACT_ASK, "{\"answer\": 1, \"result\": -13}" },
	    { ACT_LINK_FD,
	      "{\"do\": \"setup\", \"uri\": \"file:/a\", \"options\": {\"queues\": \"2\"}}" },
	    { ACT_LINK_MEM, "{\"do\": \"open\", \"id\": 2}" } } },
};

static void write_seeds(const char *where)
{
	uint8_t data[1024];

	for (size_t i = 0; i < sizeof(seeds) / sizeof(*seeds); i++) {
		size_t size = 1;

		data[0] = (uint8_t)seeds[i].side;
		for (const struct seed_step *s = seeds[i].steps;
		     s < seeds[i].steps + SEED_STEPS && s->text; s++) {
			size_t length = strlen(s->text);

			data[size++] = (uint8_t)s->act;
			data[size++] = (uint8_t)length;
			memcpy(data + size, s->text, length);
			size += length;
		}
		seeds_write(where, data, size);
	}
}

static void clean(void)
{
	if (child > 0)
		kill(child, SIGKILL);
	worker_socket_remove("a");
	rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static struct spec spec;
	const char *where = seeds_directory(*argc, *argv);
	struct error err = { 0 };

	if (where) {
		write_seeds(where);
		exit(0);
	}
	if (!mkdtemp(directory))
		broken("no directory for the socket");
	atexit(clean);
	worker_setup = (struct worker_setup){ .program = "/nonexistent", .directory = directory };
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0 || spec_open(&spec, "file:/a/file", &err))
		broken("no export");
	spec_to_instance(&spec, &export_of_file);
	fiber_setup(uv_default_loop());
	log_setup("fuzz", LOG_LEVEL_ERROR);
	return 0;
}
