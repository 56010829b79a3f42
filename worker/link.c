/* SPDX-License-Identifier: MIT */
/*
 * A message is one packet (SOCK_SEQPACKET): there are no partial reads, and descriptors arrive with
 * their message. Sends and receives never block: a full socket is an error that the caller handles.
 * Descriptors may come from an untrusted worker: all are taken, and those that are too many are
 * closed.
 */
#include "worker/link.h"
#include "common/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES       4u   /* of what a signal, or the news of the peer's end, has cut short */
#define MESSAGE_FDS 253u /* SCM_MAX_FD, include/net/scm.h of Linux 6.12 */

int link_send(int socket, json_t *message, const int *fds, unsigned nr)
{
	union {
		char bytes[CMSG_SPACE(LINK_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	char *text = json_dumps(message, JSON_COMPACT);
	struct iovec part = { text, text ? strlen(text) : 0 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	int ret = 0;

	json_decref(message);
	if (!text)
		return -ENOMEM;
	if (part.iov_len > LINK_BYTES_MAX) {
		free(text);
		return -EMSGSIZE;
	}
	if (nr) {
		struct cmsghdr *c = &control.align;

		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	}
	/* A packet goes whole or not at all: no part of one is ever resent. */
	while (sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		ret = -errno;
		break;
	}
	free(text);
	return ret;
}

void link_close(int fd)
{
	struct linger off = { 0 }; /* it would have us wait until what it sends has gone */

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	close(fd);
}

static void take_fds(struct msghdr *header, struct link_fds *fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		unsigned nr;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < nr; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (fds->nr < LINK_FDS)
				fds->fd[fds->nr++] = fd;
			else
				link_close(fd);
		}
	}
}

int link_receive(int socket, json_t **message, struct link_fds *fds)
{
	/* All that one message can have, so that the kernel closes none by itself. */
	union {
		char bytes[CMSG_SPACE(MESSAGE_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { malloc(LINK_BYTES_MAX), LINK_BYTES_MAX };
	struct msghdr header = { .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes) };
	ssize_t got = -1;
	int ret = 0;

	*message = NULL;
	fds->nr = 0;
	if (!part.iov_base)
		return -ENOMEM;
	/* A peer that closed before it had read all is told of once; what it sent is there. */
	for (unsigned i = 0; i < TRIES; i++) {
		got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got >= 0 || (errno != EINTR && errno != ECONNRESET))
			break;
	}
	if (got < 0) {
		ret = errno == ECONNRESET ? -EPIPE : -errno;
	} else {
		take_fds(&header, fds);
		if (!got)
			ret = -EPIPE; /* no message of ours is empty */
		else if (!(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
			*message = json_loadb(part.iov_base, (size_t)got, JSON_REJECT_DUPLICATES,
					      NULL);
		if (!ret && !json_is_object(*message)) {
			json_decref(*message);
			*message = NULL;
			ret = -EBADMSG;
		}
		if (ret)
			link_close_fds(fds);
	}
	free(part.iov_base);
	return ret;
}

void link_close_fds(struct link_fds *fds)
{
	for (unsigned i = 0; i < fds->nr; i++)
		if (fds->fd[i] >= 0)
			link_close(fds->fd[i]);
	fds->nr = 0;
}

int link_take_fd(struct link_fds *fds, unsigned index)
{
	int fd = index < fds->nr ? fds->fd[index] : -1;

	if (fd >= 0)
		fds->fd[index] = -1;
	return fd;
}

json_t *link_failure(json_int_t id, const struct error *err)
{
	struct error printable = *err;

	text_make_printable(printable.text);
	return json_pack("{s:I, s:i, s:s}", "failed", id, "code", err->code ? err->code : EIO,
			 "text", printable.text);
}

int link_to_error(const json_t *message, struct error *err)
{
	json_int_t code = json_integer_value(json_object_get(message, "code"));
	const char *text = json_string_value(json_object_get(message, "text"));

	if (code <= 0 || code > 4095)
		code = EIO;
	return error_set(err, (int)code, "%s", text && *text ? text : strerror((int)code));
}
