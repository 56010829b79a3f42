/* SPDX-License-Identifier: MIT */
/*
 * Host names, looked up on a thread of their own.
 *
 * getaddrinfo(3) blocks for as long as its name servers are silent, and cannot be
 * cancelled.  On a queue's thread it would stop all I/O of that queue, and ublkd would
 * take the worker for hung.  So an export has one resolver thread; a queue starts a
 * lookup, goes on, and is woken when the lookup is done.
 */
#ifndef UBLKD_NBD_RESOLVE_H
#define UBLKD_NBD_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct error;
struct nbd_handle;
struct queue;

#define NBD_ADDRESSES_MAX 16
#define NBD_HOST_MAX      256
#define NBD_PORT_MAX      8

struct nbd_address {
	struct sockaddr_storage at;
	socklen_t length; /* 0: none */
};

struct nbd_addresses {
	struct nbd_address list[NBD_ADDRESSES_MAX];
	unsigned nr;
};

/*
 * Resolves at once: host is an IP address, no name server is asked.  Returns 0, or
 * -errno with err filled.  Any thread.
 */
int nbd_resolve_numeric(const char *host, const char *port, struct nbd_addresses *found,
			struct error *err);

/* That host cannot be resolved (code: an errno), with reason and a cure, in err.  Returns -code. */
int nbd_resolve_error(struct error *err, int code, const char *host, const char *reason);

/* "192.0.2.1:10809", "[2001:db8::1]:10809"; "" where it is no IP address.  Returns out. */
const char *nbd_address_format(const struct sockaddr_storage *at, char *out, size_t size);
#define NBD_ADDRESS_TEXT 80

/*
 * Starts the thread.  It inherits what the caller is confined by, so a worker calls this
 * before it may start no more threads (backend's open()).  NULL with err filled.
 */
struct nbd_resolver *nbd_resolver_create(struct error *err);
/*
 * Never waits: a thread that is in the midst of a lookup ends, and frees what it uses,
 * when the C library returns.  Every lookup has ended (nbd_lookup_end()).
 */
void nbd_resolver_release(struct nbd_resolver *resolver);

/*
 * Starts to look up the addresses of host and port (a number).  wake: queue_wake() is
 * called for it once the lookup is done; NULL: nothing is.  Lookups of the same name that
 * wait at the same time share one answer.
 *
 * handle: not NULL: the thread calls nbd_aio_connect_tcp() on it, which resolves and
 * begins to connect; the handle is the lookup's until nbd_lookup_take().  For libnbd's
 * that check a certificate's host name only on connections that they make themselves.
 *
 * Returns the lookup, which nbd_lookup_end() ends, or NULL without memory (the handle
 * stays the caller's).
 */
struct nbd_lookup *nbd_lookup_start(struct nbd_resolver *resolver, const char *host,
				    const char *port, struct nbd_handle *handle,
				    struct queue *wake);
/*
 * Returns -EAGAIN while the lookup is not done; 0 with found filled (without a handle); or
 * -errno with err filled.
 */
int nbd_lookup_result(struct nbd_lookup *lookup, struct nbd_addresses *found, struct error *err);
/* The name that it looks up; valid until nbd_lookup_end(). */
const char *nbd_lookup_host(const struct nbd_lookup *lookup);
/* Waits until the lookup is done, for ms milliseconds at the most.  Returns whether it is. */
bool nbd_lookup_wait(struct nbd_lookup *lookup, unsigned ms);
/* The handle of a lookup that is done is the caller's again. */
struct nbd_handle *nbd_lookup_take(struct nbd_lookup *lookup);
/* Ends the lookup, done or not, without waiting; a handle that was not taken is closed. */
void nbd_lookup_end(struct nbd_lookup *lookup);

#endif
