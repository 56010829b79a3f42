/* SPDX-License-Identifier: MIT */
/*
 * ublkd's handle of a worker: the process, the channel for ublkd's calls (worker/link.h), and the
 * socket for the worker's own requests, such as to open a file.
 *
 * A pidfd stands for the process. A pid may be reused, and SIGCHLD never comes for a worker that an
 * earlier ublkd or systemd has started.
 *
 * A server may have compromised its worker. ublkd checks each message, drops malformed ones, and
 * kills a worker that floods(): death is a case that flow_recover.c handles anyway.
 *
 * uv keeps each watch until its close callback, and answer() keeps the handle over its waits;
 * release_worker() frees it only once nr_watches, which counts both, is 0.
 *
 * Read worker_call() first, then link_ready() and ask_ready() for messages of the worker, then
 * ended() and note_end(). worker_launch.c starts a process, worker_socket.c has its socket's paths.
 */
#include "supervisor/worker.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/process.h"
#include "engine/backend.h"
#include "supervisor/worker_fence.h"
#include "supervisor/worker_launch.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECT_AGAIN_MS 100u
#define KILL_MS          10000
#define AT_A_TIME        16u /* messages of a worker, before the loop serves others */
#define QUESTIONS        8u  /* under way; a sound worker has one, and some that it gave up */

/* A sound worker sends a few messages a second, even while its server comes and goes. */
#define MESSAGES_PER_S 1000u

struct worker_setup worker_setup;

/* Owner: who started or adopted it; freed once uv has let go of its watches. */
struct worker {
	char name[80];
	pid_t pid;
	uint64_t started;
	int pidfd, link, ask;
	uv_poll_t watch_end, watch_link, watch_ask;
	unsigned nr_watches; /* watches that uv has not closed, and fibers in answer() */
	struct worker_events events;
	unsigned nr_questions;
	uint64_t second; /* the one in which nr_messages were received */
	unsigned nr_messages;
	bool ended, reported_end, calling, forgotten, sent_malformed, refused;
	int code; /* the errno that the worker reported for its exit; 0: none */
	char *text;
	json_int_t last_id;
	json_t *reply; /* to last_id */
	struct link_fds reply_fds;
	struct fiber_event replied, free_for_calls, end;
	struct worker_fence kept;
};

/* ---- the worker's events and requests ---- */

static void reap(struct worker *w)
{
	siginfo_t info;

	/* A worker that an earlier ublkd has started is not our child. */
	waitid(P_PIDFD, (id_t)w->pidfd, &info, WEXITED | WNOHANG);
}

static void release_worker(struct worker *w);

static void watch_closed(uv_handle_t *handle)
{
	struct worker *w = handle->data;

	w->nr_watches--;
	release_worker(w);
}

/* Close the watch before the descriptor: uv must not poll a number that is reused. */
static void unwatch(uv_poll_t *watch, int *fd)
{
	if (*fd < 0)
		return;
	uv_close((uv_handle_t *)watch, watch_closed);
	close(*fd);
	*fd = -1;
}

static void ended(uv_poll_t *watch, int status, int events)
{
	struct worker *w = watch->data;

	(void)status;
	(void)events;
	uv_poll_stop(&w->watch_end);
	reap(w);
	w->ended = true;
	fiber_raise(&w->end);
	fiber_raise(&w->replied);
	w->events.ended(w, w->events.context);
}

/*
 * The worker exited or stopped responding. The connections that it has reported stay known
 * until worker_give_connections() has read them.
 */
static void lose_link(struct worker *w)
{
	unwatch(&w->watch_link, &w->link);
	if (w->ask >= 0)
		uv_poll_stop(&w->watch_ask);
	worker_kill(w);
	fiber_raise(&w->replied);
}

static void note_end(struct worker *w, int code, const char *text)
{
	w->reported_end = true;
	w->code = code;
	w->text = strdup(text);
}

static void report_end(struct worker *w)
{
	fiber_raise(&w->end);
	w->events.ended(w, w->events.context);
}

/* Whether the worker exceeds its rate of messages: it is broken or compromised, and is killed. */
static bool floods(struct worker *w)
{
	uint64_t second = clock_ms() / 1000;
	char text[80];

	if (second != w->second)
		w->nr_messages = 0;
	w->second = second;
	if (++w->nr_messages <= MESSAGES_PER_S || w->ended)
		return false;
	snprintf(text, sizeof(text), "the worker (process %d) floods ublkd with messages",
		 (int)w->pid);
	if (!w->reported_end)
		note_end(w, EPIPE, text);
	lose_link(w);
	report_end(w);
	return true;
}

static void take_event(struct worker *w, const json_t *message, const char *event)
{
	const char *text = json_string_value(json_object_get(message, "text"));
	json_int_t size = json_integer_value(json_object_get(message, "size"));

	if (!strcmp(event, "ended") && !w->reported_end) {
		json_int_t code = json_integer_value(json_object_get(message, "code"));

		code = code > 0 && code <= 4095 ? code : code ? EIO : 0;
		note_end(w, (int)code, text && *text ? text : strerror((int)code));
		report_end(w);
	} else if (!strcmp(event, "grown") && size > 0) {
		w->events.grown(w, (uint64_t)size, w->events.context);
	} else if (!strcmp(event, "health")) {
		w->events.health(w, json_object_get(message, "conditions"), w->events.context);
	}
}

static void drop(json_t *message, struct link_fds *fds)
{
	json_decref(message);
	link_close_fds(fds);
}

/* As link_receive(), but drops the messages of a worker over its rate limit. */
static int take_message(struct worker *w, int socket, json_t **message, struct link_fds *fds)
{
	int ret = link_receive(socket, message, fds);

	if ((ret && ret != -EBADMSG) || !floods(w))
		return ret;
	if (!ret)
		drop(*message, fds);
	return -EAGAIN;
}

static void link_ready(uv_poll_t *watch, int status, int events)
{
	struct worker *w = watch->data;

	(void)status;
	(void)events;
	for (unsigned i = 0; w->link >= 0 && i < AT_A_TIME; i++) {
		struct link_fds fds;
		json_t *message;
		const char *event;
		int ret = take_message(w, w->link, &message, &fds);

		if (ret == -EAGAIN)
			return;
		if (ret == -EBADMSG) {
			if (!w->sent_malformed)
				log_warning(w->name, "malformed message from the worker");
			w->sent_malformed = true;
			continue;
		}
		if (ret) {
			lose_link(w);
			return;
		}
		/* An event, or the reply: a late reply to a call that timed out has an older id. */
		event = json_string_value(json_object_get(message, "event"));
		if (event) {
			take_event(w, message, event);
		} else if (w->calling && !w->reply &&
			   (json_integer_value(json_object_get(message, "done")) == w->last_id ||
			    json_integer_value(json_object_get(message, "failed")) == w->last_id)) {
			w->reply = message;
			w->reply_fds = fds;
			fiber_raise(&w->replied);
			continue;
		}
		drop(message, &fds);
	}
}

/* A request of a worker. Owner: the fiber that answers it. */
struct question {
	struct worker *worker;
	json_t *message;
};

static void ask_ready(uv_poll_t *watch, int status, int events);

/* Whether an answer can still be sent to the worker. */
static bool can_answer(const struct worker *w)
{
	return w->link >= 0 && w->ask >= 0;
}

static void answer(void *context)
{
	struct question q = *(struct question *)context;
	struct worker *w = q.worker;
	const char *kind = json_string_value(json_object_get(q.message, "ask"));
	json_t *id = json_object_get(q.message, "id");
	int ret = kind ? w->events.ask(w, kind, q.message, w->events.context) : -EINVAL;

	free(context);
	if (can_answer(w))
		link_send(w->ask,
			  json_pack("{s:O, s:i}", "answer", id ? id : json_null(), "result",
				    ret < 0 ? ret : 0),
			  &ret, ret > 0 ? 1 : 0);
	if (ret > 0)
		close(ret);
	json_decref(q.message);
	if (w->nr_questions-- == QUESTIONS && can_answer(w))
		uv_poll_start(&w->watch_ask, UV_READABLE, ask_ready);
	w->nr_watches--;
	release_worker(w);
}

/*
 * Keeps a duplicate of the worker's connection. After the worker's death it shows ublkd when the
 * server has ended that connection. Returns false where message is about something else.
 */
static bool keep_connection(struct worker *w, const json_t *message, struct link_fds *fds)
{
	const char *kind = json_string_value(json_object_get(message, "ask"));
	json_int_t slot = json_integer_value(json_object_get(message, "slot"));
	const json_t *wait = json_object_get(message, "wait");

	if (!kind || strcmp(kind, "keep") != 0)
		return false;
	if (slot >= 0 && slot < HOST_CONNECTIONS)
		worker_fence_put(&w->kept, (unsigned)slot, link_take_fd(fds, 0),
				 wait && json_integer_value(wait) >= 0
					 ? (uint64_t)json_integer_value(wait)
					 : UINT64_MAX);
	return true;
}

static void ask_ready(uv_poll_t *watch, int status, int events)
{
	struct worker *w = watch->data;
	struct question *question;
	struct link_fds fds;
	json_t *message;
	int ret;

	(void)status;
	(void)events;
	ret = take_message(w, w->ask, &message, &fds);
	if (ret == -EAGAIN || ret == -EBADMSG)
		return;
	if (ret) {
		unwatch(&w->watch_ask, &w->ask);
		return;
	}
	if (keep_connection(w, message, &fds)) {
		drop(message, &fds);
		return;
	}
	link_close_fds(&fds);
	question = malloc(sizeof(*question));
	if (!question) {
		json_decref(message);
		return;
	}
	*question = (struct question){ .worker = w, .message = message };
	w->nr_watches++; /* keeps w until the fiber has ended */
	if (++w->nr_questions == QUESTIONS)
		uv_poll_stop(&w->watch_ask);
	if (fiber_start(answer, question)) {
		w->nr_watches--;
		w->nr_questions--;
		json_decref(message);
		free(question);
	}
}

/* ---- start and end of a worker ---- */

static void watch_worker(struct worker *w, uv_poll_t *handle, int fd, uv_poll_cb callback)
{
	uv_poll_init(uv_default_loop(), handle, fd);
	handle->data = w;
	w->nr_watches++;
	uv_poll_start(handle, UV_READABLE, callback);
}

/*
 * is_it checks that pid is the process that is meant. It runs after pidfd_open(), from when on the
 * kernel cannot reuse the number unnoticed.
 */
static struct worker *create(const char *name, const struct worker_events *events, pid_t pid,
			     bool (*is_it)(const struct worker *w, const void *context),
			     const void *context)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	snprintf(w->name, sizeof(w->name), "%s", name);
	w->pid = pid;
	w->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	w->link = w->ask = -1;
	worker_fence_init(&w->kept);
	w->events = *events;
	w->started = process_started(pid);
	if (w->pidfd >= 0 && is_it(w, context)) {
		fcntl(w->pidfd, F_SETFD, FD_CLOEXEC);
		watch_worker(w, &w->watch_end, w->pidfd, ended);
		return w;
	}
	if (w->pidfd >= 0)
		close(w->pidfd);
	free(w);
	return NULL;
}

/* An open connection shows that the process lives: the kernel closes it at exit. */
static bool is_connected(const struct worker *w, const void *link)
{
	(void)w;
	return !worker_socket_has_closed(*(const int *)link);
}

static bool is_known(const struct worker *w, const void *known)
{
	return w->started && w->started == ((const struct worker_process *)known)->started;
}

/* link (taken over) is a connection to the process, or -errno. Returns NULL if that is gone. */
static struct worker *use_link(int link, const char *name, const struct worker_events *events,
			       pid_t pid)
{
	struct worker *w = link < 0 ? NULL : create(name, events, pid, is_connected, &link);

	if (w) {
		w->link = link;
		watch_worker(w, &w->watch_link, link, link_ready);
	} else if (link >= 0) {
		close(link);
	}
	return w;
}

int worker_start(struct worker **worker, const char *name, const struct worker_events *events,
		 struct error *err)
{
	pid_t pid;
	int link = worker_launch(name, &pid, err);

	if (link < 0)
		return link;
	*worker = use_link(link, name, events, pid);
	return *worker ? 0
		       : error_set(err, EPIPE, "the worker (%s) exited at once",
				   worker_setup.program);
}

int worker_publish(struct worker *w, struct error *err)
{
	return worker_socket_publish(w->name, err);
}

struct worker *worker_adopt_known(const char *name, const struct worker_process *known,
				  const struct worker_events *events)
{
	return known->pid > 0 ? create(name, events, known->pid, is_known, known) : NULL;
}

struct worker *worker_adopt_new(const char *name, const struct worker_events *events)
{
	struct error ignored;
	pid_t pid = 0;
	int link = worker_socket_connect(name, WORKER_SOCKET_NEW, &pid, &ignored);

	return use_link(link, name, events, pid);
}

int worker_adopt(struct worker **worker, const char *name, const struct worker_process *known,
		 unsigned ms, const struct worker_events *events, struct error *err)
{
	uint64_t end = clock_ms() + ms;
	pid_t pid = 0;
	int link;

	/* EAGAIN: the backlog is full, as a hung worker has not accepted earlier connections. */
	while ((link = worker_socket_connect(name, WORKER_SOCKET_SERVING, &pid, err)) == -EAGAIN &&
	       clock_ms() < end)
		fiber_sleep(CONNECT_AGAIN_MS);
	*worker = use_link(link, name, events, pid);
	if (*worker)
		return 0;
	if (link >= 0)
		link = error_set(err, ESRCH, "the worker has just exited");
	*worker = worker_adopt_known(name, known, events);
	if (*worker)
		return error_set(err, ETIMEDOUT, "it accepts no connection");
	if (link == -ENOENT || link == -ECONNREFUSED)
		return error_set(err, ESRCH, "the worker is gone");
	return link;
}

bool worker_is_there(const struct worker *w)
{
	struct pollfd end = { .fd = w->pidfd, .events = POLLIN };

	return !w->ended && !poll(&end, 1, 0);
}

bool worker_has_ended(const struct worker *w)
{
	return w->ended;
}

int worker_fault(const struct worker *w, struct error *err)
{
	if (!w->reported_end || !w->code)
		return 0;
	return error_set(err, w->code, "%s", w->text ? w->text : strerror(w->code));
}

bool worker_has_refused(const struct worker *w)
{
	return w->refused && !w->ended;
}

pid_t worker_pid(const struct worker *w)
{
	return w->pid;
}

struct worker_process worker_process(const struct worker *w)
{
	return (struct worker_process){ w->pid, w->started };
}

void worker_kill(struct worker *w)
{
	if (!w->ended)
		syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

static void wait_end(struct worker *w, unsigned ms)
{
	uint64_t end = clock_ms() + ms, now;

	while (!w->ended && (now = clock_ms()) < end)
		fiber_wait(&w->end, (unsigned)(end - now));
}

int worker_finish(struct worker *w, unsigned ms)
{
	if (ms)
		wait_end(w, ms);
	worker_kill(w);
	wait_end(w, KILL_MS);
	return w->ended ? 0 : -ETIMEDOUT;
}

/* The loop may not have read the last messages: take the connections, drop requests. */
static void take_last_connections(struct worker *w)
{
	for (unsigned i = 0; w->ask >= 0 && i < MESSAGES_PER_S; i++) {
		struct link_fds fds;
		json_t *message;
		int ret = link_receive(w->ask, &message, &fds);

		if (ret == -EBADMSG)
			continue;
		if (ret)
			return;
		keep_connection(w, message, &fds);
		drop(message, &fds);
	}
}

void worker_give_connections(struct worker *w, struct fence *fence)
{
	take_last_connections(w);
	worker_fence_give(&w->kept, fence);
}

static void release_worker(struct worker *w)
{
	if (!w->forgotten || w->nr_watches)
		return;
	json_decref(w->reply);
	free(w->text);
	free(w);
}

static void ignore_end(struct worker *w, void *context)
{
	(void)w;
	(void)context;
}

static void ignore_growth(struct worker *w, uint64_t size, void *context)
{
	(void)w;
	(void)size;
	(void)context;
}

static void ignore_health(struct worker *w, const json_t *conditions, void *context)
{
	(void)w;
	(void)conditions;
	(void)context;
}

static int refuse_request(struct worker *w, const char *kind, const json_t *question, void *context)
{
	(void)w;
	(void)kind;
	(void)question;
	(void)context;
	return -ENOTCONN;
}

void worker_forget(struct worker *w)
{
	if (!w)
		return;
	w->events = (struct worker_events){ .ended = ignore_end,
					    .grown = ignore_growth,
					    .health = ignore_health,
					    .ask = refuse_request };
	w->forgotten = true;
	reap(w);
	worker_fence_close(&w->kept);
	unwatch(&w->watch_link, &w->link);
	unwatch(&w->watch_ask, &w->ask);
	unwatch(&w->watch_end, &w->pidfd);
	release_worker(w);
}

/* ---- calls ---- */

json_t *worker_request(const char *verb)
{
	return json_pack("{s:s}", "do", verb);
}

static int worker_died(const struct worker *w, struct error *err)
{
	if (worker_fault(w, err))
		return -err->code;
	return error_set(err, EPIPE, "the worker (process %d) died", (int)w->pid);
}

int worker_call(struct worker *w, json_t *request, const int *fds, unsigned nr, unsigned ms,
		json_t **reply, struct link_fds *got, struct error *err)
{
	uint64_t end, now;
	int ret;

	if (reply)
		*reply = NULL;
	if (got)
		got->nr = 0;
	while (w->calling)
		fiber_wait(&w->free_for_calls, 0);
	if (w->link < 0 || w->ended) {
		json_decref(request);
		return worker_died(w, err);
	}
	w->calling = true;
	w->refused = false;
	json_object_set_new(request, "id", json_integer(++w->last_id));
	ret = link_send(w->link, request, fds, nr);
	end = clock_ms() + ms;
	while (!ret && !w->reply && w->link >= 0 && !w->ended) {
		now = clock_ms();
		ret = now < end ? 0 : -ETIMEDOUT;
		if (!ret)
			fiber_wait(&w->replied, (unsigned)(end - now));
	}
	w->refused = w->reply && json_object_get(w->reply, "failed");
	if (w->refused)
		ret = link_to_error(w->reply, err);
	else if (w->reply)
		ret = 0;
	else if (ret == -ETIMEDOUT)
		error_set(err, ETIMEDOUT, "the worker (process %d) did not answer within %u s",
			  (int)w->pid, ms / 1000);
	else if (ret && ret != -EPIPE && ret != -ECONNRESET)
		error_set(err, ret, "cannot send a request to the worker (process %d): %s",
			  (int)w->pid, strerror(-ret));
	else
		ret = worker_died(w, err);
	if (w->reply) {
		if (!ret && got)
			*got = w->reply_fds;
		else
			link_close_fds(&w->reply_fds);
		if (!ret && reply)
			*reply = w->reply;
		else
			json_decref(w->reply);
	}
	w->reply = NULL;
	w->reply_fds.nr = 0;
	w->calling = false;
	fiber_raise(&w->free_for_calls);
	return ret;
}

int worker_call_with_ask(struct worker *w, json_t *request, unsigned ms, json_t **reply,
			 struct link_fds *got, struct error *err)
{
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		json_decref(request);
		return error_set(err, errno, "socketpair: %s", strerror(errno));
	}
	w->ask = pair[0];
	watch_worker(w, &w->watch_ask, w->ask, ask_ready);
	ret = worker_call(w, request, &pair[1], 1, ms, reply, got, err);
	close(pair[1]);
	return ret;
}
