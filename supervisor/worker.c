/* SPDX-License-Identifier: MIT */
#include "supervisor/worker.h"
#include "engine/backend.h"
#include "engine/error.h"
#include "engine/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECT_MS       10000
#define CONNECT_AGAIN_MS 100u
#define KILL_MS          10000
#define AT_A_TIME        16u /* messages, before others have their turn */
#define QUESTIONS        8u  /* under way; an honest worker has one, and some that it gave up */

/* An honest worker has a few a second to tell and to ask, when its server comes and goes. */
#define MESSAGES_PER_S 1000u

struct worker_setup worker_setup;

/* Owner: who started or adopted it; freed once uv has let go of its watches. */
struct worker {
	char name[80];
	pid_t pid;
	uint64_t started;
	int pidfd, link, ask;
	uv_poll_t watch_end, watch_link, watch_ask;
	unsigned nr_watches; /* uv has that many of them */
	struct worker_events events;
	unsigned nr_questions;
	uint64_t second; /* that nr_messages were taken in */
	unsigned nr_messages;
	bool ended, told_end, calling, forgotten, babbled, refused;
	int code; /* what it said that it ends of */
	char *text;
	json_int_t last_id;
	json_t *reply; /* to last_id */
	struct link_fds reply_fds;
	struct fiber_event replied, free_for_calls, end;
	int kept[HOST_CONNECTIONS]; /* its connections to servers, in turn; -1: none */
};

/*
 * Where a worker listens: NEW until it is about to serve.  The worker that serves
 * keeps its name until then, so that the next ublkd finds it and no other.
 */
#define SERVING ".sock"
#define NEW     ".new"

static int socket_path(const char *name, const char *suffix, struct sockaddr_un *address,
		       struct error *err)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s%s",
			  worker_setup.folder, name, suffix);
	if (length < (int)sizeof(address->sun_path))
		return 0;
	return error_set(err, ENAMETOOLONG,
			 "%s: too long for a socket's path: choose a shorter one",
			 worker_setup.folder);
}

static void remove_socket(const char *name, const char *suffix)
{
	struct sockaddr_un address;

	if (!socket_path(name, suffix, &address, NULL))
		unlink(address.sun_path);
}

void worker_remove_socket(const char *name)
{
	remove_socket(name, SERVING);
	remove_socket(name, NEW);
}

int worker_publish(struct worker *w, struct error *err)
{
	struct sockaddr_un from, to;
	int ret = socket_path(w->name, NEW, &from, err);

	if (!ret)
		ret = socket_path(w->name, SERVING, &to, err);
	if (!ret && rename(from.sun_path, to.sun_path))
		ret = error_set(err, errno, "%s: %s", to.sun_path, strerror(errno));
	return ret;
}

/* ---- what it tells and asks ---- */

static void reap(struct worker *w)
{
	siginfo_t info;

	/* One that an earlier ublkd has started is not our child. */
	waitid(P_PIDFD, (id_t)w->pidfd, &info, WEXITED | WNOHANG);
}

static void release(struct worker *w);

static void watch_closed(uv_handle_t *handle)
{
	struct worker *w = handle->data;

	w->nr_watches--;
	release(w);
}

/* The watch goes first: later the descriptor's number may be another's. */
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

/* It ends, or is none that could be told anything any more. */
static void lose_link(struct worker *w)
{
	unwatch(&w->watch_link, &w->link);
	unwatch(&w->watch_ask, &w->ask);
	worker_kill(w);
	fiber_raise(&w->replied);
}

static void note_end(struct worker *w, int code, const char *text)
{
	w->told_end = true;
	w->code = code;
	w->text = strdup(text);
}

static void tell_end(struct worker *w)
{
	fiber_raise(&w->end);
	w->events.ended(w, w->events.context);
}

/* Whether it says so much that nobody can want to hear it: then it is broken, and killed. */
static bool floods(struct worker *w)
{
	uint64_t second = fiber_now_ms() / 1000;
	char text[80];

	if (second != w->second)
		w->nr_messages = 0;
	w->second = second;
	if (++w->nr_messages <= MESSAGES_PER_S || w->ended)
		return false;
	snprintf(text, sizeof(text), "its worker (process %d) floods ublkd with messages",
		 (int)w->pid);
	if (!w->told_end)
		note_end(w, EPIPE, text);
	lose_link(w);
	tell_end(w);
	return true;
}

static void take_event(struct worker *w, const json_t *message, const char *event)
{
	const char *text = json_string_value(json_object_get(message, "text"));
	json_int_t size = json_integer_value(json_object_get(message, "size"));

	if (!strcmp(event, "ended") && !w->told_end) {
		json_int_t code = json_integer_value(json_object_get(message, "code"));

		code = code > 0 && code <= 4095 ? code : code ? EIO : 0;
		note_end(w, (int)code, text ? text : "");
		tell_end(w);
	} else if (!strcmp(event, "grown") && size > 0) {
		w->events.grown(w, (uint64_t)size, w->events.context);
	}
}

static void drop(json_t *message, struct link_fds *fds)
{
	json_decref(message);
	link_close_fds(fds);
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
		int ret = link_receive(w->link, &message, &fds);

		if (ret == -EAGAIN)
			return;
		if ((!ret || ret == -EBADMSG) && floods(w)) {
			if (!ret)
				drop(message, &fds);
			return;
		}
		if (ret == -EBADMSG) {
			if (!w->babbled)
				log_warning(w->name,
					    "its worker said something that is no message");
			w->babbled = true;
			continue;
		}
		if (ret) {
			lose_link(w);
			return;
		}
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

/* One of a worker's questions; the fiber's. */
struct question {
	struct worker *worker;
	json_t *message;
};

static void ask_ready(uv_poll_t *watch, int status, int events);

static void answer(void *context)
{
	struct question q = *(struct question *)context;
	struct worker *w = q.worker;
	const char *kind = json_string_value(json_object_get(q.message, "ask"));
	json_t *id = json_object_get(q.message, "id");
	int ret = kind ? w->events.ask(w, kind, q.message, w->events.context) : -EINVAL;

	free(context);
	if (w->ask >= 0)
		link_send(w->ask,
			  json_pack("{s:O, s:i}", "answer", id ? id : json_null(), "result",
				    ret < 0 ? ret : 0),
			  &ret, ret > 0 ? 1 : 0);
	if (ret > 0)
		close(ret);
	json_decref(q.message);
	if (w->nr_questions-- == QUESTIONS && w->ask >= 0)
		uv_poll_start(&w->watch_ask, UV_READABLE, ask_ready);
	w->nr_watches--;
	release(w);
}

static void keep_connection(struct worker *w, const json_t *message, struct link_fds *fds)
{
	json_int_t slot = json_integer_value(json_object_get(message, "slot"));

	if (slot < 0 || slot >= HOST_CONNECTIONS)
		return;
	if (w->kept[slot] >= 0)
		link_close(w->kept[slot]);
	w->kept[slot] = link_take_fd(fds, 0);
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
	ret = link_receive(w->ask, &message, &fds);
	if ((!ret || ret == -EBADMSG) && floods(w)) {
		if (!ret)
			drop(message, &fds);
		return;
	}
	if (ret == -EAGAIN || ret == -EBADMSG)
		return;
	if (ret) {
		unwatch(&w->watch_ask, &w->ask);
		return;
	}
	if (json_is_string(json_object_get(message, "ask")) &&
	    !strcmp(json_string_value(json_object_get(message, "ask")), "keep")) {
		keep_connection(w, message, &fds);
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
	w->nr_watches++; /* it must not be freed under the fiber */
	if (++w->nr_questions == QUESTIONS)
		uv_poll_stop(&w->watch_ask);
	if (fiber_start(answer, question)) {
		w->nr_watches--;
		w->nr_questions--;
		json_decref(message);
		free(question);
	}
}

/* ---- its start and end ---- */

static void watch(struct worker *w, uv_poll_t *handle, int fd, uv_poll_cb callback)
{
	uv_poll_init(uv_default_loop(), handle, fd);
	handle->data = w;
	w->nr_watches++;
	uv_poll_start(handle, UV_READABLE, callback);
}

static int connect_to(const char *name, const char *suffix, pid_t *pid, struct error *err)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int fd, ret = socket_path(name, suffix, &address, err);

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length)) {
		int code = errno;

		close(fd);
		return error_set(err, code, "%s: %s", address.sun_path, strerror(code));
	}
	/* Of the process that called listen(): the worker. */
	*pid = peer.pid;
	return fd;
}

static int bind_socket(const char *name, struct error *err)
{
	struct sockaddr_un address;
	int fd, ret = socket_path(name, NEW, &address, err);

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(err, errno, "socket: %s", strerror(errno));
	unlink(address.sun_path);
	if (!bind(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	ret = error_set(err, errno, "%s: %s", address.sun_path, strerror(errno));
	close(fd);
	return ret;
}

/* Has the service manager start one, where it has a socket for that; else does it itself. */
static int spawn(int start, struct error *err)
{
	const char *const argv[] = { worker_setup.program, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	pid_t pid;
	int ret;

	sigemptyset(&none);
	sigfillset(&defaults);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, start, WORKER_START_FD);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	/* A session of its own: what is sent to ublkd's is not for it. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
						      POSIX_SPAWN_SETSID);
	ret = posix_spawn(&pid, worker_setup.program, &actions, &attributes,
			  (char *const *)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return ret ? error_set(err, ret, "%s: %s", worker_setup.program, strerror(ret)) : 0;
}

/* A connection to a worker that has just been started. */
static int begin(struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint64_t end = fiber_now_ms() + CONNECT_MS;
	int pair[2], ret;

	pair[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", worker_setup.starter);
	while (pair[0] >= 0) {
		if (!connect(pair[0], (struct sockaddr *)&address, sizeof(address)))
			return pair[0];
		/* Many are being started: it has not taken them all yet. */
		if (errno != EAGAIN || fiber_now_ms() > end)
			break;
		fiber_sleep(10);
	}
	if (pair[0] >= 0)
		close(pair[0]);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return error_set(err, errno, "socketpair: %s", strerror(errno));
	ret = spawn(pair[1], err);
	close(pair[1]);
	if (!ret)
		return pair[0];
	close(pair[0]);
	return ret;
}

static bool has_closed(int fd)
{
	char byte;

	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return !n || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* When that process was started; 0: there is none. */
static uint64_t start_of(pid_t pid)
{
	char path[32], text[1024], *at;
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[n < 0 ? 0 : n] = 0;
	/* Field 2 is its name in brackets, and may be anything. */
	at = strrchr(text, ')');
	for (unsigned field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

/* is_it: whether that number is the process's that is meant; asked once it is watched. */
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
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		w->kept[i] = -1;
	w->events = *events;
	w->started = start_of(pid);
	if (w->pidfd >= 0 && is_it(w, context)) {
		fcntl(w->pidfd, F_SETFD, FD_CLOEXEC);
		watch(w, &w->watch_end, w->pidfd, ended);
		return w;
	}
	if (w->pidfd >= 0)
		close(w->pidfd);
	free(w);
	return NULL;
}

/* A connection to a process is not closed while that lives. */
static bool is_connected(const struct worker *w, const void *link)
{
	(void)w;
	return !has_closed(*(const int *)link);
}

static bool is_known(const struct worker *w, const void *known)
{
	return w->started && w->started == ((const struct worker_process *)known)->started;
}

static void use_link(struct worker *w, int link)
{
	w->link = link;
	watch(w, &w->watch_link, link, link_ready);
}

/* Gives it the socket to listen at, and connects to that. */
static int meet(int start, const char *name, int *link, pid_t *pid, struct error *err)
{
	int listener = bind_socket(name, err), ret;
	uint64_t end = fiber_now_ms() + CONNECT_MS;

	if (listener < 0)
		return listener;
	ret = link_send(start, json_pack("{s:s, s:s}", "do", "listen", "name", name), &listener, 1);
	close(listener);
	if (ret && ret != -EPIPE)
		return error_set(err, ret, "its worker cannot be told: %s", strerror(-ret));
	for (;;) {
		/* First: it closes that once it is connected to, or dead. */
		bool closed = has_closed(start);

		*link = connect_to(name, NEW, pid, err);
		if (*link >= 0)
			return 0;
		if (closed)
			return error_set(err, EPIPE, "its worker (%s) ended at once",
					 worker_setup.program);
		if (fiber_now_ms() > end)
			return error_set(err, ETIMEDOUT, "its worker (%s) does not start",
					 worker_setup.program);
		fiber_sleep(2);
	}
}

int worker_start(struct worker **worker, const char *name, const struct worker_events *events,
		 struct error *err)
{
	int start = begin(err), link = -1, ret;
	struct worker *w = NULL;
	pid_t pid;

	if (start < 0)
		return start;
	ret = meet(start, name, &link, &pid, err);
	if (!ret) {
		w = create(name, events, pid, is_connected, &link);
		if (!w)
			ret = error_set(err, EPIPE, "its worker (%s) ended at once",
					worker_setup.program);
	}
	/* One that has no other connection by now ends. */
	close(start);
	if (ret) {
		if (link >= 0)
			close(link);
		return ret;
	}
	use_link(w, link);
	*worker = w;
	return 0;
}

int worker_adopt(struct worker **worker, const char *name, const struct worker_process *known,
		 unsigned ms, const struct worker_events *events, struct error *err)
{
	uint64_t end = fiber_now_ms() + ms;
	pid_t pid;
	int link;

	*worker = NULL;
	/* Of one that an earlier ublkd was about to start: it ends with that. */
	remove_socket(name, NEW);
	/* One that hangs has taken no connection of those that an earlier ublkd has made. */
	while ((link = connect_to(name, SERVING, &pid, err)) == -EAGAIN && fiber_now_ms() < end)
		fiber_sleep(CONNECT_AGAIN_MS);
	if (link >= 0) {
		*worker = create(name, events, pid, is_connected, &link);
		if (*worker) {
			use_link(*worker, link);
			return 0;
		}
		close(link);
		link = error_set(err, ESRCH, "its worker has just gone");
	}
	if (known->pid > 0)
		*worker = create(name, events, known->pid, is_known, known);
	if (*worker)
		return error_set(err, ETIMEDOUT, "it takes no connection");
	if (link == -ENOENT || link == -ECONNREFUSED)
		return error_set(err, ESRCH, "its worker is gone");
	return link;
}

bool worker_has_ended(const struct worker *w)
{
	return w->ended;
}

int worker_fault(const struct worker *w, struct error *err)
{
	if (!w->told_end || !w->code)
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

/* It was made here: none that the worker could make has our user and is sealed. */
bool worker_is_memory(int fd, uint64_t size)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !st.st_nlink &&
	       (uint64_t)st.st_size >= size && fcntl(fd, F_GET_SEALS) > 0;
}

static int open_memory(DIR *dir, const char *entry, uint64_t size)
{
	static const char name[] = "/memfd:" WORKER_MEMORY " (deleted)";
	char target[sizeof(name)];
	ssize_t n = readlinkat(dirfd(dir), entry, target, sizeof(target));
	int fd;

	if (n < 0)
		return errno == EACCES || errno == EPERM ? -EACCES : -ENOENT;
	if (n != sizeof(name) - 1 || memcmp(target, name, (size_t)n) != 0)
		return -ENOENT;
	/* The name alone says little: what else has it must not hold us up. */
	fd = openat(dirfd(dir), entry, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (worker_is_memory(fd, size))
		return fd;
	close(fd);
	return -ENOENT;
}

/* Then its number may be another process's by now. */
static bool has_just_ended(const struct worker *w)
{
	struct pollfd end = { .fd = w->pidfd, .events = POLLIN };

	return w->ended || poll(&end, 1, 0) != 0;
}

int worker_open_memory(const struct worker *w, uint64_t size)
{
	struct dirent *entry;
	int fd = -ENOENT, one;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)w->pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (fd < 0 && (entry = readdir(dir))) {
		one = open_memory(dir, entry->d_name, size);
		if (one != -ENOENT)
			fd = one;
	}
	closedir(dir);
	if (!has_just_ended(w))
		return fd;
	if (fd >= 0)
		close(fd);
	return -ESRCH;
}

void worker_kill(struct worker *w)
{
	if (!w->ended)
		syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

static void wait_end(struct worker *w, unsigned ms)
{
	uint64_t end = fiber_now_ms() + ms, now;

	while (!w->ended && (now = fiber_now_ms()) < end)
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

/* Whether the other side has ended it; what still comes is of no use. */
static bool is_over(int fd)
{
	char scratch[4096];
	ssize_t n;

	do
		n = recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT);
	while (n > 0);
	return !n || (errno != EAGAIN && errno != EINTR);
}

int worker_fence(struct worker *w, unsigned ms)
{
	uint64_t end = fiber_now_ms() + ms;
	int ret = 0;

	/* What it asked for last may not have been looked at. */
	for (unsigned i = 0; w->ask >= 0 && i < 4 * HOST_CONNECTIONS; i++)
		ask_ready(&w->watch_ask, 0, UV_READABLE);
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		if (w->kept[i] >= 0)
			shutdown(w->kept[i], SHUT_WR);
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++) {
		if (w->kept[i] < 0)
			continue;
		while (!is_over(w->kept[i])) {
			if (fiber_now_ms() >= end) {
				ret = -ETIMEDOUT;
				break;
			}
			fiber_sleep(5);
		}
		link_close(w->kept[i]);
		w->kept[i] = -1;
	}
	return ret;
}

static void release(struct worker *w)
{
	if (!w->forgotten || w->nr_watches)
		return;
	json_decref(w->reply);
	free(w->text);
	free(w);
}

static void heard_by_nobody(struct worker *w, void *context)
{
	(void)w;
	(void)context;
}

static void grown_for_nobody(struct worker *w, uint64_t size, void *context)
{
	(void)w;
	(void)size;
	(void)context;
}

static int asked_in_vain(struct worker *w, const char *kind, const json_t *question, void *context)
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
	w->events = (struct worker_events){ .ended = heard_by_nobody,
					    .grown = grown_for_nobody,
					    .ask = asked_in_vain };
	w->forgotten = true;
	reap(w);
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		if (w->kept[i] >= 0)
			link_close(w->kept[i]);
	unwatch(&w->watch_link, &w->link);
	unwatch(&w->watch_ask, &w->ask);
	unwatch(&w->watch_end, &w->pidfd);
	release(w);
}

/* ---- calls ---- */

json_t *worker_request(const char *verb)
{
	return json_pack("{s:s}", "do", verb);
}

static int died(const struct worker *w, struct error *err)
{
	if (worker_fault(w, err))
		return -err->code;
	return error_set(err, EPIPE, "its worker (process %d) has died", (int)w->pid);
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
		return died(w, err);
	}
	w->calling = true;
	w->refused = false;
	json_object_set_new(request, "id", json_integer(++w->last_id));
	ret = link_send(w->link, request, fds, nr);
	end = fiber_now_ms() + ms;
	while (!ret && !w->reply && w->link >= 0 && !w->ended) {
		now = fiber_now_ms();
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
		error_set(err, ETIMEDOUT, "its worker (process %d) has not answered within %u s",
			  (int)w->pid, ms / 1000);
	else if (ret && ret != -EPIPE && ret != -ECONNRESET)
		error_set(err, ret, "its worker (process %d) cannot be told: %s", (int)w->pid,
			  strerror(-ret));
	else
		ret = died(w, err);
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
	watch(w, &w->watch_ask, w->ask, ask_ready);
	ret = worker_call(w, request, &pair[1], 1, ms, reply, got, err);
	close(pair[1]);
	return ret;
}
