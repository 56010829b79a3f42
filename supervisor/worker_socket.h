/* SPDX-License-Identifier: MIT */
/*
 * The sockets of an export's workers in the directory of workers' sockets. A new worker listens at
 * NAME.new until it is about to serve, then its socket replaces NAME.sock of the serving worker. So
 * an ublkd that starts finds exactly the worker that serves.
 *
 * Thread: the loop's.  None of them waits.  Errors: each returns -errno with err
 * filled.
 */
#ifndef UBLKD_WORKER_SOCKET_H
#define UBLKD_WORKER_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

struct error;

enum worker_socket {
	WORKER_SOCKET_SERVING,
	WORKER_SOCKET_NEW
};

/* Binds a socket at NEW, in place of an earlier one; the worker listens at it. */
int worker_socket_bind(const char *name, struct error *err);

/*
 * Connects to the worker that listens there; *pid is its process.  -EAGAIN: its backlog is full;
 * -ENOENT, -ECONNREFUSED: no worker listens.
 */
int worker_socket_connect(const char *name, enum worker_socket which, pid_t *pid,
			  struct error *err);

/* Renames the socket at NEW to SERVING.  Returns 0. */
int worker_socket_publish(const char *name, struct error *err);

/* Whether the other side of a connection has closed it. */
bool worker_socket_has_closed(int fd);

/* Removes both sockets, or NEW alone. */
void worker_socket_remove(const char *name);
void worker_socket_remove_new(const char *name);

#endif
