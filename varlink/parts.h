/* SPDX-License-Identifier: MIT */
/*
 * Shared by the files of the Varlink server: varlink.c has the sockets and who is
 * let in, connection.c one connection's bytes, call.c a call from its
 * request to its last answer.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_VARLINK_PARTS_H
#define UBLKD_VARLINK_PARTS_H

#include "varlink/idl.h"
#include "varlink/varlink.h"

/* An interface, read; all of a server's, each once. */
struct served {
	struct served *next;
	const struct varlink_interface *interface;
	struct varlink_idl *idl;
};

/* The interfaces of a socket, org.varlink.service first. */
struct offer {
	struct offer *next;
	unsigned nr;
	const struct served *served[];
};

struct listener;

struct varlink {
	uv_loop_t *loop;
	struct varlink_setup setup;
	struct served *served;
	struct offer *offers;
	struct listener *listeners;
	struct connection *connections;
	unsigned nr_connections;
	unsigned nr_closing; /* handles and connections that the loop has not let go of */
	bool stopping;
	bool full;       /* a client was refused, and that was logged */
	uv_timer_t self; /* tries again what memory lacked for; and closing ends in the loop */
	void (*closed)(void *context);
	void *closed_context;
};

struct connection {
	struct connection *next, **link; /* in the server's list; NULL: not taken on yet */
	struct varlink *server;
	const struct offer *offer;
	struct varlink_peer peer;
	gid_t *groups;
	unsigned refs, nr_handles; /* refs: the handles' and the call's */
	uv_pipe_t pipe;
	uv_timer_t timer; /* a request that has begun must end */
	uv_idle_t turn;   /* runs while there is a request to take */

	char *in;
	size_t room, begin, end; /* requests are in[begin] to in[end - 1] */
	size_t searched;         /* no NUL from begin up to here */

	struct varlink_call *call;
	uint64_t used_ms; /* when it last received or sent data */
	bool reading;
	bool eof;       /* no request will follow */
	bool gone;      /* the peer no longer reads */
	bool finishing; /* to be closed when all is sent */
	bool closing;
};

struct varlink_call {
	struct connection *connection;
	const struct served *served; /* NULL: of no interface that is here */
	const struct varlink_idl_method *method;
	json_t *request;
	bool more, oneway;
	void (*cancel)(struct varlink_call *call, void *context);
	void *cancel_context;
};

/* ---- varlink.c ---- */

/* Releases a handle or a connection of the server; the last one frees it. */
void varlink_release(struct varlink *server);

/* ---- connection.c ---- */

/* A connection without a socket yet, which counts as the server's; NULL: no memory. */
struct connection *connection_create(struct varlink *server, const struct offer *offer);

/* Reads the peer's credentials from the socket.  Returns 0 or -errno. */
int connection_learn_peer(struct connection *c);

/* From now on requests are taken. */
void connection_read(struct connection *c);

/* Sends what is there, and a NUL byte; releases object.  It may close the connection. */
void connection_send(struct connection *c, json_t *object);

/* Bytes that wait to be read by the peer. */
size_t connection_unsent(const struct connection *c);

/* Continues after a call: takes the next request, reads more, or ends the connection. */
void connection_go_on(struct connection *c);

/* Closes it, at once; it is gone when the loop and its call have let go of it. */
void connection_close(struct connection *c);
void connection_release(struct connection *c);

/* ---- call.c ---- */

extern const struct varlink_interface varlink_service; /* org.varlink.service */

/* A request has come, on a connection that has no call. */
void call_begin(struct connection *c, const char *text, size_t length);

/* Notifies the connection's call, if there is one, that the peer is gone. */
void call_cancel(struct connection *c);

/* Sends the reason, if the peer still reads, and closes the connection. */
void call_turn_away(struct connection *c, const char *why);

#endif
