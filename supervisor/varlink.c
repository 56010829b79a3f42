/* SPDX-License-Identifier: MIT */
/*
 * A connection has one call at a time.  What it sends meanwhile waits in its
 * buffer, and when that is full in the socket; what it does not read makes its next
 * call wait, and ends a stream.  Each turn of the loop takes one request of each
 * connection, so that none waits behind another's many.
 */
#include "supervisor/varlink.h"
#include "engine/error.h"
#include "engine/log.h"
#include "supervisor/interfaces.h"
#include "supervisor/varlink_idl.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
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
#define FIRST_ROOM        4096u
#define BACKLOG           128
#define WHERE_BYTES       256
#define SERVICE           "org.varlink.service"

/* An interface, read; all of a server's, each once. */
struct served {
	struct served *next;
	const struct varlink_interface *interface;
	struct varlink_idl *idl;
};

/* What is served on one socket, org.varlink.service first. */
struct offer {
	struct offer *next;
	unsigned nr;
	const struct served *served[];
};

struct listener {
	struct listener *next;
	struct varlink *server;
	const struct offer *offer;
	uv_pipe_t pipe;
};

struct varlink {
	uv_loop_t *loop;
	struct varlink_setup setup;
	struct served *served;
	struct offer *offers;
	struct listener *listeners;
	struct connection *connections;
	unsigned nr_connections;
	unsigned nr_closing; /* handles and connections that the loop has not let go of */
	bool stopping, closing;
	bool full;       /* somebody was turned away, which was told */
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
	size_t looked;           /* no NUL from begin up to here */

	struct varlink_call *call;
	uint64_t used_ms; /* when something last came or went */
	bool reading;
	bool eof;       /* no request will follow */
	bool gone;      /* nobody reads what is sent */
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

struct message {
	uv_write_t write;
	struct connection *connection;
	char *text;
};

static void go_on(struct connection *c);

/* ---- the end of connections and of the server ---- */

static void release_connection(struct connection *c)
{
	if (--c->refs)
		return;
	free(c->groups);
	free(c->in);
	free(c);
}

static void release_server(struct varlink *server)
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

static void cancel_call(struct connection *c)
{
	struct varlink_call *call = c->call;
	void (*cancel)(struct varlink_call *, void *);

	if (!call || !call->cancel)
		return;
	cancel = call->cancel;
	call->cancel = NULL;
	cancel(call, call->cancel_context);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data;

	if (!--c->nr_handles) {
		cancel_call(c);
		release_server(c->server);
	}
	release_connection(c);
}

static void close_connection(struct connection *c)
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

static size_t unsent(const struct connection *c)
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
		close_connection(c);
	else
		go_on(c);
}

/* Releases object. */
static void send_object(struct connection *c, json_t *object)
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
	close_connection(c);
}

/* Text of a peer's, as JSON. */
static json_t *string_of(const char *text, size_t length)
{
	json_t *string = json_stringn(text, length);
	char printable[WHERE_BYTES];

	if (string)
		return string;
	/* It is where a place was cut, within a character. */
	snprintf(printable, sizeof(printable), "%.*s", (int)length, text);
	text_make_printable(printable);
	return json_string(printable);
}

/* ---- calls ---- */

static void end_call(struct varlink_call *call)
{
	struct connection *c = call->connection;

	c->call = NULL;
	json_decref(call->request);
	free(call);
	if (!c->closing)
		go_on(c);
	release_connection(c);
}

static bool is_heard(const struct varlink_call *call)
{
	return !call->oneway && !call->connection->gone;
}

static const struct served *find_served(const struct offer *offer, const char *name, size_t length)
{
	for (unsigned i = 0; i < offer->nr; i++) {
		const char *found = varlink_idl_name(offer->served[i]->idl);

		if (strlen(found) == length && !memcmp(found, name, length))
			return offer->served[i];
	}
	return NULL;
}

/* The type of an error, by its full name; NULL: there is no such error. */
static const struct varlink_type *type_of_error(const struct varlink_call *call, const char *name)
{
	const char *dot = strrchr(name, '.');
	const struct served *served =
		find_served(call->connection->offer, name, (size_t)(dot - name));

	return served ? varlink_idl_error(served->idl, dot + 1) : NULL;
}

/* Where tests want it: an answer that the description does not have is told instead. */
static bool is_allowed(const struct varlink_call *call, const struct varlink_type *type,
		       json_t *parameters, const char *what)
{
	char where[WHERE_BYTES] = "";

	if (!call->connection->server->setup.check_replies)
		return true;
	if (type && !varlink_idl_check(type, parameters, where, sizeof(where)))
		return true;
	log_error(NULL, "%s: its description does not allow this %s: '%s'",
		  call->method ? call->method->name : "a call", what, where);
	send_object(call->connection,
		    json_pack("{s:s, s:{s:o}}", "error", SERVICE ".InvalidReply", "parameters",
			      "parameter", string_of(where, strlen(where))));
	return false;
}

static void send_reply(struct varlink_call *call, json_t *parameters, bool continues)
{
	struct connection *c = call->connection;

	if (!parameters)
		parameters = json_object();
	if (!is_heard(call) || !is_allowed(call, call->method->out, parameters, "reply"))
		json_decref(parameters);
	else if (continues)
		send_object(c, json_pack("{s:o, s:b}", "parameters", parameters, "continues", 1));
	else
		send_object(c, json_pack("{s:o}", "parameters", parameters));
}

void varlink_reply(struct varlink_call *call, json_t *parameters)
{
	send_reply(call, parameters, false);
	end_call(call);
}

int varlink_reply_more(struct varlink_call *call, json_t *parameters)
{
	struct connection *c = call->connection;

	assert(call->more);
	if (is_heard(call) && unsent(c) > c->server->setup.limits.unsent_bytes) {
		log_debug(NULL, "process %d does not read what it asked for", (int)c->peer.pid);
		close_connection(c);
	}
	send_reply(call, parameters, true);
	return c->gone ? -EPIPE : 0;
}

static void send_error(struct varlink_call *call, const char *name, json_t *parameters)
{
	json_t *full = strchr(name, '.')
			       ? json_string(name)
			       : json_sprintf("%s.%s", varlink_idl_name(call->served->idl), name);

	if (!full)
		close_connection(call->connection);
	if (full &&
	    is_allowed(call, type_of_error(call, json_string_value(full)), parameters, "error")) {
		send_object(call->connection,
			    json_pack("{s:o, s:o}", "error", full, "parameters", parameters));
		return;
	}
	json_decref(full);
	json_decref(parameters);
}

void varlink_error(struct varlink_call *call, const char *name, json_t *parameters)
{
	if (!parameters)
		parameters = json_object();
	/* The interfaces may be gone where nobody hears of it. */
	if (is_heard(call))
		send_error(call, name, parameters);
	else
		json_decref(parameters);
	end_call(call);
}

static void fail_with(struct varlink_call *call, const char *name, const char *field,
		      const char *text, size_t length)
{
	varlink_error(call, name, json_pack("{s:o}", field, string_of(text, length)));
}

void varlink_invalid(struct varlink_call *call, const char *parameter)
{
	fail_with(call, SERVICE ".InvalidParameter", "parameter", parameter, strlen(parameter));
}

int varlink_on_cancel(struct varlink_call *call,
		      void (*cancel)(struct varlink_call *call, void *context), void *context)
{
	if (varlink_is_gone(call))
		return -EPIPE;
	call->cancel = cancel;
	call->cancel_context = context;
	return 0;
}

bool varlink_is_gone(const struct varlink_call *call)
{
	return call->connection->gone;
}

const struct varlink_peer *varlink_peer(const struct varlink_call *call)
{
	return &call->connection->peer;
}

bool varlink_peer_in_group(const struct varlink_peer *peer, gid_t group)
{
	for (unsigned i = 0; i < peer->nr_groups; i++)
		if (peer->groups[i] == group)
			return true;
	return peer->gid == group;
}

/* ---- org.varlink.service ---- */

static void get_info(struct varlink_call *call, json_t *parameters, void *context)
{
	const struct varlink_setup *setup = &call->connection->server->setup;
	const struct offer *offer = call->connection->offer;
	json_t *names = json_array();

	(void)parameters;
	(void)context;
	for (unsigned i = 0; i < offer->nr; i++)
		json_array_append_new(names, json_string(varlink_idl_name(offer->served[i]->idl)));
	varlink_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", setup->vendor,
				      "product", setup->product, "version", setup->version, "url",
				      setup->url, "interfaces", names));
}

static void get_description(struct varlink_call *call, json_t *parameters, void *context)
{
	const json_t *name = json_object_get(parameters, "interface");
	const char *text = json_string_value(name);
	size_t length = json_string_length(name);
	const struct served *served = find_served(call->connection->offer, text, length);

	(void)context;
	if (served)
		varlink_reply(call,
			      json_pack("{s:s}", "description", varlink_idl_text(served->idl)));
	else
		fail_with(call, SERVICE ".InterfaceNotFound", "interface", text, length);
}

static const struct varlink_method service_methods[] = {
	{ "GetInfo", false, false, get_info },
	{ "GetInterfaceDescription", false, false, get_description },
	{ .name = NULL },
};
static const struct varlink_interface service = {
	.description = interface_org_varlink_service,
	.methods = service_methods,
};

/* ---- requests ---- */

static const struct varlink_method *find_method(const struct varlink_interface *interface,
						const char *name)
{
	for (const struct varlink_method *m = interface->methods; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

/* Whether the request's member of that name is true; one that is no bool is *wrong. */
static bool is_set(const json_t *request, const char *name, const char **wrong)
{
	const json_t *value = json_object_get(request, name);

	if (value && !json_is_boolean(value) && !json_is_null(value))
		*wrong = name;
	return json_is_true(value);
}

static void run_method(struct varlink_call *call, json_t *parameters)
{
	const struct varlink_setup *setup = &call->connection->server->setup;
	const struct varlink_interface *interface = call->served->interface;
	const struct varlink_method *method = find_method(interface, call->method->name);
	const char *full = json_string_value(json_object_get(call->request, "method"));
	char where[WHERE_BYTES];

	if (!method)
		fail_with(call, SERVICE ".MethodNotImplemented", "method", full, strlen(full));
	else if (!setup->may(&call->connection->peer, method->changes, setup->context))
		interface->refuse ? interface->refuse(call, interface->context)
				  : varlink_error(call, SERVICE ".PermissionDenied", NULL);
	else if (varlink_idl_check(call->method->in, parameters, where, sizeof(where)))
		varlink_invalid(call, *where ? where : "parameters");
	else if (method->streams && !call->more)
		varlink_error(call, SERVICE ".ExpectedMore", NULL);
	else
		method->run(call, parameters, interface->context);
}

static void run_call(struct varlink_call *call)
{
	const json_t *method = json_object_get(call->request, "method");
	json_t *parameters = json_object_get(call->request, "parameters");
	const char *name = json_string_value(method), *dot = name ? strrchr(name, '.') : NULL;
	const char *wrong = NULL;

	call->oneway = is_set(call->request, "oneway", &wrong);
	call->more = is_set(call->request, "more", &wrong);
	if (is_set(call->request, "upgrade", &wrong))
		wrong = "upgrade";
	if (!parameters || json_is_null(parameters)) {
		parameters = json_object();
		if (!parameters || json_object_set_new(call->request, "parameters", parameters))
			wrong = "parameters";
	} else if (!json_is_object(parameters)) {
		wrong = "parameters";
	}
	if (!dot)
		wrong = "method";
	/* Without an answer there are not several. */
	if (call->oneway && call->more)
		wrong = "more";
	if (wrong) {
		varlink_invalid(call, wrong);
		return;
	}
	call->served = find_served(call->connection->offer, name, (size_t)(dot - name));
	if (call->served)
		call->method = varlink_idl_method(call->served->idl, dot + 1);
	if (!call->served)
		fail_with(call, SERVICE ".InterfaceNotFound", "interface", name,
			  (size_t)(dot - name));
	else if (!call->method)
		fail_with(call, SERVICE ".MethodNotFound", "method", name, strlen(name));
	else
		run_method(call, parameters);
}

/* Says why, as far as it is read, and closes. */
static void turn_away(struct connection *c, const char *why)
{
	json_t *text = string_of(why, strlen(why));

	log_debug(NULL, "process %d: %s", (int)c->peer.pid, why);
	c->finishing = true;
	c->begin = c->end = c->looked = 0;
	send_object(c, json_pack("{s:s, s:{s:o}}", "error", SERVICE ".InvalidParameter",
				 "parameters", "parameter", text));
}

static void take_request(struct connection *c, const char *text, size_t length)
{
	json_error_t error;
	json_t *request = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	struct varlink_call *call;
	char why[WHERE_BYTES];

	if (!json_is_object(request)) {
		if (request)
			snprintf(why, sizeof(why), "request: it is no JSON object");
		else
			snprintf(why, sizeof(why), "request: at byte %d: %s", error.position,
				 error.text);
		json_decref(request);
		turn_away(c, why);
		return;
	}
	/* Who is gone may still have asked for what it wanted no answer to. */
	if (c->gone && !json_is_true(json_object_get(request, "oneway"))) {
		json_decref(request);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		json_decref(request);
		close_connection(c);
		return;
	}
	call->connection = c;
	call->request = request;
	c->call = call;
	c->refs++;
	run_call(call);
}

/* ---- receiving ---- */

/* The end of the first request, or NULL. */
static char *find_end(struct connection *c)
{
	char *found = c->looked < c->end ? memchr(c->in + c->looked, 0, c->end - c->looked) : NULL;

	c->looked = found ? (size_t)(found - c->in) : c->end;
	return found;
}

static void on_turn(uv_idle_t *idle)
{
	struct connection *c = idle->data;
	size_t begin = c->begin;
	char *end = find_end(c);

	c->used_ms = uv_now(c->server->loop);
	c->begin = c->looked = (size_t)(end - c->in) + 1;
	take_request(c, c->in + begin, (size_t)(end - c->in) - begin);
	if (!c->closing)
		go_on(c);
}

static void on_late(uv_timer_t *timer)
{
	struct connection *c = timer->data;

	log_debug(NULL, "process %d did not end its request in time", (int)c->peer.pid);
	close_connection(c);
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
		c->looked -= c->begin;
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

/* The peer sends no more; whether it still reads, its side of the socket tells. */
static void on_eof(struct connection *c)
{
	struct pollfd fd = { .events = POLLOUT };

	c->eof = true;
	uv_timer_stop(&c->timer);
	if (uv_fileno((uv_handle_t *)&c->pipe, &fd.fd) || poll(&fd, 1, 0) < 0 ||
	    fd.revents & (POLLHUP | POLLERR)) {
		c->gone = true;
		cancel_call(c);
	}
	if (!c->closing)
		go_on(c);
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
		close_connection(c);
	if (got <= 0)
		return;
	if (memchr(c->in + c->end, 0, (size_t)got))
		begins = true;
	c->end += (size_t)got;
	if (!c->in[c->end - 1])
		uv_timer_stop(&c->timer);
	else if (begins)
		uv_timer_start(&c->timer, on_late, c->server->setup.limits.frame_ms, 0);
	go_on(c);
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
		close_connection(c);
	else if (c->begin < c->end && c->in[c->end - 1])
		uv_timer_start(&c->timer, on_late, c->server->setup.limits.frame_ms, 0);
}

static void drop_input(struct connection *c)
{
	free(c->in);
	c->in = NULL;
	c->room = c->begin = c->end = c->looked = 0;
}

/* Looks what comes next: a request to take, more to read, or the end. */
static void go_on(struct connection *c)
{
	size_t most = c->server->setup.limits.frame_bytes + 1;
	bool waits = c->call || unsent(c), has_request;

	if (c->begin == c->end)
		drop_input(c);
	has_request = find_end(c);
	if (!c->finishing && !has_request && c->end - c->begin == most) {
		turn_away(c, "request: it is too long");
		if (c->closing)
			return;
		waits = c->call || unsent(c);
		has_request = false;
		drop_input(c);
	}
	/* A call of who is gone goes on without the connection. */
	if ((c->gone && !has_request) ||
	    (!waits && (c->finishing || c->server->stopping || (c->eof && !has_request)))) {
		close_connection(c);
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

/* ---- new connections ---- */

static bool is_privileged(uid_t uid)
{
	return !uid || uid == geteuid();
}

/* Who has had nothing to do for longest, of one user's, or of all; NULL: all are at work. */
static struct connection *find_idle(const struct varlink *server, const uid_t *uid)
{
	struct connection *found = NULL;

	for (struct connection *c = server->connections; c; c = c->next)
		if ((!c->call || c->gone) && (!uid || c->peer.uid == *uid) &&
		    (!found || c->used_ms < found->used_ms))
			found = c;
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
static bool make_room(struct varlink *server, uid_t uid)
{
	const struct varlink_limits *limits = &server->setup.limits;
	unsigned reserved = limits->connections / 2 < RESERVED ? limits->connections / 2 : RESERVED;
	bool privileged = is_privileged(uid);
	struct connection *idle;

	if (!privileged && count_of(server, uid) >= limits->connections_a_uid) {
		idle = find_idle(server, &uid);
	} else if (server->nr_connections >= limits->connections - (privileged ? 0 : reserved)) {
		idle = find_idle(server, NULL);
	} else {
		server->full = false;
		return true;
	}
	if (idle)
		close_connection(idle);
	else if (!server->full)
		log_warning(NULL,
			    "user %u is turned away: all connections that it may have are in use",
			    (unsigned)uid);
	server->full = true;
	return idle;
}

static int learn_peer(struct connection *c)
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

static struct connection *new_connection(struct varlink *server, const struct offer *offer)
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

/* The connection has its socket: whether it is taken on. */
static int begin_connection(struct connection *c)
{
	struct varlink *server = c->server;
	int ret = learn_peer(c);

	if (!ret && (server->stopping || !make_room(server, c->peer.uid)))
		ret = -EUSERS;
	if (ret) {
		close_connection(c);
		return ret;
	}
	c->next = server->connections;
	c->link = &server->connections;
	if (c->next)
		c->next->link = &c->next;
	server->connections = c;
	server->nr_connections++;
	set_reading(c, true);
	return 0;
}

static void on_retry(uv_timer_t *timer);

static void accept_one(struct listener *l)
{
	struct connection *c = new_connection(l->server, l->offer);

	/* libuv looks for no other one before this is accepted. */
	if (!c)
		uv_timer_start(&l->server->self, on_retry, RETRY_MS, 0);
	else if (uv_accept((uv_stream_t *)&l->pipe, (uv_stream_t *)&c->pipe))
		close_connection(c);
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
			return error_set(err, EINVAL, "%s: it has no method %s",
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
		o->served[i] = serve_interface(server, i ? interfaces[i - 1] : &service, err);
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
		ret = error_set(err, EINVAL,
				"the control socket is no Unix stream socket: a unit wants "
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
	release_server(server);
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
	struct connection *c = offer ? new_connection(server, offer) : NULL;
	int ret;

	if (!c) {
		close(fd);
		return offer ? error_set(err, ENOMEM, "no memory for a connection") : -err->code;
	}
	ret = open_pipe(&c->pipe, fd, err);
	if (ret) {
		close_connection(c);
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
		go_on(c);
	}
}

static void on_self_closed(uv_handle_t *handle)
{
	release_server(handle->data);
}

void varlink_close(struct varlink *server, void (*closed)(void *context), void *context)
{
	server->closed = closed;
	server->closed_context = context;
	varlink_stop(server);
	while (server->connections)
		close_connection(server->connections);
	uv_close((uv_handle_t *)&server->self, on_self_closed);
}
