/* SPDX-License-Identifier: MIT */
/*
 * The parts of an NBD URI (RFC 3986 and the NBD project's uri.md): scheme, host and port or Unix
 * socket, the export's name, TLS parameters.
 *
 * libnbd takes a URI only together with the connection that it makes of it. ublkd has to know
 * before what a worker will need (needs), resolves names on a thread that may hang, and tries
 * each address by itself.
 *
 * Whatever libnbd takes is taken, too; a URI that only libnbd refuses is refused when the handle
 * is set up (server.c). Texts are decoded in place: decoded, none is longer.
 */
#include "backends/nbd/uri.h"
#include "common/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* NBD protocol, "Well known port". */
#define DEFAULT_PORT 10809l

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, 2: the characters of a URI, and % only before two hex digits that are not 00. */
static bool is_uri_text(const char *s)
{
	int high, low;

	for (; *s; s++) {
		if (*s <= ' ' || *s >= 0x7f || strchr("\"<>\\^`{|}", *s))
			return false;
		if (*s != '%')
			continue;
		high = hex_digit(s[1]);
		low = high < 0 ? -1 : hex_digit(s[2]);
		if (low < 0 || !(high | low))
			return false;
	}
	return true;
}

/* In place: a decoded text is never longer.  Returns it. */
static char *decode(char *text)
{
	char *from = text, *to = text;

	for (; *from; from++) {
		if (*from == '%') {
			*to++ = (char)(hex_digit(from[1]) << 4 | hex_digit(from[2]));
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = 0;
	return text;
}

/* Ends *text at the first character of `any`; returns what is behind it, NULL: there is none. */
static char *cut(char *text, const char *any)
{
	char *at = strpbrk(text, any);

	if (!at)
		return NULL;
	*at = 0;
	return at + 1;
}

static void take_parameter(struct nbd_uri *u, char *name, char *value)
{
	const struct {
		const char *name;
		const char **to;
	} known[] = {
		{ "socket", &u->socket },
		{ "tls-certificates", &u->tls_certificates },
		{ "tls-psk-file", &u->tls_psk_file },
		{ "tls-hostname", &u->tls_hostname },
		{ "tls-verify-peer", &u->tls_verify_peer },
	};

	decode(name);
	/* Of several the last counts. */
	for (unsigned i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(name, known[i].name))
			*known[i].to = decode(value);
}

static void take_query(struct nbd_uri *u, char *query)
{
	char *next, *value;

	for (; query; query = next) {
		/* libnbd looks for a ; where there is no & any more. */
		next = cut(query, strchr(query, '&') ? "&" : ";");
		value = strchr(query, '=');
		if (value == query)
			continue;
		if (value)
			*value++ = 0;
		else
			value = query + strlen(query);
		take_parameter(u, query, value);
	}
}

static bool take_scheme(struct nbd_uri *u, const char *scheme)
{
	if (strncmp(scheme, "nbd", 3) != 0)
		return false;
	scheme += 3;
	u->tls = *scheme == 's';
	scheme += u->tls;
	u->unix_socket = !strcmp(scheme, "+unix");
	u->vsock = !strcmp(scheme, "+vsock");
	return !*scheme || u->unix_socket || u->vsock;
}

int nbd_uri_parse(const char *uri, struct nbd_uri *u, struct error *err)
{
	char *host, *path, *query, *at;

	*u = (struct nbd_uri){ .name = "" };
	if (!is_uri_text(uri))
		return error_set(err, EINVAL,
				 "'%s' has characters that a URI may not have: write each as %% "
				 "and two hex digits",
				 uri);
	u->text = strdup(uri);
	if (!u->text)
		return error_set(err, ENOMEM, "no memory");
	cut(u->text, "#");
	host = strstr(u->text, "://");
	if (!host)
		goto refuse;
	*host = 0;
	host += 3;
	if (!take_scheme(u, u->text))
		goto refuse;
	query = cut(host, "?");
	path = cut(host, "/");
	at = strchr(host, '@');
	if (at) {
		*at = 0;
		u->user = decode(host);
		host = at + 1;
	}
	u->host = host;
	if (path)
		u->name = decode(path);
	take_query(u, query);
	return 0;

refuse:
	nbd_uri_free(u);
	return error_set(
		err, EINVAL,
		"'%s': write it as in nbd://HOST/EXPORT, or nbd+unix:///EXPORT?socket=PATH", uri);
}

void nbd_uri_free(struct nbd_uri *u)
{
	free(u->text);
	u->text = NULL;
}

/* The port behind its colon; 0: none, as for libnbd.  -1: no port. */
static long port_of(const char *text)
{
	char *end;
	long n;

	if (*text < '0' || *text > '9' || strlen(text) > 8)
		return -1;
	n = strtol(text, &end, 10);
	return *end || n > UINT16_MAX ? -1 : n;
}

int nbd_uri_host(const struct nbd_uri *u, char *host, size_t host_size, char *port,
		 size_t port_size, struct error *err)
{
	const char *from = u->host, *behind;
	long number = 0;
	size_t length;

	if (*from == '[') {
		length = strcspn(++from, "]");
		behind = from + length + (from[length] == ']');
	} else {
		length = strcspn(from, ":");
		behind = from + length;
	}
	if (!length || length >= host_size)
		return error_set(err, EINVAL, "'%s': invalid host: use a name or an IP address",
				 u->host);
	memcpy(host, from, length);
	host[length] = 0;
	decode(host);
	if (*behind)
		number = *behind == ':' ? port_of(behind + 1) : -1;
	if (number < 0)
		return error_set(err, EINVAL, "'%s': invalid port: use a number from 1 to 65535",
				 u->host);
	snprintf(port, port_size, "%ld", number ? number : DEFAULT_PORT);
	return 0;
}

bool nbd_uri_has_address(const struct nbd_uri *u)
{
	unsigned char address[sizeof(struct in_addr)];
	char host[INET_ADDRSTRLEN];
	size_t n = strcspn(u->host, ":");

	if (*u->host == '[')
		return true;
	if (n >= sizeof(host))
		return false;
	memcpy(host, u->host, n);
	host[n] = 0;
	return inet_pton(AF_INET, host, address) == 1;
}

bool nbd_uri_trusts_any_peer(const struct nbd_uri *u)
{
	static const char *const noes[] = { "0", "f", "false", "n", "no", "off" };

	for (unsigned i = 0; u->tls_verify_peer && i < sizeof(noes) / sizeof(*noes); i++)
		if (!strcasecmp(u->tls_verify_peer, noes[i]))
			return true;
	return false;
}
