/* SPDX-License-Identifier: MIT */
/*
 * The process that writes attributes in /sys for `ublkctl run`: one order a message, one result
 * back.
 *
 * A write to queue/scheduler sleeps uninterruptibly while requests are in flight (attribute.h). A
 * thread would not help: its process cannot exit during that sleep, so ublkcN stays open, and the
 * kernel never fails the requests that the sleep waits for.
 *
 * So the process must hold neither ublkcN nor a ring. attribute_start() forks before the caller has
 * either, and close_all_but() drops all inherited descriptors. A second fork leaves the process to
 * init: nobody waits for it, even if it sleeps on.
 *
 * Read attribute_start() first, then serve_writes(), the process's loop, and attribute_write(), the
 * caller's side. ublkd has blocking.c for the same purpose.
 */
#include "engine/attribute.h"
#include "common/clock.h"
#include "common/error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORDER_BYTES 200 /* path, NUL, value, NUL */
#define END_MS      200

int attribute_write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* The process: one order a message, until the other end is closed. */
static void serve_writes(int fd)
{
	char order[ORDER_BYTES + 1];
	ssize_t n;

	while ((n = recv(fd, order, sizeof(order) - 1, 0)) > 0) {
		const char *value;
		int ret;

		order[n] = 0;
		value = order + strlen(order) + 1;
		ret = value < order + n ? attribute_write_file(order, value) : -EINVAL;
		if (send(fd, &ret, sizeof(ret), MSG_NOSIGNAL) < 0)
			break;
	}
}

/* Everything but its socket: a terminal, a lock or a device must not live on in it. */
static void close_all_but(int fd)
{
	if (fd > 3)
		syscall(SYS_close_range, 3u, (unsigned)fd - 1, 0u);
	syscall(SYS_close_range, (unsigned)fd + 1, ~0u, 0u);
	for (int i = 0; i < 3; i++) {
		int null = open("/dev/null", O_RDWR);

		if (null >= 0 && null != i) {
			dup2(null, i);
			close(null);
		}
	}
}

int attribute_start(struct attribute_writer *writer, struct error *err)
{
	int pair[2];
	pid_t pid;

	*writer = (struct attribute_writer){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return error_set(err, errno, "socketpair: %s", strerror(errno));
	pid = fork();
	if (pid < 0) {
		int code = errno;

		close(pair[0]);
		close(pair[1]);
		return error_set(err, code, "fork: %s", strerror(code));
	}
	if (!pid) {
		/* The terminal's signals are for the server. Nobody reaps the second one. */
		setsid();
		if (fork())
			_exit(0);
		close_all_but(pair[1]);
		serve_writes(pair[1]);
		_exit(0);
	}
	close(pair[1]);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	writer->fd = pair[0];
	return 0;
}

int attribute_write(struct attribute_writer *writer, const char *path, const char *value,
		    unsigned ms)
{
	struct pollfd poll_fd = { .fd = writer->fd, .events = POLLIN };
	uint64_t until = clock_ms() + ms, now;
	char order[ORDER_BYTES];
	int n = snprintf(order, sizeof(order), "%s%c%s", path, 0, value), ret = 0;

	if (n < 0 || n + 1 > ORDER_BYTES)
		return -EINVAL;
	if (writer->fd < 0)
		return -ENOTCONN;
	if (send(writer->fd, order, (size_t)n + 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	writer->unanswered++;
	/* Answers that come late are of earlier orders. */
	while (writer->unanswered) {
		now = clock_ms();
		if (poll(&poll_fd, 1, until > now ? (int)(until - now) : 0) <= 0)
			return -ETIMEDOUT;
		if (recv(writer->fd, &ret, sizeof(ret), MSG_DONTWAIT) != sizeof(ret))
			return -EPIPE;
		writer->unanswered--;
	}
	return ret;
}

void attribute_end(struct attribute_writer *writer)
{
	struct pollfd poll_fd = { .fd = writer->fd, .events = POLLIN };

	if (writer->fd < 0)
		return;
	/* Its end of the socket closes once it has written; a process that sleeps is left alone. */
	shutdown(writer->fd, SHUT_WR);
	poll(&poll_fd, 1, END_MS);
	close(writer->fd);
	writer->fd = -1;
}
