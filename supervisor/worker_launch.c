/* SPDX-License-Identifier: MIT */
/*
 * Starting a worker, in two steps.
 *
 * First a process: a connection to the socket of the service manager starts an instance of
 * ublkd-worker@.service, which systemd supervises on its own, so that stopping ublkd.service leaves
 * it alone. Without such a socket ublkd spawns the program itself.
 *
 * Then its own socket: ublkd binds NAME.new and sends it to the worker, which listens on it. This
 * connection, unlike the first, can be made again by the next ublkd (worker_adopt()).
 *
 * Read worker_launch() first, then begin_launch() and meet().
 */
#include "supervisor/worker_launch.h"
#include "common/clock.h"
#include "common/error.h"
#include "supervisor/fiber.h"
#include "supervisor/worker.h"
#include "supervisor/worker_socket.h"
#include "worker/link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_MS 10000

/* Starts a worker as a child of ublkd, where no service manager does. */
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
	/* A session of its own: a signal to ublkd's session (^C) must not end the worker. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
						      POSIX_SPAWN_SETSID);
	ret = posix_spawn(&pid, worker_setup.program, &actions, &attributes,
			  (char *const *)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return ret ? error_set(err, ret, "%s: %s", worker_setup.program, strerror(ret)) : 0;
}

/* Starts a worker, and returns a connection to it. */
static int begin_launch(struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint64_t end = clock_ms() + CONNECT_MS;
	int pair[2], ret;

	pair[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", worker_setup.starter);
	while (pair[0] >= 0) {
		if (!connect(pair[0], (struct sockaddr *)&address, sizeof(address)))
			return pair[0];
		/* EAGAIN: many workers are starting, and the backlog of the socket is full. */
		if (errno != EAGAIN || clock_ms() > end)
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

/*
 * Sends the worker the socket to listen at, and connects to it. Only root can use the directory of
 * the sockets, so ublkd binds the socket.
 */
static int meet(int start, const char *name, pid_t *pid, struct error *err)
{
	int listener = worker_socket_bind(name, err), ret;
	uint64_t end = clock_ms() + CONNECT_MS;

	if (listener < 0)
		return listener;
	ret = link_send(start, json_pack("{s:s, s:s}", "do", "listen", "name", name), &listener, 1);
	close(listener);
	if (ret && ret != -EPIPE)
		return error_set(err, ret, "cannot send a request to the worker: %s",
				 strerror(-ret));
	for (;;) {
		/*
		 * Check before connecting: the worker closes this once it is connected, or dead. If
		 * it was closed before, and connecting fails, the worker is dead.
		 */
		bool closed = worker_socket_has_closed(start);

		ret = worker_socket_connect(name, WORKER_SOCKET_NEW, pid, err);
		if (ret >= 0)
			return ret;
		if (closed)
			return error_set(err, EPIPE, "the worker (%s) exited at once",
					 worker_setup.program);
		if (clock_ms() > end)
			return error_set(err, ETIMEDOUT, "the worker (%s) does not start",
					 worker_setup.program);
		fiber_sleep(2);
	}
}

int worker_launch(const char *name, pid_t *pid, struct error *err)
{
	int start = begin_launch(err), link;

	if (start < 0)
		return start;
	link = meet(start, name, pid, err);
	/* Closing this ends a worker that ublkd has not connected to. */
	close(start);
	return link;
}
