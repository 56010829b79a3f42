/* SPDX-License-Identifier: MIT */
#include "common/old_socket.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

#define READS_A_CHECK 64u

/* The kernel probes a silent connection so often; a host that has restarted answers with a reset. */
static void keep_asking(int fd)
{
	int on = 1, idle_s = 5, interval_s = 5;
	/*
	 * With this the kernel does not give the connection up after a number of probes or
	 * retransmissions, but after that much silence (tcp_keepalive_timer() and
	 * tcp_write_timeout() of Linux 6.12): 24 days.
	 */
	unsigned silence_ms = INT_MAX;

	/* Each fails where the socket is not TCP, which needs none of them. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
}

void old_socket_shut(struct old_socket *s, int fd, uint64_t now_ms)
{
	*s = (struct old_socket){ .fd = fd, .quiet_ms = now_ms };
	keep_asking(fd);
	shutdown(fd, SHUT_WR);
}

bool old_socket_ask_tcp(int fd, uint64_t now_ms, struct old_socket_tcp *tcp)
{
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		return false;
	*tcp = (struct old_socket_tcp){
		.state = info.tcpi_state,
		.asked = info.tcpi_total_retrans + info.tcpi_probes,
		.unanswered = (uint32_t)info.tcpi_retransmits + info.tcpi_probes,
		.heard_ms = now_ms > info.tcpi_last_ack_recv ? now_ms - info.tcpi_last_ack_recv : 0,
	};
	return true;
}

enum old_socket_state old_socket_judge(struct old_socket *s, const struct old_socket_tcp *tcp,
				       uint64_t elsewhere_ms, uint64_t now_ms)
{
	uint32_t asked = tcp ? tcp->asked : s->asked;

	if (tcp && tcp->state == TCP_FIN_WAIT2)
		return OLD_SOCKET_THERE;
	/* An answer other than for the FIN, as from a server that does not read. */
	if (tcp && tcp->heard_ms > s->quiet_ms) {
		s->quiet_ms = tcp->heard_ms;
		s->elsewhere_ms = 0;
	}
	if (!s->elsewhere_ms) {
		if (elsewhere_ms <= s->quiet_ms)
			return OLD_SOCKET_SILENT;
		s->elsewhere_ms = s->asked_ms = now_ms;
		s->asked = s->first_asked = asked;
	}
	if (asked != s->asked) {
		s->asked = asked;
		s->asked_ms = now_ms;
	}
	/*
	 * The kernel asks at growing intervals: only what it has asked since the server
	 * answers elsewhere counts, and the server must have answered there after that.
	 */
	if (now_ms - s->elsewhere_ms < OLD_SOCKET_LINGER_MS || elsewhere_ms <= s->asked_ms)
		return OLD_SOCKET_SILENT;
	if (tcp && asked - s->first_asked < OLD_SOCKET_ASKS)
		return OLD_SOCKET_SILENT;
	return OLD_SOCKET_UNREACHABLE;
}

/*
 * With the kernel's TLS, reading fails at a record that is no data, as at the end of TLS, unless
 * there is room for its type. On a Unix socket that room could bring descriptors.
 */
static ssize_t receive(int fd, bool is_tcp, void *to, size_t size)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(unsigned char))];
	} control;
	struct iovec piece = { to, size };
	struct msghdr m = { .msg_iov = &piece,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	return is_tcp ? recvmsg(fd, &m, MSG_DONTWAIT) : recv(fd, to, size, MSG_DONTWAIT);
}

/*
 * Drops what has come.  Returns 0 at the stream's end, or -errno: EAGAIN where it goes on.
 * A server that sends without end must not keep the thread for itself.
 */
static int drain(int fd, bool is_tcp)
{
	char scratch[4096];
	ssize_t n = 1;

	for (unsigned i = 0; i < READS_A_CHECK && (n > 0 || (n < 0 && errno == EINTR)); i++)
		n = receive(fd, is_tcp, scratch, sizeof(scratch));
	return n > 0 ? -EAGAIN : n < 0 ? -errno : 0;
}

enum old_socket_state old_socket_check(struct old_socket *s, uint64_t elsewhere_ms, uint64_t now_ms)
{
	struct old_socket_tcp tcp;
	bool is_tcp = old_socket_ask_tcp(s->fd, now_ms, &tcp);
	int ret = drain(s->fd, is_tcp);

	switch (ret) {
	case -EAGAIN:
		if (s->deaf)
			break;
		return is_tcp ? old_socket_judge(s, &tcp, elsewhere_ms, now_ms) : OLD_SOCKET_THERE;
	case -ECONNRESET:
		return OLD_SOCKET_RESET;
	case 0:
		/*
		 * An error that somebody else has read (libnbd) looks like the stream's end.
		 * After a kernel's own giving up its last questions are still open.
		 */
		if (!s->deaf && !(is_tcp && tcp.state == TCP_CLOSE && tcp.unanswered))
			return OLD_SOCKET_ENDED;
		break;
	}
	s->deaf = true;
	/* What the kernel's TLS cannot decrypt ends reading, and not the connection. */
	return old_socket_judge(s, is_tcp && tcp.state != TCP_CLOSE ? &tcp : NULL, elsewhere_ms,
				now_ms);
}

const char *old_socket_state_text(enum old_socket_state state)
{
	switch (state) {
	case OLD_SOCKET_THERE:
		return "the server has not closed the old connection";
	case OLD_SOCKET_SILENT:
		return "the server's host does not answer on the old connection";
	case OLD_SOCKET_ENDED:
		return "the server has closed the old connection";
	case OLD_SOCKET_RESET:
		return "the server's host no longer knows the old connection";
	case OLD_SOCKET_UNREACHABLE:
		return "the server answers, but not on the old connection";
	}
	return "?";
}
