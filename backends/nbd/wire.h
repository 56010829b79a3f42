/* SPDX-License-Identifier: MIT */
/*
 * Commands and replies of a connection, on the queue's ring: all commands of a round in one
 * SENDMSG, many replies in one RECV.
 *
 * libnbd makes the connection; when it is ready, a wire may take over its socket, and libnbd
 * neither sends nor receives before nbd_wire_close(). With TLS only where the kernel does it:
 * what libnbd's library does, only libnbd can read and write.
 *
 * Thread: the queue's.
 */
#ifndef UBLKD_NBD_WIRE_H
#define UBLKD_NBD_WIRE_H

#include <stdbool.h>

#include "backends/nbd/command.h"

struct nbd_connection;
struct nbd_wire;

/* Whether a wire may take over the connection's socket. */
bool nbd_wire_fits(const struct nbd_connection *conn);

/*
 * A closed wire for conn, with room for nr commands.  changed(conn) is called after replies were
 * taken, and after the wire broke: conn->fault says why.  Returns NULL without memory.
 */
struct nbd_wire *nbd_wire_create(struct nbd_connection *conn, unsigned nr,
				 void (*changed)(struct nbd_connection *conn));
void nbd_wire_destroy(struct nbd_wire *wire);

/*
 * Takes the socket over, and sets conn->on_wire; structured: with structured replies. false:
 * operations on a former one have not come back yet.
 */
bool nbd_wire_open(struct nbd_wire *wire, int fd, bool structured);
/* Lets go of the socket and of all data: the kernel uses neither any more.  Commands are forgotten. */
void nbd_wire_close(struct nbd_wire *wire);

/* Queues a command: nbd_wire_round() sends it.  At most nr at a time. */
void nbd_wire_send(struct nbd_wire *wire, const struct nbd_command *command);

/* At the end of a round: sends what is queued, and receives. */
void nbd_wire_round(struct nbd_wire *wire);

#endif
