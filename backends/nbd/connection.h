/* SPDX-License-Identifier: MIT */
/*
 * A connection to the server: made, watched, lost, made again. On its queue's thread.
 */
#ifndef UBLKD_NBD_CONNECTION_H
#define UBLKD_NBD_CONNECTION_H

#include "backends/nbd/nbd.h"

/* Whether its connection has ended, and libnbd knows. */
static inline bool nbd_connection_is_dead(struct nbd_handle *handle)
{
	return nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle);
}
/*
 * handle: the connection's from now on; it was connected, and is created again where it is dead.
 * Returns 0, or -errno with err filled; nbd_connection_end() is due in either case.
 */
int nbd_connection_start(struct nbd_connection *conn, struct nbd_queue *owner, unsigned number,
			 struct nbd_handle *handle, struct error *err);
/* Where it is READY, and nothing is in flight: tells the server that it ends. */
void nbd_connection_leave(struct nbd_connection *conn);
/* Ends it; where it was left, the server is given until then (clock_ms()). */
void nbd_connection_end(struct nbd_connection *conn, uint64_t until_ms);
/* After libnbd was called: sees whether it has died of it. */
void nbd_connection_check(struct nbd_connection *conn);
/* Every so often: time-outs, and the next try. */
void nbd_connection_tick(struct nbd_connection *conn);
/* At the end of a round: watches what is to be watched. */
void nbd_connection_watch(struct nbd_connection *conn);
/* nbd_connection_send() without a wire. */
int nbd_connection_send_by_libnbd(struct nbd_connection *conn, const struct nbd_command *command);
/*
 * Sends a command, at once or at the round's end.  Counted as in flight by the caller before:
 * done may be called from within.  Returns 0; or -1 where it cannot be sent: done is not called,
 * and the connection is dead unless nbd_connection_refused().
 */
static inline int nbd_connection_send(struct nbd_connection *conn,
				      const struct nbd_command *command)
{
	if (!conn->on_wire)
		return nbd_connection_send_by_libnbd(conn, command);
	nbd_wire_send(conn->wire, command);
	return 0;
}
/* After that has returned -1: the errno of a command that libnbd does not send; 0: it is dead. */
int nbd_connection_refused(const struct nbd_connection *conn);
/* Requests that are sent until it is uncorked may share packets. */
void nbd_connection_cork(struct nbd_connection *conn, bool on);
/* Whether it has joined, that is, takes requests. */
void nbd_connection_ready(struct nbd_connection *conn);
/* reason NULL: it was logged already. */
void nbd_connection_lost(struct nbd_connection *conn, const char *reason);
/* Whether that error is the connection's, which is lost by it, and not a command's. */
bool nbd_connection_failed(struct nbd_connection *conn, int error);
/*
 * libnbd calls back for a request that was sent at sent_ns.  Returns whether the server has
 * answered it; if not, the connection is lost by the end of libnbd's call.
 */
static inline bool nbd_connection_answered(struct nbd_connection *conn, uint64_t sent_ns, int error)
{
	if (error && nbd_connection_failed(conn, error))
		return false;
	conn->in_flight--;
	conn->answered++;
	conn->answered_ns = queue_now_ns(conn->owner->queue);
	if (sent_ns > conn->overtaken_ns)
		conn->overtaken_ns = sent_ns;
	return true;
}
/*
 * A server said how big its export is, on a connection or elsewhere: connections that know a
 * smaller size are made again. Any thread.
 */
void nbd_saw_size(struct nbd *nbd, uint64_t size);

#endif
