/* SPDX-License-Identifier: MIT */
/*
 * The sockets at which the workers of an export listen, by their names in the directory
 * of workers' sockets: a new one has a name of its own until it is about to serve.
 * The worker that serves keeps its name until then, so that the next ublkd finds it
 * and no other.
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

/* A socket at NEW, in place of an earlier one, to be listened at. */
int worker_socket_bind(const char *name, struct error *err);

/*
 * A connection to who listens there; *pid: of that process.  -EAGAIN: it takes none
 * of those that there are already; -ENOENT, -ECONNREFUSED: nobody listens.
 */
int worker_socket_connect(const char *name, enum worker_socket which, pid_t *pid,
			  struct error *err);

/* The socket at NEW takes SERVING's place.  Returns 0. */
int worker_socket_publish(const char *name, struct error *err);

/* Whether the other side of a connection has closed it. */
bool worker_socket_has_closed(int fd);

/* Removes those that are left, or NEW alone. */
void worker_socket_remove(const char *name);
void worker_socket_remove_new(const char *name);

#endif
