/* SPDX-License-Identifier: MIT */
/*
 * An attempt to connect to a server: its name is resolved, its addresses are tried, and
 * libnbd negotiates on the socket.  The same for a queue, which never waits (begin, step
 * on each tick, take), and for whoever may wait (nbd_connect_now()).
 *
 *   name -> resolve.c -> addresses -> dial.c -> socket -> libnbd
 *   Unix socket: the export's host connects.  vsock: libnbd does.
 */
#ifndef UBLKD_NBD_CONNECT_H
#define UBLKD_NBD_CONNECT_H

#include <libnbd.h>

#include "backends/nbd/dial.h"
#include "engine/backend.h"

/* Owner and thread: whoever began it.  Zeroed before it is first used. */
struct nbd_connect {
	const struct instance *instance;
	bool lists; /* the handle stops at the server's options (libnbd's opt mode) */
	struct nbd_handle *handle;
	struct nbd_lookup *lookup;
	bool dials;    /* dial is begun */
	bool has_sock; /* libnbd has a socket */
	struct nbd_dial dial;
	struct nbd_address address; /* that it is connected to; length 0: none, or no TCP */
	struct nbd_address refused; /* connected, and did not negotiate: stays for the next begin */
	unsigned ms;                /* for all of it, once the name is resolved */
	uint64_t until_ms;          /* when that is over */
	uint64_t share_ms;          /* when this address has to be done, where others are left */
};

/* Whether connections of the export need a resolver. */
bool nbd_connect_resolves(const struct instance *instance);

/*
 * Begins, with ms milliseconds for all of it once the name is resolved.  resolver: NULL where
 * !nbd_connect_resolves(); wake: see nbd_lookup_start().  Returns 0, or -errno with err
 * filled and nothing held.
 */
int nbd_connect_begin(struct nbd_connect *connect, const struct instance *instance,
		      struct nbd_resolver *resolver, struct queue *wake, bool lists, unsigned ms,
		      struct error *err);

/*
 * Goes on, up to a socket.  Returns 0: libnbd has one, and connect->handle negotiates;
 * -EAGAIN: not yet; another -errno with err filled: the attempt has failed.
 */
int nbd_connect_step(struct nbd_connect *connect, struct error *err);

/*
 * The handle has died or is too slow: goes on with another address.  Returns 0 where
 * there is one (nbd_connect_step() is due), or -ENOENT.
 */
int nbd_connect_next(struct nbd_connect *connect);

/* Whether the handle has had its share of the time, and another address is left. */
bool nbd_connect_is_overdue(const struct nbd_connect *connect);

/*
 * Whether its time is over; fills err with what it waits for.  While connect->lookup is
 * there it waits for name servers, which may take longer than one attempt.
 */
bool nbd_connect_is_late(const struct nbd_connect *connect, struct error *err);

/* The handle, which negotiates or has negotiated, is the caller's. */
struct nbd_handle *nbd_connect_take(struct nbd_connect *connect);

/* Ends it, at whatever step it is. */
void nbd_connect_end(struct nbd_connect *connect);

/* For name servers, where somebody waits. */
#define NBD_RESOLVE_MS 20000u

/*
 * Connects, and waits until `done` is true of the handle, for NBD_RESOLVE_MS and then ms
 * milliseconds at the most.  resolver: NULL: one is made where it is needed.  NULL with
 * err filled: its text names the server's place, and not the export.
 */
struct nbd_handle *nbd_connect_now(const struct instance *instance, struct nbd_resolver *resolver,
				   bool lists, unsigned ms, int (*done)(struct nbd_handle *h),
				   struct error *err);

/* The place of the attempt, as nbd_place() has it, also once its socket is closed. */
const char *nbd_connect_where(const struct nbd_connect *connect, char *out, size_t size);

#endif
