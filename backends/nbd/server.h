/* SPDX-License-Identifier: MIT */
/*
 * A server, as it is reached and as it describes its export: libnbd handles
 * made from an export's URI and options, and what they negotiated.
 */
#ifndef UBLKD_NBD_SERVER_H
#define UBLKD_NBD_SERVER_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/backend.h"

struct nbd_uri;

/* For a first connection: resolving, connecting, TLS and negotiation together. */
#define NBD_CONNECT_MS 10000u

/* The backend's options; nbd.c has the table. */
extern const struct option_def nbd_options[];

/* Facts that a server states of its export; sizes in bytes, 0: not stated. */
struct nbd_facts {
	uint64_t size;
	uint32_t min_block, preferred_block, max_block;
	bool read_only, rotational;
	bool flush, fua, trim, zero, fast_zero, multi_conn;
	bool structured;
	bool tls;
};

/* Checks URI and options, and touches nothing.  Returns 0, or -EINVAL with err filled. */
int nbd_server_check(const struct instance *instance, struct error *err);

/* The backend's needs(). */
void nbd_server_needs(const struct instance *instance, backend_need_callback *need, void *context);

/*
 * A handle set up as the export asks, not connected; nbd_close() it.  NULL with
 * err filled.
 */
struct nbd_handle *nbd_server_handle(const struct instance *instance, struct error *err);

/* Sets all that libnbd itself takes from a URI.  Returns 0, or -1 (libnbd's error). */
int nbd_server_set_uri(struct nbd_handle *h, const struct nbd_uri *uri);

/* Whether a connection depends on the host name in the server's certificate. */
bool nbd_server_checks_name(const struct instance *instance, const struct nbd_uri *uri);

/* The files that TLS will use; NULL: none, or not of that kind. */
void nbd_server_tls_files(const struct instance *instance, const struct nbd_uri *uri,
			  const char **keys, const char **directory);

/*
 * Runs the handle until `done` is true of it, for timeout_ms at most. negotiates: the instance
 * whose connection is being made; NULL: the connection is in use. Returns 0, or -errno with err
 * filled (may be NULL).
 */
int nbd_server_run(struct nbd_handle *h, const struct instance *negotiates, unsigned timeout_ms,
		   int (*done)(struct nbd_handle *h), struct error *err);
/* What to do about a server that accepts connections and says nothing. */
#define NBD_SILENT_CURE ": check that the NBD server runs there and is not stopped"

/* Reads the facts that were negotiated.  Returns 0, or -errno with err filled. */
int nbd_server_facts(struct nbd_handle *h, struct nbd_facts *facts, struct error *err);

/*
 * libnbd's last error on this thread, in err: "WHAT: …". For calls that reach no server; the
 * others have explain.h. Returns -errno.
 */
int nbd_error(struct error *err, const char *what);

/* The device that such an export makes.  Returns 0, or -errno with err filled. */
int nbd_facts_to_limits(const struct nbd_facts *facts, const struct instance *instance,
			struct backend_limits *limits, struct error *err);

/*
 * Whether a device that was made for `before`, with limits, can go on with
 * `now`; several: over more than one connection.  Returns 0, or -ESTALE with err
 * filled.
 */
int nbd_facts_match(const struct nbd_facts *before, const struct nbd_facts *now,
		    const struct backend_limits *limits, bool several, struct error *err);

#endif
