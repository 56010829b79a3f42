/* SPDX-License-Identifier: MIT */
/*
 * A connection: requests are taken from its input, one call at a time, and answers go out in
 * order.
 *
 * Everything is bounded. What is sent meanwhile waits in the connection's buffer, and when that
 * is full in the socket; what the peer does not read makes its next call wait, and ends a stream.
 * A request that is too long, or does not come to its end in time, closes the connection. Each
 * turn of the loop takes one request of each connection, so that none waits behind another's
 * many.
 *
 * A peer that has shut its side for writing may still read its answers; one that has gone is
 * known by the socket's error.
 */
#include "common/error.h"
#include "common/log.h"
#include "varlink/parts.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST_ROOM 4096u

struct message {
	uv_write_t write;
	struct connection *connection;
	char *text;
};

/* ---- its beginning and its end ---- */

struct connection *connection_create(struct varlink *server, const struct offer *offer)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->server = server;
	c->offer = offer;
	c->refs = c->nr_handles = 3;
	c->used_ms = uv_now(server->loop);
	uv_pipe_init(server->loop, &c->pipe, 0);
	uv_timer_init(server->loop, &c->timer);
	uv_idle_init(server->loop, &c->turn);
	c->pipe.data = c->timer.data = c->turn.data = c;
	server->nr_closing++;
	return c;
}

int connection_learn_peer(struct connection *c)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size))
		return -errno;
	c->peer.uid = cred.uid;
	c->peer.gid = cred.gid;
	c->peer.pid = cred.pid;
	size = 0;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) || errno != ERANGE || !size)
		return 0;
	c->groups = malloc(size);
	if (!c->groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &size))
		return -ENOMEM;
	c->peer.groups = c->groups;
	c->peer.nr_groups = size / sizeof(*c->groups);
	return 0;
}

void connection_release(struct connection *c)
{
	if (--c->refs)
		return;
	free(c->groups);
	free(c->in);
	free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data;

	if (!--c->nr_handles) {
		call_cancel(c);
		varlink_release(c->server);
	}
	connection_release(c);
}

void connection_close(struct connection *c)
{
	if (c->closing)
		return;
	c->closing = c->gone = true;
	if (c->link) {
		*c->link = c->next;
		if (c->next)
			c->next->link = c->link;
		c->server->nr_connections--;
	}
	uv_close((uv_handle_t *)&c->pipe, on_handle_closed);
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
	uv_close((uv_handle_t *)&c->turn, on_handle_closed);
}

/* ---- sending ---- */

size_t connection_unsent(const struct connection *c)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&c->pipe);
}

static void on_written(uv_write_t *write, int status)
{
	struct message *m = (struct message *)write;
	struct connection *c = m->connection;

	free(m->text);
	free(m);
	if (c->closing)
		return;
	c->used_ms = uv_now(c->server->loop);
	if (status < 0)
		connection_close(c);
	else
		connection_go_on(c);
}

void connection_send(struct connection *c, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	struct message *m = calloc(1, sizeof(*m));
	uv_buf_t buffer;

	json_decref(object);
	if (text && m) {
		m->connection = c;
		m->text = text;
		buffer = uv_buf_init(text, (unsigned)strlen(text) + 1);
		if (!uv_write(&m->write, (uv_stream_t *)&c->pipe, &buffer, 1, on_written))
			return;
	}
	/* A reply that is left out would make all that follow another's. */
	free(text);
	free(m);
	connection_close(c);
}

/* ---- receiving ---- */

/* The end of the first request, or NULL. */
static char *find_end(struct connection *c)
{
	char *found =
		c->searched < c->end ? memchr(c->in + c->searched, 0, c->end - c->searched) : NULL;

	c->searched = found ? (size_t)(found - c->in) : c->end;
	return found;
}

static void on_turn(uv_idle_t *idle)
{
	struct connection *c = idle->data;
	size_t begin = c->begin;
	char *end = find_end(c);

	c->used_ms = uv_now(c->server->loop);
	c->begin = c->searched = (size_t)(end - c->in) + 1;
	call_begin(c, c->in + begin, (size_t)(end - c->in) - begin);
	if (!c->closing)
		connection_go_on(c);
}

static void on_late(uv_timer_t *timer)
{
	struct connection *c = timer->data;

	log_debug(NULL, "process %d did not complete its request in time", (int)c->peer.pid);
	connection_close(c);
}

static void on_room_wanted(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct connection *c = handle->data;
	size_t most = c->server->setup.limits.frame_bytes + 1, room = c->room;
	char *more;

	(void)suggested;
	if (c->begin && c->end == c->room) {
		memmove(c->in, c->in + c->begin, c->end - c->begin);
		c->end -= c->begin;
		c->searched -= c->begin;
		c->begin = 0;
	}
	if (c->end == c->room) {
		room = room ? room * 2 : FIRST_ROOM;
		room = room < most ? room : most;
		more = realloc(c->in, room);
		if (more) {
			c->in = more;
			c->room = room;
		}
	}
	/* Nothing: libuv reports ENOBUFS. */
	*buffer = uv_buf_init(c->in ? c->in + c->end : NULL, (unsigned)(c->room - c->end));
}

/* The peer sends no more. It may still read: POLLHUP says that it closed the socket. */
static void on_eof(struct connection *c)
{
	struct pollfd fd = { .events = POLLOUT };

	c->eof = true;
	uv_timer_stop(&c->timer);
	if (uv_fileno((uv_handle_t *)&c->pipe, &fd.fd) || poll(&fd, 1, 0) < 0 ||
	    fd.revents & (POLLHUP | POLLERR)) {
		c->gone = true;
		call_cancel(c);
	}
	if (!c->closing)
		connection_go_on(c);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
	struct connection *c = stream->data;
	bool begins = c->begin == c->end;

	(void)buffer;
	if (got == UV_EOF || got == UV_ECONNRESET) {
		uv_read_stop(stream);
		c->reading = false;
		on_eof(c);
		return;
	}
	if (got < 0)
		connection_close(c);
	if (got <= 0)
		return;
	if (memchr(c->in + c->end, 0, (size_t)got))
		begins = true;
	c->end += (size_t)got;
	if (!c->in[c->end - 1])
		uv_timer_stop(&c->timer);
	else if (begins)
		uv_timer_start(&c->timer, on_late, c->server->setup.limits.frame_ms, 0);
	connection_go_on(c);
}

static void set_reading(struct connection *c, bool on)
{
	if (on == c->reading)
		return;
	c->reading = on;
	if (!on) {
		uv_read_stop((uv_stream_t *)&c->pipe);
		uv_timer_stop(&c->timer); /* it waits for us */
		return;
	}
	if (uv_read_start((uv_stream_t *)&c->pipe, on_room_wanted, on_read))
		connection_close(c);
	else if (c->begin < c->end && c->in[c->end - 1])
		uv_timer_start(&c->timer, on_late, c->server->setup.limits.frame_ms, 0);
}

static void drop_input(struct connection *c)
{
	free(c->in);
	c->in = NULL;
	c->room = c->begin = c->end = c->searched = 0;
}

void connection_go_on(struct connection *c)
{
	size_t most = c->server->setup.limits.frame_bytes + 1;
	bool waits = c->call || connection_unsent(c), has_request;

	if (c->begin == c->end)
		drop_input(c);
	has_request = find_end(c);
	if (!c->finishing && !has_request && c->end - c->begin == most) {
		call_turn_away(c, "request: it is too long");
		if (c->closing)
			return;
		waits = c->call || connection_unsent(c);
		has_request = false;
		drop_input(c);
	}
	/* A call of who is gone goes on without the connection. */
	if ((c->gone && !has_request) ||
	    (!waits && (c->finishing || c->server->stopping || (c->eof && !has_request)))) {
		connection_close(c);
		return;
	}
	if (c->finishing) {
		set_reading(c, false);
		if (!uv_is_active((uv_handle_t *)&c->timer))
			uv_timer_start(&c->timer, on_late, c->server->setup.limits.frame_ms, 0);
	} else if (!c->eof) {
		/* Not for a few bytes each time, which would all be moved. */
		set_reading(c, !has_request || c->end - c->begin < (c->reading ? most : most / 2));
	}
	if (c->closing)
		return;
	if (has_request && !waits)
		uv_idle_start(&c->turn, on_turn);
	else
		uv_idle_stop(&c->turn);
}

void connection_read(struct connection *c)
{
	set_reading(c, true);
}
