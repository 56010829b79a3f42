/* SPDX-License-Identifier: MIT */
/*
 * The data of the nbd backend's parts. Their calls stand in a header each; a part calls those
 * above it in this list, never one below (tests/unit/test-layers.sh):
 *
 *   uri           the parts of its URI
 *   resolve       host names, looked up on a thread of their own
 *   dial          several addresses, tried side by side
 *   explain       libnbd's errors in the user's terms
 *   server        libnbd's set-up for a server, and what the server says of its export
 *   tls           key and certificate files, checked; the kernel's TLS
 *   connect       an attempt to connect: name, addresses, negotiation
 *   list          the exports that a server has
 *   cover         which parts of a read have come
 *   journal       acknowledged writes that no flush has covered
 *   loss          whether acknowledged writes may be lost
 *   queues        the export's queues, as they wake each other
 *   outage        what is reported of a server that is away, or partly
 *   ghost         old sockets, whose server may still carry out their requests
 *   command       commands in flight, found by their cookies
 *   reply         the server's replies to them
 *   wire          commands and replies on the ring, in place of libnbd
 *   connection    a connection: made, watched, lost, made again
 *   replay        steps that come before a new connection may be used
 *   request       a request: sent, answered, sent again
 *   flush         flushes of our own: at the start, in between, at the end
 *   silence       a connection that is silent: whether the server is slow or gone
 *   nbd           the backend: its options, its start, rounds and end
 *
 * A connection outlives its sockets: it is made again and again. It belongs to one queue, and
 * libnbd's handle in it is only touched by that queue's thread. Connections never move between
 * queues. A connection reports by struct nbd_connection_events that it is connected or lost.
 */
#ifndef UBLKD_NBD_H
#define UBLKD_NBD_H

#include <pthread.h>

#include "backends/nbd/connect.h"
#include "backends/nbd/cover.h"
#include "backends/nbd/journal.h"
#include "backends/nbd/server.h"
#include "backends/nbd/wire.h"

#define NBD_LINKS_MAX      64  /* connections of an export */
#define NBD_TICK_MS        100 /* how exactly time is kept */
#define NBD_REPLAYS        32  /* sent again at the same time */
#define NBD_FOREVER        UINT64_MAX
#define NBD_NS_PER_MS      1000000u
#define NBD_BACKOFF_MIN_MS 100u
#define NBD_BACKOFF_MAX_MS 5000u
/* A connection that stayed up this long resets the back-off. */
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

/* The sequence number of all writes that the previous worker left unflushed. */
#define NBD_INHERITED 0u
#define NBD_INHERITED_LOST \
	"the connection was lost before the server had flushed the previous worker's writes"

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
	NBD_RETAIN_JOURNAL, /* keep, and send again */
	NBD_RETAIN_NONE,    /* keep nothing; the next flush fails */
	NBD_RETAIN_TRUST,   /* the server's acknowledgement is durable */
};

enum nbd_connection_state {
	NBD_CONNECTION_DOWN,       /* waits for the time to try again */
	NBD_CONNECTION_CONNECTING, /* libnbd connects and negotiates */
	NBD_CONNECTION_JOINING,    /* waits for a replay */
	NBD_CONNECTION_READY,      /* takes requests */
};

struct nbd;
struct nbd_connection;
struct nbd_ghost;
struct nbd_ghost_range;
struct nbd_queue;

/* Calls of a connection to the parts that it does not know; on its queue's thread. */
struct nbd_connection_events {
	/* It is JOINING: nbd_connection_ready() is due once it may take requests. */
	void (*connected)(struct nbd_connection *conn);
	/* Its socket is gone: what it had in flight is to be taken back. */
	void (*lost)(struct nbd_connection *conn);
};

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

	bool suspected, logged_slow; /* it is silent; and that was logged */
	bool probes; /* probe is begun: a connection that shows if the server lives */
	struct nbd_connect probe;
	uint64_t probe_ns; /* when to begin the next one */

	bool is_tcp;
	bool kernel_tls; /* the kernel encrypts and decrypts what its socket carries */
	int fd;          /* our own descriptor of its socket; -1: none */
	struct nbd_wire *wire;
	bool on_wire; /* the wire's: it is open, and sends and receives; libnbd does not */
	struct ring_op readable, writable;
	bool polls_read, polls_write; /* the ops are with the ring */
	unsigned slot;                /* of keep_connection(), that has its socket */
	unsigned nr_ghosts;           /* its old connections that are not over */

	uint64_t ready_ns;     /* when it was last made READY */
	uint64_t trouble_ns;   /* since when it has not lasted */
	uint64_t lost_ns;      /* since when it is not READY */
	uint64_t next_ns;      /* DOWN: when to try */
	unsigned returns_seen; /* nbd->returns at its last try */
	bool retiring;         /* it gets no more requests, and is created again when it has none */
	uint64_t size_tried;   /* the export's size for which it was made again */
	uint64_t joins;        /* JOINING: the first replay that counts for it */
	int reported;          /* errno of the last refusal that was reported */
	char reported_text[256];
};

/* The backend's part of a request.  Owner: its queue. */
struct nbd_io {
	struct nbd_io *next;
	struct io *io;
	struct nbd_connection *conn; /* that has it; NULL: none */
	uint64_t sent_ns;
	uint64_t held_ns;      /* since when it waits for an old connection's end; 0: it does not */
	unsigned cuts;         /* connections given up over it for its age: each doubles its time */
	uint64_t covers;       /* a flush: what it covers */
	struct nbd_kept *kept; /* its place in the journal, with a write's data; NULL: none */
	bool has_data;         /* a write's data is where it is sent from */
	const void *came;      /* a read: where its data has come; NULL: it is zero */
	bool garbled;          /* a structured read by libnbd: its chunks overlap */
	struct nbd_cover cover; /* a structured read by libnbd: what has come */
};

/* Requests, first in first out. */
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
	uint64_t last_flush_sent_ns;
	unsigned flush_cuts; /* as nbd_io.cuts */
	int last_flush;      /* errno of the flush at the end; libnbd may still have it then */
	uint64_t stable_seen;
	uint64_t stalled_ns; /* since when nothing could be sent; 0: it can */
	bool server_up;      /* when last looked at: some queue reaches the server */
	bool failing;        /* the deadline has passed: errors at once */
	bool cut_off;        /* it counts in nbd->nr_cut_off; its own thread's */
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
	const struct nbd_connection_events *events;
	struct nbd_handle *handles[NBD_LINKS_MAX]; /* from open() until a queue takes them */
	struct nbd_journal journal;
	struct nbd_segment *segments; /* one a queue */
	unsigned nr_segments;
	bool has_predecessor;       /* NBD_INHERITED was acknowledged, and nobody keeps it */
	int first_flush;            /* errno of the one at the start; libnbd's as last_flush */
	atomic_int pending_error;   /* -errno that the next flush ends with; 0: none */
	atomic_bool flush_soon;     /* much was sent again: better not to keep it any longer */
	atomic_bool flushing;       /* a queue has a flush of our own under way */
	_Atomic uint64_t seen_size; /* the largest that the server stated on any connection */
	_Atomic uint64_t connection_sizes[NBD_LINKS_MAX]; /* stated on each connection */
	atomic_uint returns;     /* how often a connection was made again */
	atomic_uint nr_up;       /* connections that are connected: JOINING, READY */
	atomic_uint ghosts;      /* old connections that are not over */
	struct nbd_ghost *ghost; /* NBD_GHOSTS a connection */
	struct nbd_ghost_range *ghost_ranges;
	atomic_bool silent;         /* the server is reported as silent */
	atomic_bool halt;           /* every queue is to hold still */
	_Atomic uint64_t alive_ns;  /* when the server last answered or negotiated, anywhere */
	_Atomic uint64_t probed_ns; /* since when it is probed */
	_Atomic(struct nbd_connection *) prober; /* that probes for all; NULL: nobody */

	pthread_mutex_t outage_lock; /* guards these; taken at changes only, before no other lock */
	unsigned nr_cut_off;         /* queues that have had no connection for a while */
	unsigned nr_failing;         /* queues whose I/O fails, as reconnect-deadline is over */
	bool ailing;                 /* a cause of outage.c was reported since all was well */
	char outage_reason[256]; /* why the last connection was lost or refused; "": all is well */

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
static inline void nbd_gauge_add(struct nbd *nbd, enum nbd_gauge gauge, int64_t change)
{
	__atomic_fetch_add(&nbd->instance->gauges[gauge], (uint64_t)change, __ATOMIC_RELAXED);
}

#endif
