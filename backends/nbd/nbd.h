/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend's parts, as they see each other.
 *
 *   nbd.c         the backend: its options, its start, rounds and end
 *   request.c     a request: sent, answered, sent again
 *   connection.c  a connection: made, watched, lost, made again
 *   ghost.c       old sockets, whose server may still carry out their requests
 *   silence.c     a connection that is silent: whether the server is slow or gone
 *   replay.c      steps that come before a new connection may be used
 *   journal.c     acknowledged writes that no flush has covered
 *   cover.c       which parts of a read have come
 *   server.c      libnbd's set-up for a server, and the facts of its export
 *   connect.c     an attempt to connect: name, addresses, negotiation
 *   resolve.c     host names, looked up on a thread of their own
 *   dial.c        several addresses, tried side by side
 *   tls.c         key and certificate files, checked
 *   uri.c         the parts of its URI
 *
 * A connection outlives its sockets: it is made again and again.
 * A connection belongs to one queue, and libnbd's handle in it is only touched by that
 * queue's thread.  Connections never move between queues.
 */
#ifndef UBLKD_NBD_H
#define UBLKD_NBD_H

#include <pthread.h>

#include "backends/nbd/connect.h"
#include "backends/nbd/cover.h"
#include "backends/nbd/journal.h"
#include "backends/nbd/server.h"

#define NBD_LINKS_MAX      64  /* connections of an export */
#define NBD_TICK_MS        100 /* how exactly time is kept */
#define NBD_REPLAYS        32  /* sent again at the same time */
#define NBD_FOREVER        UINT64_MAX
#define NBD_NS_PER_MS      1000000u
#define NBD_BACKOFF_MIN_MS 100u
#define NBD_BACKOFF_MAX_MS 5000u
/* A connection that was up for so long was not broken by what it was made for. */
#define NBD_LASTED_MS 5000u
/* Old sockets of a connection at a time; with so many it waits until one is over. */
#define NBD_GHOSTS 3u
#define NBD_SLOTS  (NBD_GHOSTS + 1) /* of a connection, for keep_connection() */
/* Time-outs that a request may take while the server is known to be there. */
#define NBD_PATIENCE 10u
/* TCP's keepalive, as long as nothing is in doubt. */
#define NBD_KEEPALIVE_IDLE_S  10
#define NBD_KEEPALIVE_EVERY_S 5
#define NBD_KEEPALIVE_COUNT   4

/* The number in the journal of all that an earlier server of the device left unflushed. */
#define NBD_INHERITED 0u
#define NBD_HERITAGE_LOST \
	"the connection was lost before the server had flushed what was written before"

enum nbd_gauge {
	NBD_GAUGE_CONNECTIONS,
	NBD_GAUGE_CONNECTED,
	NBD_GAUGE_RECONNECTS,
	NBD_GAUGE_RETAINED,
	NBD_GAUGE_REPLAYED,
	NBD_GAUGE_SUSPENDED,
	/*
	 * 1: a connection was lost, maybe with its server, and of what that had acknowledged
	 * and not flushed only this process can tell.  One that finds it there when it takes
	 * the device over knows that it is lost.
	 */
	NBD_GAUGE_IN_DOUBT,
	NBD_GAUGE_GHOSTS, /* writes of old connections that may still be carried out */
};

enum nbd_retain {
	NBD_RETAIN_LOG,   /* keep, and send again */
	NBD_RETAIN_TELL,  /* keep nothing; the next flush fails */
	NBD_RETAIN_TRUST, /* the server's acknowledgement is durable */
};

enum nbd_connection_state {
	NBD_CONNECTION_DOWN,       /* waits for the time to try again */
	NBD_CONNECTION_CONNECTING, /* libnbd connects and negotiates */
	NBD_CONNECTION_JOINING,    /* waits for a replay */
	NBD_CONNECTION_READY,      /* takes requests */
};

struct nbd;
struct nbd_queue;

/* A connection.  Owner: its queue, on its thread. */
struct nbd_connection {
	struct nbd_queue *owner;
	unsigned number; /* of the export's connections */
	enum nbd_connection_state state;
	struct nbd_handle *handle;  /* NULL: down, or on its way to a socket */
	struct nbd_connect connect; /* CONNECTING: the attempt */
	struct nbd_facts facts;
	unsigned in_flight;    /* requests and replays that libnbd has */
	uint64_t answered;     /* how many it has answered */
	uint64_t answered_ns;  /* when it last did, or was made */
	uint64_t overtaken_ns; /* when the youngest answered request was sent */
	bool explained;        /* libnbd's last error on this thread is about it */
	const char *fault;     /* why it is to be given up; NULL: nothing */

	bool suspected, told_slow; /* it is silent; and that was told */
	bool probes;               /* probe is begun: a connection that shows if the server lives */
	struct nbd_connect probe;
	uint64_t probe_ns; /* when to begin the next one */

	bool is_tcp;
	int fd; /* our own descriptor of its socket; -1: none */
	struct ring_op readable, writable;
	bool polls_read, polls_write; /* the ops are with the ring */
	unsigned slot;                /* of keep_connection(), that has its socket */
	unsigned nr_ghosts;           /* its old connections that are not over */

	uint64_t ready_ns;     /* when it was last made READY */
	uint64_t trouble_ns;   /* since when it has not lasted */
	uint64_t lost_ns;      /* since when it is not READY */
	uint64_t next_ns;      /* DOWN: when to try */
	unsigned returns_seen; /* nbd->returns at its last try */
	bool retiring;         /* it gets no more requests, and is made anew when it has none */
	uint64_t size_tried;   /* the export's size for which it was made again */
	uint64_t joins;        /* JOINING: the first replay that counts for it */
	int told;              /* errno of the last refusal that was told */
	char told_text[256];
};

/* The backend's part of a request.  Owner: its queue. */
struct nbd_io {
	struct nbd_io *next;
	struct io *io;
	struct nbd_connection *conn; /* that has it; NULL: none */
	uint64_t sent_ns;
	uint64_t held_ns; /* since when it waits for an old connection's end; 0: it does not */
	unsigned cuts;    /* connections given up over it for its age: each doubles its time */
	uint64_t covers;  /* a flush: what it covers */
	uint32_t room;    /* set aside in the journal */
	bool garbled;     /* a structured read: its chunks overlap */
	struct nbd_cover cover; /* a structured read: what has come */
};

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
	bool told; /* in the log */
	struct ring_op readable;
	bool polls; /* the op is with the ring */
};

struct nbd_list {
	struct nbd_io *first, **last;
};

/* A queue's part.  Owner: that queue's thread. */
struct nbd_queue {
	struct nbd *nbd;
	struct queue *queue;
	unsigned index;
	struct nbd_connection *connections;
	unsigned nr_connections;
	struct nbd_segment *segment;
	struct nbd_list again;   /* sent, and not answered when their connection was lost */
	struct nbd_list waiting; /* not sent yet */
	struct nbd_io **ios;     /* by tag; NULL where a tag was never used */
	struct nbd_connection *flush_connection; /* that has our own flush; NULL: none */
	uint64_t flush_covers, flush_sent_ns;
	unsigned flush_cuts; /* as nbd_io.cuts */
	int last_flush;      /* errno of the flush at the end; libnbd may still have it then */
	uint64_t stable_seen;
	uint64_t stalled_ns; /* since when nothing could be sent; 0: it can */
	bool server_up;      /* when last looked at: some queue reaches the server */
	bool failing;        /* the deadline has passed: errors at once */
	struct queue_timer tick;
	bool ticks;
	uint64_t parked; /* nbd->halts at which it held still */
};

/* Something that is being sent again.  Owner: the queue that leads. */
struct nbd_replay_slot {
	struct nbd *nbd;
	const struct nbd_kept *kept; /* NULL: free */
	uint64_t sent_ns;
};

/* An export.  Constant after open(), but for atomics and what gate guards. */
struct nbd {
	struct instance *instance;
	struct nbd_facts facts;
	enum nbd_retain retain;
	bool fua_always; /* a server with FUA and without flush */
	bool fast_zero;
	uint64_t deadline_ns, timeout_ns, ghost_wait_ns; /* NBD_FOREVER: none */
	struct nbd_resolver *resolver;                   /* NULL: no name is to be resolved */
	unsigned nr_connections;
	struct nbd_handle *handles[NBD_LINKS_MAX]; /* from open() until a queue takes them */
	struct nbd_journal journal;
	struct nbd_segment *segments; /* one a queue */
	unsigned nr_segments;
	bool has_predecessor;       /* NBD_INHERITED was acknowledged, and nobody keeps it */
	int first_flush;            /* errno of the one at the start; libnbd's as last_flush */
	atomic_int pending_error;   /* -errno that the next flush ends with; 0: none */
	atomic_bool flush_soon;     /* much was sent again: better not to keep it any longer */
	atomic_bool flushing;       /* a queue has a flush of our own under way */
	_Atomic uint64_t seen_size; /* the largest that a connection was told of */
	_Atomic uint64_t connection_sizes[NBD_LINKS_MAX]; /* that each connection was told of */
	atomic_uint returns;     /* how often a connection was made again */
	atomic_uint nr_up;       /* connections that are connected: JOINING, READY */
	atomic_uint ghosts;      /* old connections that are not over */
	struct nbd_ghost *ghost; /* NBD_GHOSTS a connection */
	struct nbd_ghost_range *ghost_ranges;
	atomic_bool halt;           /* every queue is to hold still */
	_Atomic uint64_t alive_ns;  /* when the server last answered or negotiated, anywhere */
	_Atomic uint64_t probed_ns; /* since when it is probed */
	_Atomic(struct nbd_connection *) prober; /* that probes for all; NULL: nobody */

	pthread_mutex_t gate;      /* guards what follows; taken only while I/O waits anyway */
	struct nbd_queue **queues; /* by index; NULL: not serving */
	unsigned nr_serving, nr_parked;
	uint64_t suspect_order; /* NBD_GAUGE_IN_DOUBT is about what has a number below it */
	uint64_t halts;         /* how often everything was let go again, plus 1 */
	uint64_t replays_begun, replays_done;
	_Atomic(struct nbd_queue *) leader; /* that sends again; NULL: nobody */
	/* The leader's own: */
	struct nbd_connection *replay_connection;
	const struct nbd_kept **cursors; /* the next of each segment; one a queue */
	struct nbd_replay_slot slots[NBD_REPLAYS];
	uint64_t replayed;
	unsigned replay_cuts; /* as nbd_io.cuts */
};

/* ---- nbd.c ---- */

/* For a connection to be made: no longer than an answer may take. */
static inline unsigned nbd_connect_ms(const struct nbd *nbd)
{
	uint64_t ms = nbd->timeout_ns / NBD_NS_PER_MS;

	return ms < NBD_CONNECT_MS ? (unsigned)ms : NBD_CONNECT_MS;
}
/* How long an old connection is waited for; UINT64_MAX: without bound. */
static inline uint64_t nbd_ghost_wait_ms(const struct nbd *nbd)
{
	return nbd->ghost_wait_ns == NBD_FOREVER ? UINT64_MAX : nbd->ghost_wait_ns / NBD_NS_PER_MS;
}
/* A gauge of the export's. */
void nbd_gauge_add(struct nbd *nbd, enum nbd_gauge gauge, int64_t change);
/* A server said how big its export is, on a connection or elsewhere. */
void nbd_saw_size(struct nbd *nbd, uint64_t size);
/* A connection can be used for an export of that size. */
void nbd_connection_size(struct nbd *nbd, unsigned conn, uint64_t size);
/* Whether an earlier worker's writes are not flushed yet, which last as long as its connection. */
static inline bool nbd_has_inherited(struct nbd *nbd)
{
	return nbd->has_predecessor && atomic_load(&nbd->journal.stable) <= NBD_INHERITED;
}
/* A connection is lost: whether with the server, only a flush will tell. */
void nbd_suspect_loss(struct nbd *nbd);
/* A flush has succeeded that covers so much, or an earlier loss was told. */
void nbd_flushed(struct nbd *nbd, uint64_t covered);
/* A flush or replay failed for good: what was acknowledged may be lost. */
void nbd_set_lost(struct nbd *nbd, int code, const char *what);

/* ---- request.c ---- */

void nbd_list_init(struct nbd_list *list);
/* The backend's submit(): the request is sent at the end of the round. */
void nbd_submit(struct io *io);
/* Sends what waits, as far as it goes. */
void nbd_send_waiting(struct nbd_queue *q);
/* Fails what has waited for the end of an old connection for longer than reconnect-deadline. */
void nbd_fail_held(struct nbd_queue *q);
/* Ends all that waits with result, -errno. */
void nbd_fail_waiting(struct nbd_queue *q, int result);
/* The connection that has least to do; NULL: none is ready, or all hold still. */
struct nbd_connection *nbd_free_connection(struct nbd_queue *q);
/* A connection is lost: what it had waits to be sent again. */
void nbd_take_back(struct nbd_queue *q, struct nbd_connection *conn);
/* The age of the oldest request that the connection has: when it was sent; 0: it has none. */
uint64_t nbd_oldest_sent(const struct nbd_queue *q, const struct nbd_connection *conn);
/* The most cuts of what the connection has. */
unsigned nbd_most_cuts(const struct nbd_queue *q, const struct nbd_connection *conn);
/* The connection is given up over its silence: what it has for a whole time-out has more time. */
void nbd_count_cuts(struct nbd_queue *q, struct nbd_connection *conn);
/* Whether so much is kept that a flush is due, and sending that, if it can be. */
bool nbd_is_full(const struct nbd_queue *q);
void nbd_flush_if_full(struct nbd_queue *q);

/* ---- list.c ---- */

int nbd_list(const struct instance *instance, backend_found_callback *found, void *context,
	     struct error *err);

/* ---- connection.c ---- */

/* Whether its connection has ended, and libnbd knows. */
static inline bool nbd_connection_is_dead(struct nbd_handle *handle)
{
	return nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle);
}
/*
 * handle: the connection's from now on; it was connected, and is made anew where it is dead.
 * Returns 0, or -errno with err filled; nbd_connection_end() is due in either case.
 */
int nbd_connection_start(struct nbd_connection *conn, struct nbd_queue *owner, unsigned number,
			 struct nbd_handle *handle, struct error *err);
/* Where it is READY, and nothing is in flight: tells the server that it ends. */
void nbd_connection_leave(struct nbd_connection *conn);
/* Ends it; where it was left, the server is given until then (clock_ms()). */
void nbd_connection_end(struct nbd_connection *conn, uint64_t until_ms);
/* After libnbd was called: sees whether it has died of it. */
void nbd_connection_look(struct nbd_connection *conn);
/* Every so often: time-outs, and the next try. */
void nbd_connection_tick(struct nbd_connection *conn);
/* At the end of a round: watches what is to be watched. */
void nbd_connection_watch(struct nbd_connection *conn);
/* Requests that are sent until it is uncorked may share packets. */
void nbd_connection_cork(struct nbd_connection *conn, bool on);
/* Whether it has joined, that is, takes requests. */
void nbd_connection_ready(struct nbd_connection *conn);
/* reason NULL: that was told already. */
void nbd_connection_lost(struct nbd_connection *conn, const char *reason);
/*
 * libnbd calls back for a request that was sent at sent_ns.  Returns whether the server has
 * answered it; if not, the connection is lost by the end of libnbd's call.
 */
bool nbd_connection_answered(struct nbd_connection *conn, uint64_t sent_ns, int error);

/* ---- ghost.c ---- */

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

/* ---- silence.c ---- */

/* On each tick: why the connection is to be given up; NULL: it is not. */
const char *nbd_silence_fault(struct nbd_connection *conn);
/* The connection has negotiated. */
void nbd_silence_met(struct nbd_connection *conn);
/* The connection is lost, or ends. */
void nbd_silence_end(struct nbd_connection *conn);

/* ---- replay.c ---- */

void nbd_replay_open_queue(struct nbd_queue *q);
void nbd_replay_close_queue(struct nbd_queue *q);
/* Has every queue do a round. */
void nbd_replay_wake(struct nbd *nbd);
/* A connection of q is connected. */
void nbd_replay_join(struct nbd_queue *q, struct nbd_connection *conn);
/* At the end of a round: holds still, leads, goes on, as it is due. */
void nbd_replay_round(struct nbd_queue *q);
/* A connection of the leader's was lost, or its queue ends. */
void nbd_replay_abandon(struct nbd_connection *conn);
/* Of what is being sent again over connection, when the oldest was sent; 0: nothing is. */
uint64_t nbd_replay_oldest_sent(const struct nbd_connection *conn);

#endif
