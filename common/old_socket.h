/* SPDX-License-Identifier: MIT */
/*
 * The socket of a connection that was given up with requests in flight: what it tells
 * about its server, which may still carry out those requests.
 *
 * Time alone proves nothing.  A server that reads the end of our stream finishes the
 * requests that it has, and then closes its side; until the end of its stream arrives,
 * each request may still be carried out.
 *
 *   a Unix or vsock socket   the server is there until the stream ends
 *   TCP in FIN_WAIT2         the server's host has acknowledged our FIN: it is there
 *   a reset                  the server's host does not know the connection any more
 *   TCP with the FIN         the host may be gone, or only a firewall's memory of the
 *   unacknowledged           connection: see OLD_SOCKET_UNREACHABLE
 *
 * The socket must not be closed before its end: a close with unread data sends a reset,
 * after which the server still carries out what it has, and nothing tells when.
 *
 * Thread: one at a time.
 */
#ifndef UBLKD_OLD_SOCKET_H
#define UBLKD_OLD_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

/* How long a socket stays without an answer, while the server answers on another one. */
#define OLD_SOCKET_LINGER_MS 5000u
/* How often the kernel has asked on the socket by then (retransmissions and probes). */
#define OLD_SOCKET_ASKS 2u

enum old_socket_state {
	OLD_SOCKET_THERE,  /* the server has not ended the connection */
	OLD_SOCKET_SILENT, /* the server's host has not answered on it: not known */
	/* From here on it is over. */
	OLD_SOCKET_ENDED, /* the server has ended the connection */
	OLD_SOCKET_RESET, /* the server's host does not know the connection */
	/* Silent, although it was asked while the server answered on another connection. */
	OLD_SOCKET_UNREACHABLE,
};

static inline bool old_socket_is_over(enum old_socket_state state)
{
	return state >= OLD_SOCKET_ENDED;
}

/* Times are CLOCK_MONOTONIC, in milliseconds.  Owner: the caller. */
struct old_socket {
	int fd;
	bool deaf;             /* reading has failed: the stream tells nothing more */
	uint64_t quiet_ms;     /* when it was shut, or the server's host last answered on it */
	uint64_t elsewhere_ms; /* since when the server answers elsewhere alone; 0: it does not */
	uint32_t asked, first_asked;
	uint64_t asked_ms; /* when asked was last seen to change */
};

/* The kernel's view of a TCP connection. */
struct old_socket_tcp {
	unsigned state;      /* TCP_FIN_WAIT2 … */
	uint32_t asked;      /* segments sent again, since the connection's start, and probes */
	uint32_t unanswered; /* those that nothing has been heard after */
	uint64_t heard_ms;   /* when the last acknowledgement came */
};

/*
 * fd, which is the socket's from now on, is shut for sending; a kernel that hears nothing
 * goes on asking.  It is not closed: that is the caller's, once it is over.
 */
void old_socket_shut(struct old_socket *s, int fd, uint64_t now_ms);

/*
 * What it tells now; drops what has come on it.  elsewhere_ms: when the server last
 * answered on another connection; 0: it has not.
 */
enum old_socket_state old_socket_check(struct old_socket *s, uint64_t elsewhere_ms,
				       uint64_t now_ms);

/* The same for TCP whose stream has not ended (pure).  tcp NULL: it is deaf. */
enum old_socket_state old_socket_judge(struct old_socket *s, const struct old_socket_tcp *tcp,
				       uint64_t elsewhere_ms, uint64_t now_ms);

/* Asks the kernel about a TCP socket.  Returns false where fd is none. */
bool old_socket_ask_tcp(int fd, uint64_t now_ms, struct old_socket_tcp *tcp);

/* "the server has ended the old connection" … */
const char *old_socket_state_text(enum old_socket_state state);

#endif
