/* SPDX-License-Identifier: MIT */
/*
 * The link between ublkd and one worker: JSON objects, one a message, with
 * descriptors, over a Unix socket (SOCK_SEQPACKET).  A worker is started with a
 * connection (WORKER_START_FD), on which one message comes: {"do": "listen", "name": ...}
 * with a bound socket.  It listens there, so that this ublkd and the next can
 * connect; it speaks to one at a time.  The end of the first connection, before there
 * is another, ends it.
 *
 * ublkd sends requests, and the worker answers in order:
 *
 *   {"do": VERB, "id": N, ...}   ->  {"done": N, ...}, or
 *                                    {"failed": N, "code": ERRNO, "text": "..."}
 *
 *   setup    name, uri, options, uid, gid, owner, resumed, restored: the export;
 *            it gives up its privilege; +the socket to ask by
 *   open     queues, depth, max-io: of the device (0: as the options say); +counters:
 *            opens the storage                -> queues, depth, limits, identity
 *   serve    device, queues, depth, path, max-io, cpus; +/dev/ublkcN:
 *            fetches every tag
 *   hello    +the socket to ask by  -> serving, device, size, conditions; +counters +memory, if there is one
 *   look     check that the queues react      -> threads, stuck (queues)
 *   size     size: serves up to that
 *   can-resize  whether "resize" with a size would be refused; an earlier worker does not
 *            know this verb (ENOSYS)
 *   resize   size: sets the storage's size (0: only reads it)
 *   live     the device was started
 *   drain    hold: ends what is in flight, takes no more; ends then, or (hold) keeps
 *            the memory until it is killed
 *   end      ends at once (the device is gone)
 *
 * The worker reports:
 *
 *   {"event": "grown", "size": N}
 *   {"event": "health", "conditions": [...]}   all that are there now, see conditions.h
 *   {"event": "ended", "code": 0 or ERRNO, "text": "..."}   the device has stopped, or
 *                                                           it cannot go on; it ends
 *
 * and asks by a socket of its own, any thread of it and one at a time, for what
 * its export names:
 *
 *   {"ask": "open", "id": N, "path": ..., "flags": ..., "mode": ...}
 *   {"ask": "remove", "id": N, "path": ...}
 *   {"ask": "connect", "id": N, "path": ...}
 *   {"ask": "keep", "slot": N, "wait": MS or -1} +connection  no answer; see
 *                    keep_connection(); without a connection: that in the slot is over
 *   {"ask": "memory", "id": N, "flags": ...}                the content that outlives it
 *                    ->  {"answer": N, "result": 0 or -ERRNO} +descriptor
 *
 * What a reader does not know of a message it ignores: the two may be of different
 * age.  A worker that is not serving yet ends when its link does, unless it has
 * taken the memory of one that served.
 */
#ifndef UBLKD_LINK_H
#define UBLKD_LINK_H

#include <jansson.h>

struct error;

#define WORKER_START_FD 3

#define LINK_FDS       4u
#define LINK_BYTES_MAX (128u << 10)

/* Descriptors that came with a message; link_close_fds() those not taken (set to -1). */
struct link_fds {
	int fd[LINK_FDS];
	unsigned nr;
};

/*
 * Sends message, which is released in any case, with nr descriptors, which stay
 * the caller's.  Does not block.  Returns 0 or -errno: EAGAIN (the other side does
 * not read), EPIPE or ECONNRESET (it is gone), EMSGSIZE.  Any thread.
 */
int link_send(int socket, json_t *message, const int *fds, unsigned nr);

/*
 * Takes one message.  Returns 0 with *message the caller's to release, or -errno:
 * EAGAIN (there is none), EPIPE (the other side is gone), EBADMSG (what came is no
 * such message; it is dropped).
 */
int link_receive(int socket, json_t **message, struct link_fds *fds);

void link_close_fds(struct link_fds *fds);

/* Closes a descriptor that came from the other side, and does not wait for it. */
void link_close(int fd);

/* Takes a descriptor out; -1 where there is none at that place. */
int link_take_fd(struct link_fds *fds, unsigned index);

/* {"failed": id, ...} from err; and err from such a message (-errno). */
json_t *link_failure(json_int_t id, const struct error *err);
int link_to_error(const json_t *message, struct error *err);

#endif
