/* SPDX-License-Identifier: MIT */
/*
 * ublkd's side of a worker.  The worker is this program itself, started again with
 * STUB in its environment: it does as it is told, and much that no worker should.
 */
#include "common/error.h"
#include "supervisor/fence.h"
#include "supervisor/fiber.h"
#include "supervisor/worker.h"
#include "supervisor/worker_memory.h"
#include "supervisor/worker_socket.h"
#include "tests/unit/in-fiber.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define STUB       "UBLKD_TEST_STUB"
#define CONNECTION "UBLKD_TEST_CONNECTION" /* a stub's, to a server: its descriptor */
#define CALL_MS    20000u

/* ---- the stub ---- */

static void babble(int link, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		while (send(link, "{", 1, MSG_NOSIGNAL) < 0 && errno == EAGAIN)
			sleep_us(1000);
}

static void say(int link, const char *text)
{
	send(link, text, strlen(text), MSG_NOSIGNAL);
}

/* For as long as somebody takes it. */
static void flood(int socket, const char *text)
{
	while (send(socket, text, strlen(text), MSG_NOSIGNAL) >= 0 || errno == EAGAIN)
		;
}

static int accept_one(int listener)
{
	int link = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	return link < 0 ? (exit(3), -1) : link;
}

static void ask_much(int ask)
{
	struct link_fds fds;
	json_t *answer;
	unsigned answers = 0;

	for (int i = 1; i <= 50; i++)
		link_send(ask, json_pack("{s:s, s:i, s:s}", "ask", "open", "id", i, "path", "/x"),
			  NULL, 0);
	while (answers < 50) {
		if (link_receive(ask, &answer, &fds)) {
			sleep_us(1000);
			continue;
		}
		answers++;
		json_decref(answer);
		link_close_fds(&fds);
	}
}

/* Memory that ublkd would have made, and memory that only looks like it. */
static void have_memory(void)
{
	int too_small = memfd_create("ublkd-memory", MFD_CLOEXEC);
	int unsealed = memfd_create("ublkd-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int fd = memfd_create("ublkd-memory", MFD_CLOEXEC);

	if (ftruncate(too_small, 4096) || ftruncate(unsealed, 1 << 20) || ftruncate(fd, 1 << 20) ||
	    pwrite(fd, "content", 7, 5) != 7)
		exit(4);
}

/* Once ublkd does not look; it finds all of it at once then. */
static void keep_and_leave(int *link, int ask)
{
	int connection = atoi(getenv(CONNECTION));
	char byte;

	if (read(connection, &byte, 1) != 1)
		exit(5);
	for (int slot = 0; slot < 4; slot++)
		link_send(ask, json_pack("{s:s, s:i}", "ask", "keep", "slot", slot), &connection,
			  slot == 3);
	close(*link);
	*link = -1;
	if (write(connection, &byte, 1) != 1)
		exit(5);
}

static void obey(int *link, int ask, const json_t *request)
{
	const char *verb = json_string_value(json_object_get(request, "do"));
	json_int_t id = json_integer_value(json_object_get(request, "id"));

	if (!strcmp(verb, "die"))
		raise(SIGKILL);
	if (!strcmp(verb, "hang"))
		return;
	if (!strcmp(verb, "leave")) {
		close(*link);
		*link = -1;
		return;
	}
	if (!strcmp(verb, "refuse")) {
		link_send(*link,
			  link_failure(id,
				       &(struct error){ .code = ENODEV, .text = "not \033 me" }),
			  NULL, 0);
		return;
	}
	if (!strcmp(verb, "memory"))
		have_memory();
	if (!strcmp(verb, "babble"))
		babble(*link, 500);
	if (!strcmp(verb, "late"))
		say(*link, "{\"done\": 0}{");
	if (!strcmp(verb, "end"))
		say(*link,
		    "{\"event\": \"ended\", \"code\": -99999999999, \"text\": \"\\u001bx\"}");
	if (!strcmp(verb, "end-silently"))
		say(*link, "{\"event\": \"ended\", \"code\": 19, \"text\": \"\"}");
	if (!strcmp(verb, "refuse-silently"))
		say(*link, "{\"failed\": 1, \"code\": 19, \"text\": \"\"}");
	if (!strcmp(verb, "grow"))
		say(*link, "{\"event\": \"grown\", \"size\": 8192}");
	if (!strcmp(verb, "ail"))
		say(*link, "{\"event\": \"health\", \"conditions\": [{\"cause\": "
			   "\"server-away\", \"since\": 1, \"detail\": \"x\"}]}");
	if (!strcmp(verb, "flood"))
		flood(*link, "{\"event\": \"grown\", \"size\": 8192}");
	if (!strcmp(verb, "flood-keep"))
		flood(ask, "{\"ask\": \"keep\", \"slot\": 99}");
	if (!strcmp(verb, "ask"))
		ask_much(ask);
	link_send(*link, json_pack("{s:I, s:s}", "done", id, "verb", verb), link, 1);
	if (!strcmp(verb, "keep"))
		keep_and_leave(link, ask);
}

static int stub(void)
{
	int listener, link, ask = -1, ret;
	struct link_fds fds;
	json_t *message;

	if (getenv("UBLKD_TEST_STUB_ENDS"))
		return 1;
	/* Whatever becomes of the test, and even if it is stopped then. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	while ((ret = link_receive(WORKER_START_FD, &message, &fds)) == -EAGAIN)
		sleep_us(1000);
	if (ret)
		return 1;
	listener = link_take_fd(&fds, 0);
	json_decref(message);
	listen(listener, 4);
	close(WORKER_START_FD);
	for (link = accept_one(listener);;) {
		ret = link_receive(link, &message, &fds);
		if (ret == -EAGAIN) {
			sleep_us(1000);
			continue;
		}
		if (ret) {
			close(link);
			link = accept_one(listener);
			continue;
		}
		if (fds.nr)
			ask = link_take_fd(&fds, 0);
		obey(&link, ask, message);
		json_decref(message);
		while (link < 0)
			pause();
	}
}

/* ---- the tests ---- */

static char directory[64];
static unsigned nr_ended, nr_grown, nr_asked, at_once, most_at_once;
static uint64_t grown;
static unsigned nr_conditions;

static void note_end(struct worker *w, void *context)
{
	(void)w;
	(void)context;
	nr_ended++;
}

static void note_growth(struct worker *w, uint64_t size, void *context)
{
	(void)w;
	(void)context;
	grown = size;
	nr_grown++;
}

static void note_health(struct worker *w, const json_t *conditions, void *context)
{
	(void)w;
	(void)context;
	nr_conditions = (unsigned)json_array_size(conditions);
}

static int note_question(struct worker *w, const char *kind, const json_t *question, void *context)
{
	(void)w;
	(void)question;
	(void)context;
	assert_string_equal(kind, "open");
	nr_asked++;
	if (++at_once > most_at_once)
		most_at_once = at_once;
	fiber_sleep(2);
	at_once--;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static const struct worker_events events = {
	.ended = note_end,
	.grown = note_growth,
	.health = note_health,
	.ask = note_question,
};

/* As in_fiber(), and no descriptor may be left. */
static void in_clean_fiber(void (*test)(void))
{
	struct stat before, after;

	stat("/proc/self/fd", &before);
	in_fiber(test);
	stat("/proc/self/fd", &after);
	assert_int_equal(before.st_size, after.st_size);
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(directory));
	worker_setup = (struct worker_setup){
		.program = "/proc/self/exe",
		.starter = "/nonexistent",
		.directory = directory,
	};
	fiber_setup(uv_default_loop());
	setenv(STUB, "1", 1);
	nr_ended = nr_grown = nr_asked = at_once = most_at_once = 0;
	grown = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	worker_socket_remove("a");
	rmdir(directory);
	return 0;
}

static struct worker *start(void)
{
	struct worker *w = NULL;
	struct error err = { 0 };

	if (worker_start(&w, "a", &events, &err))
		fail_msg("%s", err.text);
	return w;
}

static int call(struct worker *w, const char *verb, unsigned ms, struct error *err)
{
	struct link_fds fds;
	json_t *reply;
	int ret = worker_call(w, worker_request(verb), NULL, 0, ms, &reply, &fds, err);

	if (!ret)
		assert_string_equal(json_string_value(json_object_get(reply, "verb")), verb);
	json_decref(reply);
	link_close_fds(&fds);
	return ret;
}

static void end(struct worker *w)
{
	assert_int_equal(worker_finish(w, 0), 0);
	worker_forget(w);
}

static void does_what_it_is_told(void)
{
	struct worker *w = start();
	struct error err;

	assert_true(worker_pid(w) > 0 && worker_pid(w) != getpid());
	assert_int_equal(call(w, "echo", CALL_MS, &err), 0);
	assert_int_equal(call(w, "late", CALL_MS, &err), 0);
	assert_int_equal(call(w, "grow", CALL_MS, &err), 0);
	assert_int_equal(grown, 8192);
	assert_int_equal(call(w, "ail", CALL_MS, &err), 0);
	assert_int_equal(nr_conditions, 1);
	assert_int_equal(call(w, "refuse", CALL_MS, &err), -ENODEV);
	assert_string_equal(err.text, "not ? me");
	assert_true(worker_has_refused(w));
	assert_int_equal(call(w, "echo", CALL_MS, &err), 0);
	assert_false(worker_has_refused(w));
	assert_false(worker_has_ended(w));
	end(w);
}

static void test_obeys_requests(void **state)
{
	(void)state;
	in_clean_fiber(does_what_it_is_told);
}

static void dies_over_a_call(void)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(call(w, "die", CALL_MS, &err), -EPIPE);
	assert_false(worker_has_refused(w));
	assert_int_equal(worker_finish(w, CALL_MS), 0);
	assert_true(worker_has_ended(w));
	assert_int_equal(call(w, "echo", CALL_MS, &err), -EPIPE);
	worker_forget(w);
}

static void test_dies_over_a_call(void **state)
{
	(void)state;
	in_clean_fiber(dies_over_a_call);
}

static void answers_too_late(void)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(call(w, "hang", 50, &err), -ETIMEDOUT);
	assert_false(worker_has_refused(w));
	assert_int_equal(call(w, "echo", CALL_MS, &err), 0);
	end(w);
}

static void test_answers_too_late(void **state)
{
	(void)state;
	in_clean_fiber(answers_too_late);
}

static void leaves_its_link(void)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(call(w, "leave", CALL_MS, &err), -EPIPE);
	/* Nobody could tell it anything any more. */
	assert_int_equal(worker_finish(w, CALL_MS), 0);
	worker_forget(w);
}

static void test_a_worker_without_a_channel_is_killed(void **state)
{
	(void)state;
	in_clean_fiber(leaves_its_link);
}

static void keeps_last(void)
{
	char byte = 0, number[16];
	struct fence fence = { 0 };
	struct worker *w;
	struct error err;
	unsigned there;
	int pair[2], connection;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	connection = fcntl(pair[1], F_DUPFD, 100);
	close(pair[1]);
	snprintf(number, sizeof(number), "%d", connection);
	setenv(CONNECTION, number, 1);
	w = start();
	unsetenv(CONNECTION);
	close(connection);
	assert_int_equal(worker_call_with_ask(w, worker_request("keep"), CALL_MS, NULL, NULL, &err),
			 0);
	/* The loop does not go on until all is said. */
	assert_int_equal(write(pair[0], &byte, 1), 1);
	assert_int_equal(read(pair[0], &byte, 1), 1);
	assert_int_equal(worker_finish(w, CALL_MS), 0);
	worker_give_connections(w, &fence);
	worker_forget(w);
	/* The server is told that nothing more comes, and does not end the connection. */
	assert_int_equal(read(pair[0], &byte, 1), 0);
	assert_int_equal(fence_check(&fence, "test", 0, &there), 1);
	assert_int_equal(there, 1);
	close(pair[0]);
	assert_int_equal(fence_check(&fence, "test", 0, &there), 0);
	fence_close(&fence);
}

static void test_a_connection_kept_last_is_fenced(void **state)
{
	(void)state;
	in_clean_fiber(keeps_last);
}

static void says_no_message(void)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(call(w, "babble", CALL_MS, &err), 0);
	assert_int_equal(call(w, "end", CALL_MS, &err), 0);
	assert_int_equal(worker_fault(w, &err), -EIO);
	assert_string_equal(err.text, "?x");
	assert_int_equal(nr_ended, 1);
	end(w);
}

static void test_malformed_messages_are_skipped(void **state)
{
	(void)state;
	in_clean_fiber(says_no_message);
}

static void fails_without_a_word(void)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(call(w, "refuse-silently", CALL_MS, &err), -ENODEV);
	assert_string_equal(err.text, strerror(ENODEV));
	assert_int_equal(call(w, "end-silently", CALL_MS, &err), 0);
	assert_int_equal(worker_fault(w, &err), -ENODEV);
	assert_string_equal(err.text, strerror(ENODEV));
	end(w);
}

static void test_a_failure_without_a_word_is_named_by_its_code(void **state)
{
	(void)state;
	in_clean_fiber(fails_without_a_word);
}

static void asks_much(void)
{
	struct worker *w = start();
	struct error err;
	json_t *reply;

	assert_int_equal(
		worker_call_with_ask(w, worker_request("ask"), CALL_MS, &reply, NULL, &err), 0);
	json_decref(reply);
	assert_int_equal(nr_asked, 50);
	assert_true(most_at_once >= 1 && most_at_once <= 8);
	end(w);
}

static void test_questions_are_bounded(void **state)
{
	(void)state;
	in_clean_fiber(asks_much);
}

static void floods(const char *verb)
{
	struct worker *w = start();
	struct error err;

	assert_int_equal(worker_call_with_ask(w, worker_request(verb), CALL_MS, NULL, NULL, &err),
			 -EPIPE);
	assert_non_null(strstr(err.text, "floods"));
	/* The worker was told once, and heard a bounded number of times. */
	assert_int_equal(worker_fault(w, &err), -EPIPE);
	assert_true(nr_grown <= 4000);
	assert_int_equal(worker_finish(w, CALL_MS), 0);
	worker_forget(w);
}

static void floods_with_messages(void)
{
	floods("flood");
	floods("flood-keep");
}

static void test_a_worker_that_floods_is_killed(void **state)
{
	(void)state;
	in_clean_fiber(floods_with_messages);
}

static int adopt(struct worker **w, const struct worker_process *known, struct error *err)
{
	static const struct worker_process nobody;

	return worker_adopt(w, "a", known ? known : &nobody, 50, &events, err);
}

static void is_adopted(void)
{
	struct worker *old = start(), *fresh, *found = NULL;
	struct error err;
	pid_t pid;
	char unpublished[200];

	snprintf(unpublished, sizeof(unpublished), "%s/a.new", worker_setup.directory);
	/* A worker that was not published is not found as that. */
	assert_int_equal(access(unpublished, F_OK), 0);
	assert_int_equal(adopt(&found, NULL, &err), -ESRCH);
	end(old);
	old = start();
	pid = worker_pid(old);
	assert_int_equal(worker_publish(old, &err), 0);
	/* Another worker is started, and does not come to serve: the old one is still found. */
	fresh = start();
	end(fresh);
	assert_int_equal(access(unpublished, F_OK), 0);
	worker_forget(old);
	assert_int_equal(adopt(&found, NULL, &err), 0);
	worker_socket_remove_new("a");
	assert_int_equal(access(unpublished, F_OK), -1);
	assert_int_equal(worker_pid(found), pid);
	assert_int_equal(call(found, "echo", CALL_MS, &err), 0);
	/* A worker that comes to serve takes its place. */
	fresh = start();
	assert_int_equal(worker_publish(fresh, &err), 0);
	end(found);
	pid = worker_pid(fresh);
	worker_forget(fresh);
	assert_int_equal(adopt(&found, NULL, &err), 0);
	assert_int_equal(worker_pid(found), pid);
	end(found);
	assert_int_equal(adopt(&found, NULL, &err), -ESRCH);
}

static void test_a_serving_worker_is_adopted(void **state)
{
	(void)state;
	in_clean_fiber(is_adopted);
}

/* Those of a change of workers that ublkd's death has cut short. */
static void both_are_found(void)
{
	struct worker *old = start(), *fresh, *found = NULL;
	struct worker_process process = worker_process(old);
	pid_t pid;
	struct error err;

	assert_int_equal(worker_publish(old, &err), 0);
	assert_null(worker_adopt_new("a", &events));
	fresh = start();
	pid = worker_pid(fresh);
	worker_forget(old);
	worker_forget(fresh);
	assert_int_equal(adopt(&found, NULL, &err), 0);
	assert_int_equal(worker_pid(found), process.pid);
	fresh = worker_adopt_new("a", &events);
	assert_non_null(fresh);
	assert_int_equal(worker_pid(fresh), pid);
	assert_int_equal(call(fresh, "echo", CALL_MS, &err), 0);
	/* Now it is the other one that nobody finds, but for the record. */
	assert_int_equal(worker_publish(fresh, &err), 0);
	worker_forget(fresh);
	worker_forget(found);
	assert_null(worker_adopt_new("a", &events));
	assert_int_equal(adopt(&found, &process, &err), 0);
	assert_int_equal(worker_pid(found), pid);
	/* Its number, and not itself: another one has got it since. */
	process.started++;
	assert_null(worker_adopt_known("a", &process, &events));
	process.started--;
	old = worker_adopt_known("a", &process, &events);
	assert_non_null(old);
	assert_int_equal(worker_pid(old), process.pid);
	end(old);
	end(found);
	assert_null(worker_adopt_known("a", &process, &events));
	process.pid = 0;
	assert_null(worker_adopt_known("a", &process, &events));
}

static void test_both_of_a_change_are_found(void **state)
{
	(void)state;
	in_clean_fiber(both_are_found);
}

static void loses_no_memory(void)
{
	struct worker *w = start();
	char text[8] = "";
	struct error err;
	int fd;

	assert_int_equal(worker_open_memory(w, 1 << 20), -ENOENT);
	assert_int_equal(call(w, "memory", CALL_MS, &err), 0);
	assert_int_equal(worker_open_memory(w, (1 << 20) + 1), -ENOENT);
	/* The worker does not answer, and is killed for that. */
	assert_int_equal(call(w, "hang", 50, &err), -ETIMEDOUT);
	kill(worker_pid(w), SIGSTOP);
	fd = worker_open_memory(w, 1 << 20);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(worker_finish(w, 0), 0);
	assert_int_equal(worker_open_memory(w, 1 << 20), -ESRCH);
	worker_forget(w);
	assert_int_equal(pread(fd, text, 7, 5), 7);
	assert_string_equal(text, "content");
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
}

static void test_memory_of_a_hung_worker_is_saved(void **state)
{
	(void)state;
	in_clean_fiber(loses_no_memory);
}

static void freeze(pid_t pid)
{
	siginfo_t info;

	kill(pid, SIGSTOP);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WSTOPPED), 0);
}

/* As one is left that was stopped, after some restarts of ublkd. */
static struct worker_process leave_full(int *links)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct worker *w = start();
	struct worker_process process = worker_process(w);
	struct error err;

	assert_int_equal(process.pid, worker_pid(w));
	assert_int_equal(worker_publish(w, &err), 0);
	freeze(process.pid);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s/a.sock", directory);
	for (unsigned i = 0; i < 8; i++) {
		links[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(links[i], (const struct sockaddr *)&at, sizeof(at));
	}
	worker_forget(w);
	return process;
}

static void takes_no_connection(void)
{
	struct worker_process process, later;
	struct worker *found = NULL;
	struct error err;
	int links[8];

	process = later = leave_full(links);
	assert_true(process.started);
	assert_int_equal(adopt(&found, NULL, &err), -EAGAIN);
	assert_null(found);
	/* Another process that has its number by now is none of ours. */
	later.started++;
	assert_int_equal(adopt(&found, &later, &err), -EAGAIN);
	assert_null(found);
	assert_int_equal(adopt(&found, &process, &err), -ETIMEDOUT);
	assert_non_null(found);
	assert_int_equal(worker_pid(found), process.pid);
	assert_false(worker_has_ended(found));
	assert_int_equal(call(found, "echo", CALL_MS, &err), -EPIPE);
	end(found);
	assert_int_equal(adopt(&found, &process, &err), -ESRCH);
	assert_null(found);
	for (unsigned i = 0; i < 8; i++)
		close(links[i]);
}

static void test_a_worker_that_takes_no_connection_is_known(void **state)
{
	(void)state;
	in_clean_fiber(takes_no_connection);
}

/* Cases where the directory of sockets is gone. */
static void has_no_socket(void)
{
	struct worker *w = start(), *found = NULL;
	struct worker_process process = worker_process(w);
	struct error err;

	freeze(process.pid);
	worker_forget(w);
	worker_socket_remove("a");
	assert_int_equal(adopt(&found, NULL, &err), -ESRCH);
	assert_int_equal(adopt(&found, &process, &err), -ETIMEDOUT);
	end(found);
}

static void test_a_worker_without_a_socket_is_known(void **state)
{
	(void)state;
	in_clean_fiber(has_no_socket);
}

static void does_not_start(void)
{
	static char deep[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct worker *w = NULL;
	struct error err;

	setenv("UBLKD_TEST_STUB_ENDS", "1", 1);
	assert_int_equal(worker_start(&w, "a", &events, &err), -EPIPE);
	unsetenv("UBLKD_TEST_STUB_ENDS");
	worker_setup.program = "/nonexistent";
	assert_int_equal(worker_start(&w, "a", &events, &err), -ENOENT);
	worker_setup.program = "/proc/self/exe";
	memset(deep, '/', sizeof(deep) - 3);
	worker_setup.directory = deep;
	assert_int_equal(worker_start(&w, "a", &events, &err), -ENAMETOOLONG);
	worker_setup.directory = directory;
	assert_null(w);
}

static void test_a_worker_that_does_not_start(void **state)
{
	(void)state;
	in_clean_fiber(does_not_start);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_obeys_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dies_over_a_call, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers_too_late, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_without_a_channel_is_killed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_connection_kept_last_is_fenced, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_malformed_messages_are_skipped, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_failure_without_a_word_is_named_by_its_code,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_questions_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_serving_worker_is_adopted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_both_of_a_change_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_that_floods_is_killed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_memory_of_a_hung_worker_is_saved, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_that_takes_no_connection_is_known,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_without_a_socket_is_known, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_that_does_not_start, setup, teardown),
	};

	if (getenv(STUB))
		return stub();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
