/* SPDX-License-Identifier: MIT */
#include "tools/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs in the child: holds the device until the parent closes its end of the socket. */
static void hold(const char *path, int fd)
{
	int device = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	int result = device < 0 ? -errno : 0;
	char ignored;

	if (send(fd, &result, sizeof(result), MSG_NOSIGNAL) == sizeof(result) && !result)
		while (recv(fd, &ignored, 1, 0) < 0 && errno == EINTR)
			;
	_exit(0);
}

static void reap(struct claim *claim, int options)
{
	while (waitpid(claim->pid, NULL, options) < 0 && errno == EINTR)
		;
	*claim = (struct claim){ .fd = -1 };
}

int claim_take(struct claim *claim, const char *path, unsigned ms)
{
	struct pollfd answered = { .events = POLLIN };
	int pair[2], result = -EPIPE;

	*claim = (struct claim){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	claim->pid = fork();
	if (claim->pid < 0) {
		result = -errno;
		close(pair[0]);
		close(pair[1]);
		return result;
	}
	if (!claim->pid) {
		close(pair[0]);
		hold(path, pair[1]);
	}
	close(pair[1]);
	claim->fd = answered.fd = pair[0];
	if (poll(&answered, 1, (int)ms) <= 0)
		result = -ETIMEDOUT;
	else if (recv(claim->fd, &result, sizeof(result), 0) != sizeof(result))
		result = -EPIPE;
	if (!result)
		return 0;
	close(claim->fd);
	/* A child that is stuck in open() exits when the storage answers: do not wait for it. */
	reap(claim, result == -ETIMEDOUT ? WNOHANG : 0);
	return result;
}

void claim_release(struct claim *claim)
{
	if (claim->fd < 0)
		return;
	close(claim->fd);
	reap(claim, 0);
}
