/* SPDX-License-Identifier: MIT */
/*
 * A call: its request is checked against the description, its method runs, its answers are
 * checked and sent. org.varlink.service, which every server has, is answered here as well.
 *
 * A call ends with exactly one last answer; until then it belongs to its method, which may answer
 * much later, from a fiber. If the peer is gone by then, answers are dropped; a method that runs
 * long can ask (varlink_is_gone()) or be notified (varlink_on_cancel()).
 *
 * Permission is checked before the parameters, so that a peer without rights learns nothing from
 * errors.
 */
#include "common/error.h"
#include "common/log.h"
#include "varlink/parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE     "org.varlink.service"
#define WHERE_BYTES 256

/* ---- answers ---- */

/* Text of a peer's, as JSON. */
static json_t *string_of(const char *text, size_t length)
{
	json_t *string = json_stringn(text, length);
	char printable[WHERE_BYTES];

	if (string)
		return string;
	/* The text was cut within a character. */
	snprintf(printable, sizeof(printable), "%.*s", (int)length, text);
	text_make_printable(printable);
	return json_string(printable);
}

static void end_call(struct varlink_call *call)
{
	struct connection *c = call->connection;

	c->call = NULL;
	json_decref(call->request);
	free(call);
	if (!c->closing)
		connection_go_on(c);
	connection_release(c);
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

/* For tests (check_replies): an answer that the description does not allow becomes an error. */
static bool is_allowed(const struct varlink_call *call, const struct varlink_type *type,
		       json_t *parameters, const char *what)
{
	char where[WHERE_BYTES] = "";

	if (!call->connection->server->setup.check_replies)
		return true;
	if (type && !varlink_idl_check(type, parameters, where, sizeof(where)))
		return true;
	log_error(NULL, "%s: the description does not allow this %s: '%s'",
		  call->method ? call->method->name : "a call", what, where);
	connection_send(call->connection,
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
		connection_send(c,
				json_pack("{s:o, s:b}", "parameters", parameters, "continues", 1));
	else
		connection_send(c, json_pack("{s:o}", "parameters", parameters));
}

void varlink_reply(struct varlink_call *call, json_t *parameters)
{
	send_reply(call, parameters, false);
	end_call(call);
}

bool varlink_wants_more(const struct varlink_call *call)
{
	return call->more;
}

int varlink_reply_more(struct varlink_call *call, json_t *parameters)
{
	struct connection *c = call->connection;

	assert(call->more);
	if (is_heard(call) && connection_unsent(c) > c->server->setup.limits.unsent_bytes) {
		log_debug(NULL, "process %d does not read its replies", (int)c->peer.pid);
		connection_close(c);
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
		connection_close(call->connection);
	if (full &&
	    is_allowed(call, type_of_error(call, json_string_value(full)), parameters, "error")) {
		connection_send(call->connection,
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
	/* Without a peer the interfaces may be freed already: do not look up the error. */
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
const struct varlink_interface varlink_service = {
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
	/* "oneway" wants no answer, "more" several. */
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

void call_turn_away(struct connection *c, const char *why)
{
	json_t *text = string_of(why, strlen(why));

	log_debug(NULL, "process %d: %s", (int)c->peer.pid, why);
	c->finishing = true;
	c->begin = c->end = c->searched = 0;
	connection_send(c, json_pack("{s:s, s:{s:o}}", "error", SERVICE ".InvalidParameter",
				     "parameters", "parameter", text));
}

void call_begin(struct connection *c, const char *text, size_t length)
{
	json_error_t error;
	json_t *request = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	struct varlink_call *call;
	char why[WHERE_BYTES];

	if (!json_is_object(request)) {
		if (request)
			snprintf(why, sizeof(why), "request: not a JSON object");
		else
			snprintf(why, sizeof(why), "request: at byte %d: %s", error.position,
				 error.text);
		json_decref(request);
		call_turn_away(c, why);
		return;
	}
	/* The peer is gone: run only calls that want no answer. */
	if (c->gone && !json_is_true(json_object_get(request, "oneway"))) {
		json_decref(request);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		json_decref(request);
		connection_close(c);
		return;
	}
	call->connection = c;
	call->request = request;
	c->call = call;
	c->refs++;
	run_call(call);
}

void call_cancel(struct connection *c)
{
	struct varlink_call *call = c->call;
	void (*cancel)(struct varlink_call *, void *);

	if (!call || !call->cancel)
		return;
	cancel = call->cancel;
	call->cancel = NULL;
	cancel(call, call->cancel_context);
}
