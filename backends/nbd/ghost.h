/* SPDX-License-Identifier: MIT */
/*
 * Old connections: given up with requests in flight, which their server may still carry out;
 * ghost.c says how they are waited for.
 */
#ifndef UBLKD_NBD_GHOST_H
#define UBLKD_NBD_GHOST_H

#include "backends/nbd/nbd.h"
#include "common/old_socket.h"

/* A range that an old connection may still write. */
struct nbd_ghost_range {
	uint64_t offset; /* bytes, as is length */
	uint64_t order;  /* a replayed write's number in the journal */
	uint32_t length;
};

/*
 * An old socket of a connection (ghost.c).  Owner: the export; that connection's queue, on its
 * thread.  The ranges are read by every queue, with the gate held.
 */
struct nbd_ghost {
	struct nbd_connection *conn;
	unsigned nr_ranges; /* 0: it is over, or there is none */
	struct nbd_ghost_range *ranges;
	struct old_socket socket;
	unsigned slot; /* of keep_connection() */
	uint64_t since_ms;
	bool reported; /* in the log */
	struct ring_op readable;
	bool polls; /* the op is with the ring */
};

/*
 * Memory for the old sockets of all connections.  Returns 0 or -ENOMEM; close is due in
 * either case.
 */
int nbd_ghost_open(struct nbd *nbd);
void nbd_ghost_close(struct nbd *nbd);
/*
 * The connection's socket (conn->fd, conn->slot) is given up, before its requests are
 * taken back.  Returns true where it becomes an old socket, which has the socket from now
 * on; false: nothing in flight on it changes data, and the socket stays the caller's.
 */
bool nbd_ghost_make(struct nbd_connection *conn);
/* Whether a connection may be made: it could become an old one. */
bool nbd_ghost_has_room(const struct nbd_connection *conn);
/* A slot for keep_connection() that none of the connection's old sockets has. */
unsigned nbd_ghost_free_slot(const struct nbd_connection *conn);
/* Every so often: looks whether the connection's old sockets are over. */
void nbd_ghost_tick(struct nbd_connection *conn);
/* The connection's queue ends: nobody watches its old sockets any more. */
void nbd_ghost_leave(struct nbd_connection *conn);
/* Whether a request has to wait for an old connection's end.  Any queue's thread. */
bool nbd_ghost_overlaps(struct nbd *nbd, const struct io *io);
static inline bool nbd_ghost_blocks(struct nbd *nbd, const struct io *io)
{
	return __builtin_expect(atomic_load_explicit(&nbd->ghosts, memory_order_relaxed), 0) &&
	       nbd_ghost_overlaps(nbd, io);
}
/* Whether an old connection may still carry out the replay of a write older than kept. */
bool nbd_ghost_precedes(struct nbd *nbd, const struct nbd_kept *kept);

#endif
