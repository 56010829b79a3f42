/* SPDX-License-Identifier: MIT */
/*
 * A table of words in libnbd's texts, each with the function that explains it; the first that is
 * found counts. The least specific, "connect: ", is last.
 *
 * Each message names the server's place, then the cause, then what to do. Schemes and the URI for
 * nbd-list are built from the export's own URI, so that they can be copied.
 */
#include "backends/nbd/explain.h"
#include "backends/nbd/dial.h"
#include "backends/nbd/resolve.h"
#include "backends/nbd/uri.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#define URI_TEXT 512

/* An error of libnbd, and where it was met. */
struct met {
	const struct instance *instance;
	const char *where;
	int code;
	const char *text;
	struct nbd_uri uri;
};

const char *nbd_place(const struct instance *instance, int fd, char *out, size_t size)
{
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
	socklen_t length = sizeof(peer);
	struct nbd_uri uri;

	*out = 0;
	if (!getpeername(fd, (struct sockaddr *)&peer, &length) &&
	    *nbd_address_format(&peer, out, size))
		return out;
	if (nbd_uri_parse(instance->uri, &uri, NULL))
		return out;
	text_escape(uri.socket ? uri.socket : uri.host, out, size);
	nbd_uri_free(&uri);
	return out;
}

const char *nbd_last_text(void)
{
	const char *text = nbd_get_error(), *colon;

	if (text && !strncmp(text, "nbd_", 4) && (colon = strstr(text, ": ")))
		text = colon + 2;
	return text ? text : "no reason given";
}

/* ---- TLS ---- */

const char *nbd_other_scheme(const struct instance *instance, char *out, size_t size)
{
	bool tls = !strncmp(instance->uri, "nbds", 4);
	const char *rest = instance->uri + (tls ? 4 : 3);

	snprintf(out, size, "nbd%s%.*s", tls ? "" : "s", (int)strcspn(rest, ":"), rest);
	return out;
}

static int explain_no_tls(struct error *err, const struct met *m)
{
	char scheme[NBD_SCHEME_TEXT];

	if (strncmp(m->instance->uri, "nbds", 4) != 0)
		return error_set(err, m->code,
				 "%s offers no TLS: turn it on there, or leave -o tls=require out",
				 m->where);
	return error_set(err, m->code,
			 "%s offers no TLS: turn it on there, or write %s:// for %.*s://", m->where,
			 nbd_other_scheme(m->instance, scheme, sizeof(scheme)),
			 (int)strcspn(m->instance->uri, ":"), m->instance->uri);
}

static int explain_tls_required(struct error *err, const struct met *m)
{
	char scheme[NBD_SCHEME_TEXT];

	return error_set(
		err, m->code,
		"%s requires TLS: write %s:// for %.*s://, with -o tls-psk-file=FILE or -o "
		"tls-certificates=DIRECTORY",
		m->where, nbd_other_scheme(m->instance, scheme, sizeof(scheme)),
		(int)strcspn(m->instance->uri, ":"), m->instance->uri);
}

/* A server that refuses a key just ends the handshake, so the text never says more than that. */
static int explain_gnutls(struct error *err, const struct met *m)
{
	const char *keys = m->uri.tls_psk_file ? m->uri.tls_psk_file
					       : instance_option(m->instance, "tls-psk-file")->text;
	/* "gnutls_handshake: TEXT. (-1/1)" */
	const char *said = strstr(m->text, ": ");
	int length;

	said = said ? said + 2 : m->text;
	length = (int)strcspn(said, "(");
	while (length && strchr(". ", said[length - 1]))
		length--;
	if (strstr(m->text, "certificate"))
		return error_set(err, m->code,
				 "the certificate of %s is not accepted (%.*s): it has expired, is "
				 "for another host name, or its authority is not in ca-cert.pem",
				 m->where, length, said);
	if (keys)
		return error_set(err, m->code,
				 "the TLS handshake with %s failed (%.*s): check the user name and "
				 "the key in %s, and that the server uses pre-shared keys",
				 m->where, length, said, keys);
	return error_set(err, m->code,
			 "the TLS handshake with %s failed (%.*s): check that the server uses "
			 "certificates, and accepts the client's (client-cert.pem)",
			 m->where, length, said);
}

/* ---- the export, and the server ---- */

/* The URI of the server: the export's without its name. */
static const char *server_uri(const struct instance *instance, char *out, size_t size)
{
	const char *uri = instance->uri, *host = strstr(uri, "://") + 3;
	const char *query = strchr(host, '?');

	snprintf(out, size, "%.*s%s%s", (int)(host - uri + (long)strcspn(host, "/?")), uri,
		 query ? "/" : "", query ? query : "");
	return out;
}

static int explain_no_export(struct error *err, const struct met *m)
{
	char uri[URI_TEXT];

	return error_set(err, m->code,
			 "%s has no export '%s': see its exports with: ublkctl nbd-list '%s'",
			 m->where, m->uri.name, server_uri(m->instance, uri, sizeof(uri)));
}

static int explain_no_server(struct error *err, const struct met *m)
{
	return error_set(err, m->code, "%s is not an NBD server: is the %s right?", m->where,
			 *m->where == '/' ? "path" : "port");
}

static int explain_closed(struct error *err, const struct met *m)
{
	return error_set(err, m->code,
			 "%s closed the connection during the handshake: check that it is an NBD "
			 "server, that it has the export '%s', and that it admits this host",
			 m->where, m->uri.name);
}

static int explain_policy(struct error *err, const struct met *m)
{
	return error_set(err, m->code,
			 "%s does not let this host use the export '%s': check its access rules",
			 m->where, m->uri.name);
}

static int explain_shutdown(struct error *err, const struct met *m)
{
	return error_set(err, m->code, "%s is shutting down: start it again", m->where);
}

static int explain_connect(struct error *err, const struct met *m)
{
	return nbd_dial_error(err, m->where, m->code);
}

static int explain_name(struct error *err, const struct met *m)
{
	const char *reason = strstr(m->text, "\": ");

	return nbd_resolve_error(err, m->code, m->where, reason ? reason + 3 : m->text);
}

/* Words of libnbd 1.14 to 1.22; the first that is found counts. */
static const struct {
	const char *words;
	int (*explain)(struct error *err, const struct met *m);
} causes[] = {
	{ "handle TLS setting is 'require'", explain_no_tls },
	{ "requires TLS", explain_tls_required },
	{ "gnutls", explain_gnutls },
	{ "no export named", explain_no_export },
	{ "did not send expected NBD magic", explain_no_server },
	{ "not either an oldstyle or fixed newstyle", explain_no_server },
	{ "server disconnected unexpectedly", explain_closed },
	{ "Connection reset by peer", explain_closed },
	{ "server policy prevents", explain_policy },
	{ "server is shutting down", explain_shutdown },
	{ "getaddrinfo: ", explain_name },
	{ "connect: ", explain_connect },
};

int nbd_explain(struct error *err, const struct instance *instance, const char *where, int code,
		const char *text)
{
	struct met m = {
		.instance = instance,
		.where = where,
		.code = code ? code : EIO,
		.text = text,
	};
	int ret = 0;

	if (nbd_uri_parse(instance->uri, &m.uri, NULL))
		return error_set(err, m.code, "%s: %s", where, text);
	for (unsigned i = 0; i < sizeof(causes) / sizeof(*causes) && !ret; i++)
		if (strstr(text, causes[i].words))
			ret = causes[i].explain(err, &m);
	if (!ret)
		ret = error_set(err, m.code,
				"the handshake with %s failed: %s: see the server's log", where,
				strncmp(text, "handshake: ", 11) ? text : text + 11);
	nbd_uri_free(&m.uri);
	return ret;
}

int nbd_explain_last(struct error *err, const struct instance *instance, const char *where)
{
	return nbd_explain(err, instance, where, nbd_get_errno(), nbd_last_text());
}

int nbd_explain_loss(struct error *err)
{
	const char *text = nbd_last_text();
	int code = nbd_get_errno();

	if (strstr(text, "server disconnected unexpectedly"))
		return error_set(err, ECONNRESET, "the server closed the connection");
	if (code == ECONNRESET || code == EPIPE)
		return error_set(err, code, "the server reset the connection");
	if (code == ETIMEDOUT)
		return error_set(err, code, "the server's host does not answer");
	return error_set(err, code ? code : EIO, "the connection failed: %s", text);
}
