/* SPDX-License-Identifier: MIT */
/*
 * The parts of an NBD URI.
 *
 * libnbd takes a URI only together with the connection that it makes of it.  These
 * are the parts for who must know before what a connection will need, or makes it
 * otherwise: the same that libnbd finds (its lib/uri.c, and nbd_connect_uri(3)).
 */
#ifndef UBLKD_NBD_URI_H
#define UBLKD_NBD_URI_H

#include <stdbool.h>
#include <stddef.h>

struct error;

/* Owner: whoever called nbd_uri_parse(); the texts are decoded. */
struct nbd_uri {
	bool tls;                     /* nbds */
	bool unix_socket;             /* +unix */
	bool vsock;                   /* +vsock */
	const char *host;             /* "[::1]:10809" and the like, not decoded; "": none */
	const char *user;             /* NULL: none */
	const char *name;             /* of the export; "": the server's default */
	const char *socket;           /* NULL: none, as are the next */
	const char *tls_certificates; /* a directory */
	const char *tls_psk_file;
	const char *tls_hostname;
	const char *tls_verify_peer; /* a word for yes or no */
	char *text;                  /* what they point into */
};

/*
 * Returns 0, or -errno with err filled and nothing held: EINVAL where it is no such
 * URI, ENOMEM.  What libnbd takes is taken; some that libnbd refuses is, too.
 */
int nbd_uri_parse(const char *uri, struct nbd_uri *parsed, struct error *err);
void nbd_uri_free(struct nbd_uri *parsed);

/*
 * The host, decoded and without brackets, and its port ("10809" where it names none), in
 * buffers of those sizes.  Returns 0, or -EINVAL with err filled.
 */
int nbd_uri_host(const struct nbd_uri *parsed, char *host, size_t host_size, char *port,
		 size_t port_size, struct error *err);

/* Whether its host is an IP address, and no name. */
bool nbd_uri_has_address(const struct nbd_uri *parsed);

/* Whether the word in tls-verify-peer is one for no. */
bool nbd_uri_trusts_any_peer(const struct nbd_uri *parsed);

#endif
