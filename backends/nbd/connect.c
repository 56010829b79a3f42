/* SPDX-License-Identifier: MIT */
/*
 * Where a server has several addresses, one that accepts connections and says nothing
 * gets its share of an attempt's time (nbd_connect_is_overdue()) and then the next address
 * has its turn; the next attempt begins with the others.
 *
 * libnbd negotiates on sockets that are made here, with one exception: before
 * nbd_set_tls_hostname() it checks the host name of a server's certificate only on
 * connections that it made from a name.  There libnbd resolves and tries the addresses
 * one after the other, on the resolver's thread (needs_libnbd()).
 */
#include "backends/nbd/connect.h"
#include "backends/nbd/explain.h"
#include "backends/nbd/server.h"
#include "backends/nbd/tls.h"
#include "backends/nbd/uri.h"
#include "common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

bool nbd_connect_resolves(const struct instance *instance)
{
	struct nbd_uri uri;
	bool resolves;

	if (nbd_uri_parse(instance->uri, &uri, NULL))
		return false;
	resolves = !uri.unix_socket && !uri.vsock && !nbd_uri_has_address(&uri);
	nbd_uri_free(&uri);
	return resolves;
}

/* Whoever may connect to it does: its path is one of the host's. */
static int begin_unix(struct nbd_connect *c, const struct nbd_uri *uri, struct error *err)
{
	int fd = c->instance->host->connect_unix(c->instance, uri->socket);

	if (fd == -ENAMETOOLONG)
		return error_set(err, EINVAL,
				 "%s is too long for a socket's path: at most %zu "
				 "bytes",
				 uri->socket, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
	if (fd == -EAGAIN)
		return error_set(err, EBUSY,
				 "%s: the server has too many connections waiting: retry, or raise "
				 "its backlog",
				 uri->socket);
	if (fd == -ENOTCONN)
		return error_set(err, ENOTCONN,
				 "%s: ublkd makes connections to sockets, and is not running: "
				 "start ublkd",
				 uri->socket);
	if (fd < 0)
		return nbd_dial_error(err, uri->socket, -fd);
	c->has_sock = true;
	/* libnbd takes the descriptor in either case. */
	return nbd_aio_connect_socket(c->handle, fd)
		       ? nbd_explain_last(err, c->instance, uri->socket)
		       : 0;
}

static bool needs_libnbd(const struct instance *instance, const struct nbd_uri *uri)
{
#ifdef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
	(void)instance;
	(void)uri;
	return false;
#else
	return nbd_server_checks_name(instance, uri);
#endif
}

static int begin_tcp(struct nbd_connect *c, const struct nbd_uri *uri,
		     struct nbd_resolver *resolver, struct queue *wake, struct error *err)
{
	char host[NBD_HOST_MAX], port[NBD_PORT_MAX];
	struct nbd_addresses addresses;
	int ret = nbd_uri_host(uri, host, sizeof(host), port, sizeof(port), err);

	if (ret)
		return ret;
#ifdef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
	if (!uri->tls_hostname && nbd_set_tls_hostname(c->handle, host))
		return nbd_error(err, host);
#endif
	if (nbd_uri_has_address(uri)) {
		if (needs_libnbd(c->instance, uri)) {
			c->has_sock = true;
			return nbd_aio_connect_tcp(c->handle, host, port)
				       ? nbd_explain_last(err, c->instance, uri->host)
				       : 0;
		}
		ret = nbd_resolve_numeric(host, port, &addresses, err);
		if (!ret)
			nbd_dial_begin(&c->dial, &addresses, NULL);
		c->dials = !ret;
		return ret;
	}
	c->lookup = nbd_lookup_start(resolver, host, port,
				     needs_libnbd(c->instance, uri) ? c->handle : NULL, wake);
	if (!c->lookup)
		return error_set(err, ENOMEM, "no memory to resolve '%s'", host);
	if (needs_libnbd(c->instance, uri))
		c->handle = NULL;
	return 0;
}

/* A handle that knows all but its socket. */
static int make_handle(struct nbd_connect *c, const struct nbd_uri *uri, struct error *err)
{
	c->handle = nbd_server_handle(c->instance, err);
	if (!c->handle)
		return -err->code;
	if (nbd_server_set_uri(c->handle, uri) || (c->lists && nbd_set_opt_mode(c->handle, true)))
		return nbd_error(err, c->instance->uri);
	return 0;
}

int nbd_connect_begin(struct nbd_connect *c, const struct instance *instance,
		      struct nbd_resolver *resolver, struct queue *wake, bool lists, unsigned ms,
		      struct error *err)
{
	struct nbd_address refused = c->refused;
	struct nbd_uri uri;
	int ret = nbd_uri_parse(instance->uri, &uri, err);

	if (ret)
		return ret;
	*c = (struct nbd_connect){
		.instance = instance,
		.lists = lists,
		.refused = refused,
		.ms = ms,
		.until_ms = clock_ms() + ms,
	};
	ret = make_handle(c, &uri, err);
	if (ret)
		;
	else if (uri.unix_socket)
		ret = begin_unix(c, &uri, err);
	else if (!uri.vsock)
		ret = begin_tcp(c, &uri, resolver, wake, err);
	else if (nbd_aio_connect_uri(c->handle, instance->uri))
		ret = nbd_explain_last(err, instance, uri.host);
	else
		c->has_sock = true;
	if (ret)
		nbd_connect_end(c);
	nbd_uri_free(&uri);
	return ret;
}

/*
 * The resolver's thread has either the addresses, or, where libnbd connects by itself, the handle
 * that it began to connect with.
 */
static int take_lookup(struct nbd_connect *c, struct error *err)
{
	struct nbd_addresses found;
	int ret = nbd_lookup_result(c->lookup, &found, err);

	if (ret == -EAGAIN)
		return ret;
	if (!c->handle) {
		/* libnbd looked up and connected, and the text is its own. */
		if (ret)
			ret = nbd_explain(err, c->instance, nbd_lookup_host(c->lookup), -ret,
					  err->text);
		c->handle = nbd_lookup_take(c->lookup);
		c->has_sock = true;
	} else if (!ret) {
		nbd_dial_begin(&c->dial, &found, c->refused.length ? &c->refused : NULL);
		c->dials = true;
	}
	nbd_lookup_end(c->lookup);
	c->lookup = NULL;
	/* How long name servers take does not count. */
	c->until_ms = clock_ms() + c->ms;
	return ret;
}

/* The address that is connected has its share of what is left; the last has all of it. */
static void set_share(struct nbd_connect *c, uint64_t now)
{
	uint64_t left = c->until_ms > now ? c->until_ms - now : 0;

	c->share_ms = now + left / (1 + nbd_dial_left(&c->dial));
}

int nbd_connect_step(struct nbd_connect *c, struct error *err)
{
	uint64_t now = clock_ms();
	char place[NBD_PLACE_TEXT];
	int fd;

	if (c->lookup) {
		int ret = take_lookup(c, err);

		if (ret)
			return ret;
	}
	if (c->has_sock)
		return 0;
	fd = nbd_dial_step(&c->dial, now, &c->address, err);
	if (fd < 0)
		return fd;
	set_share(c, now);
	c->has_sock = true;
	if (nbd_aio_connect_socket(c->handle, fd)) {
		nbd_explain_last(err, c->instance, nbd_connect_where(c, place, sizeof(place)));
		return nbd_connect_next(c) ? -err->code : -EAGAIN;
	}
	return 0;
}

/* A libnbd handle connects once in its life, so the next address needs a new one. */
int nbd_connect_next(struct nbd_connect *c)
{
	struct nbd_uri uri;
	struct error ignored;
	int ret;

	if (!c->dials || !c->has_sock)
		return -ENOENT;
	c->refused = c->address;
	if (!nbd_dial_left(&c->dial))
		return -ENOENT;
	nbd_close(c->handle);
	c->handle = NULL;
	c->has_sock = false;
	if (nbd_uri_parse(c->instance->uri, &uri, &ignored))
		return -ENOENT;
	ret = make_handle(c, &uri, &ignored);
	nbd_uri_free(&uri);
	return ret ? -ENOENT : 0;
}

const char *nbd_connect_where(const struct nbd_connect *c, char *out, size_t size)
{
	if (c->address.length)
		return nbd_address_format(&c->address.at, out, size);
	return nbd_place(c->instance, -1, out, size);
}

bool nbd_connect_is_overdue(const struct nbd_connect *c)
{
	return c->dials && c->has_sock && nbd_dial_left(&c->dial) && clock_ms() >= c->share_ms;
}

bool nbd_connect_is_late(const struct nbd_connect *c, struct error *err)
{
	char place[NBD_PLACE_TEXT];

	if (clock_ms() < c->until_ms)
		return false;
	if (c->lookup)
		nbd_resolve_error(err, ETIMEDOUT, nbd_lookup_host(c->lookup), "no answer yet");
	else
		error_set(err, ETIMEDOUT, "%s does not answer" NBD_SILENT_CURE,
			  nbd_connect_where(c, place, sizeof(place)));
	return true;
}

/* The address has served: it is not tried last the next time (refused). */
struct nbd_handle *nbd_connect_take(struct nbd_connect *c)
{
	struct nbd_handle *handle = c->handle;

	c->handle = NULL;
	c->refused.length = 0;
	nbd_connect_end(c);
	return handle;
}

void nbd_connect_end(struct nbd_connect *c)
{
	/* An address that connected and came to nothing: others go first the next time. */
	if (c->handle && c->dials && c->has_sock)
		c->refused = c->address;
	nbd_lookup_end(c->lookup);
	c->lookup = NULL;
	if (c->dials)
		nbd_dial_end(&c->dial);
	c->dials = c->has_sock = false;
	nbd_close(c->handle);
	c->handle = NULL;
}

/* ---- for whoever may wait ---- */

static unsigned left_ms(const struct nbd_connect *c)
{
	uint64_t now = clock_ms();

	return c->until_ms > now ? (unsigned)(c->until_ms - now) : 0;
}

/* Until libnbd has a socket. */
static int wait_for_socket(struct nbd_connect *c, struct error *err)
{
	int ret;

	while ((ret = nbd_connect_step(c, err)) == -EAGAIN) {
		if (c->lookup && !nbd_lookup_wait(c->lookup, NBD_RESOLVE_MS))
			return nbd_resolve_error(err, ETIMEDOUT, nbd_lookup_host(c->lookup),
						 "no answer yet");
		if (c->lookup)
			continue;
		if (nbd_connect_is_late(c, err))
			return -ETIMEDOUT;
		nbd_dial_wait(&c->dial, left_ms(c));
	}
	return ret;
}

/* Where other addresses are left, this one has only its share of the time. */
static int negotiate(struct nbd_connect *c, unsigned ms, int (*done)(struct nbd_handle *h),
		     struct error *err)
{
	char place[NBD_PLACE_TEXT];
	uint64_t now = clock_ms();
	bool shares = c->dials && nbd_dial_left(&c->dial);
	unsigned left = !shares             ? left_ms(c)
			: c->share_ms > now ? (unsigned)(c->share_ms - now)
					    : 0;
	int ret = nbd_server_run(c->handle, c->instance, left, done, err);

	/* Of all the time, not of the share that the last address had. */
	if (ret == -ETIMEDOUT && clock_ms() >= c->until_ms)
		error_set(err, ETIMEDOUT, "%s does not answer within %u s" NBD_SILENT_CURE,
			  nbd_connect_where(c, place, sizeof(place)), (ms + 999) / 1000);
	return ret;
}

struct nbd_handle *nbd_connect_now(const struct instance *instance, struct nbd_resolver *resolver,
				   bool lists, unsigned ms, int (*done)(struct nbd_handle *h),
				   struct error *err)
{
	struct nbd_resolver *own = NULL;
	struct nbd_connect c = { .instance = NULL };
	struct nbd_handle *handle = NULL;
	int ret = nbd_tls_check(instance, err);

	if (ret)
		return NULL;
	if (!resolver && nbd_connect_resolves(instance)) {
		resolver = own = nbd_resolver_create(err);
		if (!own)
			return NULL;
	}
	ret = nbd_connect_begin(&c, instance, resolver, NULL, lists, ms, err);
	if (ret)
		goto release;
	do {
		ret = wait_for_socket(&c, err);
		if (!ret)
			ret = negotiate(&c, ms, done, err);
	} while (ret && !nbd_connect_next(&c));
	if (!ret)
		handle = nbd_connect_take(&c);
	nbd_connect_end(&c);

release:
	nbd_resolver_release(own);
	return handle;
}
