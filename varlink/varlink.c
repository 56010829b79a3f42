/* SPDX-License-Identifier: MIT */
/*
 * The server: its listening sockets, the interfaces that it serves, and who is let in.
 *
 * The number of connections is bounded, of one user and in all, with some places kept for root.
 * At a bound the connection that has been idle for longest is closed for the new one; one with a
 * call at work, as a monitor has, is not idle, and root's are closed for root alone. Where none
 * is idle the new one is turned away. So a client that leaks connections harms itself.
 *
 * A peer's rights are those of its socket (SO_PEERCRED), read when the connection is taken on.
 *
 * varlink_listen() and varlink_serve() read the interface's description (idl.c) and check that
 * each method has code and the other way round, so a description that drifted is found at start.
 */
#include "varlink/varlink.h"
#include "common/error.h"
#include "common/log.h"
#include "varlink/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_BYTES       (1u << 20)
#define UNSENT_BYTES      (1u << 20)
#define CONNECTIONS       256u
#define CONNECTIONS_A_UID 64u
#define RESERVED          16u
#define FRAME_MS          10000u
#define RETRY_MS          1000u
#define BACKLOG           128

struct listener {
	struct listener *next;
	struct varlink *server;
	const struct offer *offer;
	uv_pipe_t pipe;
};

void varlink_release(struct varlink *server)
{
	void (*closed)(void *context) = server->closed;
	void *context = server->closed_context;

	if (--server->nr_closing)
		return;
	for (struct offer *o = server->offers, *next; o; o = next) {
		next = o->next;
		free(o);
	}
	for (struct served *s = server->served, *next; s; s = next) {
		next = s->next;
		varlink_idl_free(s->idl);
		free(s);
	}
	free(server);
	if (closed)
		closed(context);
}

/* ---- new connections ---- */

static bool is_privileged(uid_t uid)
{
	return !uid || uid == geteuid();
}

/*
 * The longest idle connection, among one user's, or among all that may be closed
 * to make room for this user: root's are closed for root alone, or a crowd would close a
 * client of root's before its request is read.  NULL: all are at work.
 */
static struct connection *find_idle(const struct varlink *server, uid_t uid, bool of_the_user)
{
	struct connection *found = NULL;

	/* The newest comes first. */
	for (struct connection *c = server->connections; c; c = c->next) {
		bool mine = c->peer.uid == uid;

		if (c->call && !c->gone)
			continue;
		if (of_the_user ? !mine : !is_privileged(uid) && is_privileged(c->peer.uid))
			continue;
		if (!found || c->used_ms <= found->used_ms)
			found = c;
	}
	return found;
}

static unsigned count_of(const struct varlink *server, uid_t uid)
{
	unsigned n = 0;

	for (const struct connection *c = server->connections; c; c = c->next)
		n += c->peer.uid == uid;
	return n;
}

/* Whether there is room for one more of this user, where need be by closing another's. */
static bool make_connection_room(struct varlink *server, uid_t uid)
{
	const struct varlink_limits *limits = &server->setup.limits;
	unsigned reserved = limits->connections / 2 < RESERVED ? limits->connections / 2 : RESERVED;
	bool privileged = is_privileged(uid);
	struct connection *idle;

	if (!privileged && count_of(server, uid) >= limits->connections_a_uid) {
		idle = find_idle(server, uid, true);
	} else if (server->nr_connections >= limits->connections - (privileged ? 0 : reserved)) {
		idle = find_idle(server, uid, false);
	} else {
		server->full = false;
		return true;
	}
	if (idle)
		connection_close(idle);
	else if (!server->full)
		log_warning(NULL, "refusing user %u: all of its connections are in use",
			    (unsigned)uid);
	server->full = true;
	return idle;
}

/* The connection has its socket: whether it is taken on. */
static int begin_connection(struct connection *c)
{
	struct varlink *server = c->server;
	int ret = connection_learn_peer(c);

	if (!ret && (server->stopping || !make_connection_room(server, c->peer.uid)))
		ret = -EUSERS;
	if (ret) {
		connection_close(c);
		return ret;
	}
	c->next = server->connections;
	c->link = &server->connections;
	if (c->next)
		c->next->link = &c->next;
	server->connections = c;
	server->nr_connections++;
	connection_read(c);
	return 0;
}

static void on_retry(uv_timer_t *timer);

static void accept_one(struct listener *l)
{
	struct connection *c = connection_create(l->server, l->offer);

	/* libuv looks for no other one before this is accepted. */
	if (!c)
		uv_timer_start(&l->server->self, on_retry, RETRY_MS, 0);
	else if (uv_accept((uv_stream_t *)&l->pipe, (uv_stream_t *)&c->pipe))
		connection_close(c);
	else
		begin_connection(c);
}

static void on_retry(uv_timer_t *timer)
{
	struct varlink *server = timer->data;

	for (struct listener *l = server->listeners; l; l = l->next)
		accept_one(l);
}

static void on_connection(uv_stream_t *stream, int status)
{
	if (status < 0)
		log_debug(NULL, "accept: %s", uv_strerror(status));
	else
		accept_one(stream->data);
}

/* ---- the server ---- */

static void fill_limits(struct varlink_limits *l)
{
	l->frame_bytes = l->frame_bytes ? l->frame_bytes : FRAME_BYTES;
	l->unsent_bytes = l->unsent_bytes ? l->unsent_bytes : UNSENT_BYTES;
	l->connections = l->connections ? l->connections : CONNECTIONS;
	l->connections_a_uid = l->connections_a_uid ? l->connections_a_uid : CONNECTIONS_A_UID;
	l->frame_ms = l->frame_ms ? l->frame_ms : FRAME_MS;
}

int varlink_create(struct varlink **server, uv_loop_t *loop, const struct varlink_setup *setup,
		   struct error *err)
{
	struct varlink *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, ENOMEM, "no memory for the control socket");
	s->loop = loop;
	s->setup = *setup;
	fill_limits(&s->setup.limits);
	uv_timer_init(loop, &s->self);
	s->self.data = s;
	s->nr_closing = 1;
	*server = s;
	return 0;
}

static int check_methods(const struct served *served, struct error *err)
{
	for (const struct varlink_method *m = served->interface->methods; m->name; m++)
		if (!varlink_idl_method(served->idl, m->name))
			return error_set(err, EINVAL, "%s has no method %s",
					 varlink_idl_name(served->idl), m->name);
	return 0;
}

/* The interface, read; NULL with err filled. */
static const struct served *serve_interface(struct varlink *server,
					    const struct varlink_interface *interface,
					    struct error *err)
{
	struct served *s;

	for (s = server->served; s; s = s->next)
		if (s->interface == interface)
			return s;
	s = calloc(1, sizeof(*s));
	if (!s) {
		error_set(err, ENOMEM, "no memory for an interface");
		return NULL;
	}
	s->interface = interface;
	if (varlink_idl_parse(interface->description, &s->idl, err) || check_methods(s, err)) {
		varlink_idl_free(s->idl);
		free(s);
		return NULL;
	}
	s->next = server->served;
	server->served = s;
	return s;
}

static bool is_offer_of(const struct offer *o, const struct varlink_interface *const *interfaces)
{
	for (unsigned i = 1; i < o->nr; i++)
		if (o->served[i]->interface != interfaces[i - 1])
			return false;
	return true;
}

static const struct offer *make_offer(struct varlink *server,
				      const struct varlink_interface *const *interfaces,
				      struct error *err)
{
	struct offer *o;
	unsigned nr = 1;

	while (interfaces[nr - 1])
		nr++;
	for (o = server->offers; o; o = o->next)
		if (o->nr == nr && is_offer_of(o, interfaces))
			return o;
	o = calloc(1, sizeof(*o) + nr * sizeof(*o->served));
	if (!o) {
		error_set(err, ENOMEM, "no memory for interfaces");
		return NULL;
	}
	o->nr = nr;
	for (unsigned i = 0; i < nr; i++) {
		o->served[i] =
			serve_interface(server, i ? interfaces[i - 1] : &varlink_service, err);
		if (!o->served[i]) {
			free(o);
			return NULL;
		}
	}
	o->next = server->offers;
	server->offers = o;
	return o;
}

/* Gives fd to the pipe, or closes it. */
static int open_pipe(uv_pipe_t *pipe, int fd, struct error *err)
{
	int type = 0, domain = 0, ret;
	socklen_t size = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size))
		ret = error_set(err, errno, "the control socket: %s", strerror(errno));
	else if (type != SOCK_STREAM || domain != AF_UNIX)
		ret = error_set(
			err, EINVAL,
			"the control socket is not a Unix stream socket: its unit must have "
			"ListenStream=/PATH");
	else
		ret = uv_pipe_open(pipe, fd);
	if (ret)
		close(fd);
	return ret;
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;
	struct varlink *server = l->server;

	free(l);
	varlink_release(server);
}

int varlink_listen(struct varlink *server, int fd,
		   const struct varlink_interface *const *interfaces, struct error *err)
{
	const struct offer *offer = make_offer(server, interfaces, err);
	struct listener *l = offer ? calloc(1, sizeof(*l)) : NULL;
	int ret;

	if (!l) {
		close(fd);
		return offer ? error_set(err, ENOMEM, "no memory for a socket") : -err->code;
	}
	l->server = server;
	l->offer = offer;
	uv_pipe_init(server->loop, &l->pipe, 0);
	l->pipe.data = l;
	server->nr_closing++;
	ret = open_pipe(&l->pipe, fd, err);
	if (!ret) {
		ret = uv_listen((uv_stream_t *)&l->pipe, BACKLOG, on_connection);
		if (ret)
			error_set(err, ret, "the control socket: listen: %s", uv_strerror(ret));
	}
	if (ret) {
		uv_close((uv_handle_t *)&l->pipe, on_listener_closed);
		return ret;
	}
	l->next = server->listeners;
	server->listeners = l;
	return 0;
}

int varlink_serve(struct varlink *server, int fd, const struct varlink_interface *const *interfaces,
		  struct error *err)
{
	const struct offer *offer = make_offer(server, interfaces, err);
	struct connection *c = offer ? connection_create(server, offer) : NULL;
	int ret;

	if (!c) {
		close(fd);
		return offer ? error_set(err, ENOMEM, "no memory for a connection") : -err->code;
	}
	ret = open_pipe(&c->pipe, fd, err);
	if (ret) {
		connection_close(c);
		return ret;
	}
	/* An error closes it. */
	ret = begin_connection(c);
	return ret ? error_set(err, ret, "a connection: %s", strerror(-ret)) : 0;
}

void varlink_stop(struct varlink *server)
{
	server->stopping = true;
	for (struct listener *l = server->listeners, *next; l; l = next) {
		next = l->next;
		uv_close((uv_handle_t *)&l->pipe, on_listener_closed);
	}
	server->listeners = NULL;
	for (struct connection *c = server->connections, *next; c; c = next) {
		next = c->next;
		connection_go_on(c);
	}
}

static void on_self_closed(uv_handle_t *handle)
{
	varlink_release(handle->data);
}

void varlink_close(struct varlink *server, void (*closed)(void *context), void *context)
{
	server->closed = closed;
	server->closed_context = context;
	varlink_stop(server);
	while (server->connections)
		connection_close(server->connections);
	uv_close((uv_handle_t *)&server->self, on_self_closed);
}
