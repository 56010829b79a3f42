/* SPDX-License-Identifier: MIT */
/*
 * Paths of the workers' sockets: NAME.sock of the worker that serves, NAME.new of one that was
 * started to replace it. rename(2) makes the change atomic, so that at each moment an ublkd that
 * starts finds one serving worker.
 */
#include "supervisor/worker_socket.h"
#include "common/error.h"
#include "supervisor/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *const suffixes[] = {
	[WORKER_SOCKET_SERVING] = ".sock",
	[WORKER_SOCKET_NEW] = ".new",
};

static int path_of(const char *name, enum worker_socket which, struct sockaddr_un *address,
		   struct error *err)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s%s",
			  worker_setup.directory, name, suffixes[which]);
	if (length < (int)sizeof(address->sun_path))
		return 0;
	return error_set(err, ENAMETOOLONG,
			 "%s: too long for the path of a socket: use a shorter state directory",
			 worker_setup.directory);
}

int worker_socket_bind(const char *name, struct error *err)
{
	struct sockaddr_un address;
	int fd, ret = path_of(name, WORKER_SOCKET_NEW, &address, err);

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

int worker_socket_connect(const char *name, enum worker_socket which, pid_t *pid, struct error *err)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int fd, ret = path_of(name, which, &address, err);

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
	/* The kernel reports the process that called listen(2), which is the worker, not ublkd. */
	*pid = peer.pid;
	return fd;
}

int worker_socket_publish(const char *name, struct error *err)
{
	struct sockaddr_un from, to;
	int ret = path_of(name, WORKER_SOCKET_NEW, &from, err);

	if (!ret)
		ret = path_of(name, WORKER_SOCKET_SERVING, &to, err);
	if (!ret && rename(from.sun_path, to.sun_path))
		ret = error_set(err, errno, "%s: %s", to.sun_path, strerror(errno));
	return ret;
}

bool worker_socket_has_closed(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return !n || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void remove_one(const char *name, enum worker_socket which)
{
	struct sockaddr_un address;

	if (!path_of(name, which, &address, NULL))
		unlink(address.sun_path);
}

void worker_socket_remove(const char *name)
{
	remove_one(name, WORKER_SOCKET_SERVING);
	remove_one(name, WORKER_SOCKET_NEW);
}

void worker_socket_remove_new(const char *name)
{
	remove_one(name, WORKER_SOCKET_NEW);
}
