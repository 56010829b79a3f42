/* SPDX-License-Identifier: MIT */
/*
 * From the addresses of a server to a connected TCP socket: the addresses are tried side
 * by side, each NBD_DIAL_APART_MS after the one before, and the first that connects wins
 * (RFC 8305, 5).  Nothing here blocks; the owner calls nbd_dial_step() again and again.
 */
#ifndef UBLKD_NBD_DIAL_H
#define UBLKD_NBD_DIAL_H

#include "backends/nbd/resolve.h"

/* RFC 8305, 8: "Connection Attempt Delay", the recommended value. */
#define NBD_DIAL_APART_MS 250u

/* Owner and thread: whoever began it. */
struct nbd_dial {
	struct nbd_addresses addresses;
	int fds[NBD_ADDRESSES_MAX]; /* -1: not under way */
	bool tried[NBD_ADDRESSES_MAX];
	uint64_t next_ms; /* when the next address is due */
	int error;        /* errno of the last address that failed */
	unsigned failed;  /* its index */
};

/*
 * Takes the addresses; the one that is `last`, if it is among them, moves to the end
 * (NULL: none does).  Touches no network.
 */
void nbd_dial_begin(struct nbd_dial *dial, const struct nbd_addresses *addresses,
		    const struct nbd_address *last);
/*
 * Returns a connected socket, close-on-exec and non-blocking, that is the caller's, with
 * *winner its address; the other attempts are closed then, and count as not tried.
 * -EAGAIN: under way.  Another -errno, with err filled: no address is left.
 */
int nbd_dial_step(struct nbd_dial *dial, uint64_t now_ms, struct nbd_address *winner,
		  struct error *err);
/* Waits until a step may find something new, for ms milliseconds at the most. */
void nbd_dial_wait(const struct nbd_dial *dial, unsigned ms);
/* How many addresses were not tried yet. */
unsigned nbd_dial_left(const struct nbd_dial *dial);
/*
 * Why where, an address or the path of a socket, cannot be connected to (code: an errno), with
 * a cure, in err.  Returns -code.
 */
int nbd_dial_error(struct error *err, const char *where, int code);
/* Closes what is under way. */
void nbd_dial_end(struct nbd_dial *dial);

#endif
