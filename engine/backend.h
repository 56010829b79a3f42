/* SPDX-License-Identifier: MIT */
/*
 * A backend's contract, and all that it may see of the engine.
 *
 * A backend is one file in backends/ that ends in BACKEND_REGISTER().  It opens
 * the storage that a locator and options name, says how big it is and what it
 * can do, and then answers each request with exactly one io_complete().  How a
 * request's data crosses between the kernel and the backend is the engine's
 * affair: the backend says in `access` what it needs, and uses the calls of that
 * kind of access only.
 *
 * Threads: open and close run on the thread that owns the device.
 * From queue_open to queue_close everything for a queue runs on that queue's
 * one thread; different queues run at the same time.
 */
#ifndef UBLKD_BACKEND_H
#define UBLKD_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/log.h"
#include "common/old_socket.h"
#include "common/option.h"
#include "engine/health.h"
#include "engine/ring_op.h"

struct instance;
struct msghdr;
struct queue;

/* ---- one request ---- */

enum io_op {
	IO_READ,
	IO_WRITE,
	IO_FLUSH,
	IO_DISCARD,      /* the range's content is no longer needed */
	IO_WRITE_ZEROES, /* the range must read as zeroes from now on */
	IO_OPS
};

#define IO_FUA  1u /* write: on stable storage before it completes */
#define IO_KEEP 2u /* write zeroes: the range stays allocated */
/* The engine's own: zero copy, and the driver could not register this request's pages. */
#define IO_UNREGISTERED 128u

/*
 * Owner: its queue; valid between submit() and io_complete(), on the queue's
 * thread.  A backend reads it and writes nothing in it.
 */
struct io {
	struct queue *queue;
	uint64_t offset; /* bytes; a multiple of the logical block size, as is length */
	uint32_t length; /* bytes; 0 for a flush */
	uint16_t tag;    /* of the queue; no two requests in flight share one */
	uint8_t op;      /* enum io_op */
	uint8_t flags;   /* IO_FUA, IO_KEEP; others are not a backend's */
};

/*
 * Ends a request, once.  result is the bytes done for a read or write (fewer
 * than length count as EIO: a backend goes on with the rest, or has a better word),
 * anything >= 0 for the other operations, or -errno.
 * May be called from within submit(), from a callback below, or later on the
 * queue's thread.
 */
void io_complete(struct io *io, int result);

/* Ends a read, once, with all its data zero. */
void io_complete_zeroes(struct io *io);

/* The io_size bytes that the backend has for each tag; zeroed once, at start. */
void *io_private(struct io *io);

/* ---- access RING: the request is I/O on a descriptor ---- */

typedef void io_callback(struct io *io, int result); /* result: bytes, 0, or -errno */

/*
 * Reads from, or writes to, the file that queue_add_file() gave, all but the first
 * skip bytes of the request's data, at file_offset + skip; rw_flags are RWF_*.
 * done is called with what the kernel returned.
 */
void io_transfer(struct io *io, int file, uint64_t file_offset, uint32_t skip, int rw_flags,
		 io_callback *done);
/* fdatasync(2) on the file; done is called with 0 or -errno.  Any access. */
void io_datasync(struct io *io, int file, io_callback *done);
/* fallocate(2), off the queue's thread; done is called with 0 or -errno.  Access MEMORY, too. */
void io_fallocate(struct io *io, int file, int mode, uint64_t offset, uint64_t length,
		  io_callback *done);
/* Discards a range of a block device (Linux 6.12); done is called with 0 or -errno. */
void io_blkdiscard(struct io *io, int file, uint64_t offset, uint64_t length, io_callback *done);

/* ---- access MEMORY: the request is a copy to or from addresses ---- */

/*
 * at is the byte in the request where the copy starts.  Each returns 0, or
 * -errno: then the request must be completed with that error.  Access SOCKET, too.
 */
int io_copy_to(struct io *io, uint32_t at, const void *from, uint32_t length); /* a read's answer */
int io_copy_from(struct io *io, uint32_t at, void *to, uint32_t length);       /* a write's data */
int io_fill_zero(struct io *io, uint32_t at, uint32_t length);                 /* a read's answer */

/* ---- access POINTER: a library must see the bytes ---- */

/* The request's data, length bytes: a write's to read, a read's to fill. */
void *io_data(struct io *io);

/*
 * ---- access SOCKET: the request's data is sent and received ----
 *
 * Each part of the data is copied by the backend, with the calls of access MEMORY, to or from a
 * place of the backend's own, or this one: io_data() is a buffer of length bytes for the request,
 * which holds nothing and from which nothing is taken until the backend copies.  On some I/O paths
 * the copy of a part between io_data() and the same part of the request costs nothing:
 *
 *   io_copy_from(io, at, io_data(io) + at, n)   a write's data is in io_data() from then on
 *   io_copy_to(io, at, io_data(io) + at, n)     a part of a read was received there
 */

/* ---- the queue, as a backend sees it ---- */

void *queue_private(struct queue *queue); /* queue_size bytes, zeroed */
struct instance *queue_instance(struct queue *queue);
unsigned queue_index(const struct queue *queue);
/*
 * From queue_open() only: makes fd known to the queue's ring; fd stays the
 * caller's and open until queue_close().  Returns its number for io_transfer() and
 * the like, or -errno.
 */
int queue_add_file(struct queue *queue, int fd);

/*
 * Other events for a backend, from queue_open() on and on the queue's thread.
 * Each op is told once, on that thread (or never, if the queue ends before); it
 * must stay until then, and is not given twice at a time.
 */

/*
 * Until fd (which must stay open) is ready for one of events (POLLIN … of poll(2));
 * result: the events that are there, or -errno.
 */
void queue_poll(struct queue *queue, struct ring_op *op, int fd, unsigned events);

struct queue_timer {
	struct ring_op op; /* result: -ETIME once it has passed, or -ECANCELED */
	long long sec, nsec;
};
/* Until ns nanoseconds have passed (CLOCK_MONOTONIC). */
void queue_timer(struct queue *queue, struct queue_timer *timer, uint64_t ns);

/* Ends the wait of an op: its result will be -ECANCELED, where it has not come just now. */
void queue_cancel(struct queue *queue, struct ring_op *op);

/*
 * Sends message (which must stay, with all that it names) on a stream socket; all: the whole of
 * it, else what the socket has room for. result: the bytes sent, fewer than all where the
 * connection broke, or -errno: -EOPNOTSUPP for all on a socket with TLS by the kernel.
 */
void queue_send(struct queue *queue, struct ring_op *op, int fd, const struct msghdr *message,
		bool all);
/*
 * Receives from a stream socket; all: as many bytes as there is room for, else what there is.
 * result: the bytes, 0 at the stream's end, fewer than all where it broke, or -errno.
 */
void queue_receive(struct queue *queue, struct ring_op *op, int fd, void *buffer, size_t length,
		   bool all);
/*
 * Ends a send or receive: from the return on the kernel uses neither its buffers nor its
 * descriptor.  Its op is told all the same, later. (IORING_REGISTER_SYNC_CANCEL: Linux 6.0.)
 */
void queue_cancel_now(struct queue *queue, struct ring_op *op);
/*
 * In queue_close() alone: takes completions until done(context), and no new requests.  Returns
 * done(context), false after ms.
 */
bool queue_run_until(struct queue *queue, bool (*done)(const void *context), const void *context,
		     unsigned ms);

/* CLOCK_MONOTONIC in nanoseconds, as of when this round's completions were taken. */
uint64_t queue_now_ns(const struct queue *queue);

/*
 * Which round it is, from 1 on.  All completions that are told in one round were there when it
 * began.
 */
uint64_t queue_round(const struct queue *queue);

/* Has the queue do a round, with its round_end(), soon.  Any thread. */
void queue_wake(struct queue *queue);

/* ---- the instance: an export, opened ---- */

/* Limits of the storage; filled by open(), sizes in bytes. */
struct backend_limits {
	uint64_t size;                /* a multiple of logical_block; not 0 */
	uint32_t logical_block;       /* 512 to 4096, a power of 2; the smallest request */
	uint32_t physical_block;      /* >= logical_block; 0: the same */
	uint32_t min_io;              /* preferred least; 0: unknown */
	uint32_t opt_io;              /* preferred; 0: unknown */
	uint32_t max_io;              /* the largest read or write; 0: no bound of its own */
	uint32_t discard_granularity; /* 0: logical_block */
	uint32_t max_discard;         /* the largest; 0: it cannot */
	uint32_t max_write_zeroes;    /* the largest; 0: it cannot */
	bool read_only;
	bool rotational;
	bool volatile_cache; /* a completed write may be lost until flushed */
	bool fua;            /* IO_FUA is honoured (needs volatile_cache) */
	/* The backing device's demands on memory that it does I/O on itself (zero copy). */
	uint32_t dma_align;    /* bytes, a power of 2; 0: any */
	uint32_t max_segments; /* 0: these three are unknown */
	uint32_t max_segment_size;
	uint64_t seg_boundary_mask;
	unsigned max_queues; /* that it can serve; 0: any number */
};

/* Opens files for a backend: the process itself (engine/host_local.h), or one with the right to. */
struct backend_host {
	/*
	 * open(2) of a path that the export's locator or options name.  Returns a
	 * descriptor that the caller owns, or -errno.  Device's thread.
	 */
	int (*open_file)(struct instance *instance, const char *path, int flags, unsigned mode);
	/* unlink(2) of a file that open_file() has created. */
	void (*remove_file)(struct instance *instance, const char *path);
	/*
	 * A memfd (memfd_create(2) with flags, in addition to MFD_CLOEXEC) for content
	 * that is to outlive this process: for OPEN_TAKEOVER the one that the
	 * earlier worker had.  The caller's to close; -errno.  Device's thread.
	 */
	int (*keep_memory)(struct instance *instance, unsigned flags);
	/*
	 * Optional.  Tells of a connection on which writes go to a server: should this
	 * process die, the host shuts it, and lets no other process serve the device before
	 * that connection is over (old_socket.h), or wait_ms have passed since (UINT64_MAX:
	 * without bound), so that nothing old is carried out after something newer.  slot
	 * (below HOST_CONNECTIONS): fd takes the place of the connection before it there; -1:
	 * that one is over.  fd stays the caller's.  Any thread; does not wait.
	 */
	void (*keep_connection)(const struct instance *instance, unsigned slot, int fd,
				uint64_t wait_ms);
	/*
	 * Connects to the Unix socket at a path that the export's locator or options name.
	 * Returns a stream socket, close-on-exec and non-blocking, that the caller owns,
	 * or -errno: EAGAIN where its server's backlog is full, ENAMETOOLONG, ENOTCONN
	 * where the host is away for now.  Any thread; never waits for the server.
	 */
	int (*connect_unix)(const struct instance *instance, const char *path);
};

#define HOST_CONNECTIONS 256u

/* A backend's needs of its surroundings; with a path where one is said. */
enum backend_need {
	NEED_NETWORK,       /* makes network connections */
	NEED_NAMES,         /* resolves host names */
	NEED_AUTHORITIES,   /* reads the system's certificate authorities */
	NEED_FILE,          /* path: opens this file for reading, by itself, at any time */
	NEED_DIRECTORY,     /* path: the same for the files in this directory */
	NEED_HOST_FILE,     /* path: the host opens this file, for writing unless read-only */
	NEED_HOST_NEW_FILE, /* path: the host may make it first, and remove what it made */
	NEED_HOST_READ,     /* path: the host opens this file or directory for reading */
	NEED_HOST_QUEUE,    /* the host opens, for reading, what /sys says of block devices' queues
			       and identifiers: /sys/dev/block/MAJOR:MINOR/queue/NAME, diskseq,
			       wwid ..., or ../queue/NAME and so on for a partition */
	NEED_HOST_SOCKET,   /* path: the host connects to this Unix socket */
};
/* path is valid during the call; NULL where the need has none. */
typedef void backend_need_callback(void *context, enum backend_need need, const char *path);

/* Why a backend opens the storage. */
enum open_reason {
	OPEN_FIRST, /* for a new device */
	OPEN_AGAIN, /* for a new device of an export that had one: open() may find what it made then */
	OPEN_TAKEOVER, /* for a live device, in the place of an earlier worker */
};

#define INSTANCE_GAUGES 8
#define IDENTITY_BYTES  384

/*
 * An export as one process serves it: what the user asked for, what open() found and what
 * the backend keeps.  Owner: the engine.  Constant after open(), limits.size, grown and
 * gauges aside.
 */
struct instance {
	const struct backend *backend;
	const char *name;                   /* for messages */
	const char *uri;                    /* as the user wrote it */
	const char *locator;                /* the URI after "scheme:" */
	const struct option_value *options; /* one for each of backend->options */
	const struct backend_host *host;
	bool read_only; /* asked for */
	enum open_reason reason;
	bool was_live;       /* the device has been live since open(), or before it */
	uint32_t block_size; /* logical, asked for; 0: as the backend likes */
	unsigned nr_queues;  /* at the most; the kernel may make fewer */
	unsigned depth;      /* tags a queue */
	uint32_t max_io;     /* bytes of the largest request, asked for */
	/* The live device's logical block size for OPEN_TAKEOVER, else 0. */
	uint32_t live_block;
	struct backend_limits limits;
	uint64_t grown;  /* bytes that the storage has by now; 0: limits.size.  Atomic */
	int grown_event; /* an eventfd, written with it, and with each change of conditions */
	struct conditions *conditions; /* instance_report()'s; NULL: nobody wants to know */
	void *private;                 /* instance_size bytes, zeroed */
	/*
	 * What makes it the same storage if it is opened again by another server;
	 * filled by open(), empty where nothing tells.
	 */
	char identity[IDENTITY_BYTES];
	int *lost;        /* see instance_lost() */
	uint64_t *gauges; /* one for each name in backend->gauges, INSTANCE_GAUGES at most;
				   any thread, with relaxed atomics */
};

/*
 * The storage has grown to size bytes: the device follows, where the kernel can
 * (Linux 6.16), and requests beyond the former size come only then.  A size that
 * is not larger changes nothing: a live device never shrinks.  Any thread.
 */
void instance_grow(struct instance *instance, uint64_t size);

/*
 * -errno of the first flush that failed, 0 where none has: from then on every flush
 * must, whoever serves the device, until it is exported again.  Any thread.
 */
static inline int instance_lost(const struct instance *instance)
{
	return __atomic_load_n(instance->lost, __ATOMIC_RELAXED);
}
/* Returns true for the first. */
static inline bool instance_set_lost(struct instance *instance, int code)
{
	int none = 0;

	return __atomic_compare_exchange_n(instance->lost, &none, code, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

/*
 * A cause of trouble is there, in detail as printf(3) has it; again for another detail. It is
 * there until instance_resolve(). Both do nothing where nothing changes, take a lock for that,
 * and are for changes, not for each request. Any thread.
 */
void instance_report(struct instance *instance, enum health_cause cause, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void instance_resolve(struct instance *instance, enum health_cause cause);

/*
 * A cause that comes and goes with requests, last at *last_ms (clock_ms(); 0: it is not there),
 * did not come with this one: it is over once it has not come for HEALTH_SETTLE_MS.
 */
void instance_settle(struct instance *instance, enum health_cause cause, _Atomic uint64_t *last_ms);

/* The value of one of the backend's options, by name. */
const struct option_value *instance_option(const struct instance *instance, const char *name);

/*
 * Whether a file that the host opens for reading begins with a decimal number, which
 * *value is then.  Device's thread.
 */
bool instance_read_number(struct instance *instance, const char *path, uint64_t *value);

/*
 * The locator of a backend whose URI is "scheme:SIZE", in whole blocks.  Returns
 * 0, or -EINVAL with err filled.  Any thread.
 */
int instance_size(const struct instance *instance, uint64_t *size, struct error *err);

/* ---- what a server has ---- */

/* An export of a server's, as list() finds it.  Valid during the call. */
struct backend_found {
	const char *name, *description; /* the server's words: text_escape() them; description may
					   be NULL */
	const char *refused;            /* why the rest is not known; NULL: it is */
	uint64_t size;                  /* bytes, as are the blocks; a block 0: not said */
	uint32_t min_block, preferred_block, max_block;
	const char *const *abilities; /* "flush", "trim" …; NULL-terminated */
};
typedef void backend_found_callback(void *context, const struct backend_found *found);

/* ---- the backend ---- */

enum backend_access {
	ACCESS_NONE, /* reads are zeroes, writes are not looked at: io_complete_zeroes() only */
	ACCESS_RING,
	ACCESS_MEMORY,
	ACCESS_POINTER,
	ACCESS_SOCKET,
};

struct backend {
	const char *scheme;         /* "file" */
	const char *const *aliases; /* more schemes, NULL-terminated; NULL: none */
	const char *syntax;         /* "file:PATH" */
	const char *summary;        /* one line, no full stop */
	enum backend_access access;
	bool partitions;                  /* scan for partitions unless told otherwise */
	const struct option_def *options; /* NULL: none */
	const char *const *gauges;        /* names, NULL-terminated; NULL: none */
	const char *const *recorded;      /* options that record() knows, likewise */
	size_t instance_size, queue_size, io_size;

	/*
	 * Optional.  Looks at instance->locator, options and what was asked for, and
	 * touches nothing.  Returns 0, or -EINVAL with err filled.  open() may rely on
	 * it.
	 */
	int (*check)(const struct instance *instance, struct error *err);
	/*
	 * Optional: it needs nothing then.  Tells of all that it will need from open() to
	 * close(), so that a sandbox can be built around it, and a host with more rights
	 * knows what they may be used for.  Touches nothing; check() went before it.  A file
	 * may be needed that is not there.
	 */
	void (*needs)(const struct instance *instance, backend_need_callback *need, void *context);
	/*
	 * Optional.  Tells of each export that the URI's server has.  Returns 0, or -errno
	 * with err filled.
	 */
	int (*list)(const struct instance *instance, backend_found_callback *found, void *context,
		    struct error *err);
	/*
	 * Opens the storage and fills instance->limits.  Returns 0, or -errno with err
	 * filled and nothing held.
	 */
	int (*open)(struct instance *instance, struct error *err);
	void (*close)(struct instance *instance);
	/*
	 * Optional, device's thread, between open and close.  Looks again how big the
	 * storage is, and calls instance_grow(), now or later, where it has grown.  Returns
	 * 0, or -errno with err filled.
	 */
	int (*resize)(struct instance *instance, struct error *err);
	/*
	 * Optional, device's thread, between open and close.  Makes the storage size bytes
	 * large (a multiple of the logical block; smaller only if nothing uses what
	 * goes), durably.  Size 0: changes nothing, and says whether it could.  Returns 0,
	 * or -errno with err filled.
	 */
	int (*set_size)(struct instance *instance, uint64_t size, struct error *err);
	/*
	 * Optional, device's thread, with nothing in flight.  Whether this process may end
	 * and another one open the storage for the same device without a loss; where it may
	 * not, sees to it that it can.  Returns 0, -EAGAIN (not yet, err tells why: to be
	 * asked again soon) or -errno, with err filled.
	 */
	int (*settled)(struct instance *instance, struct error *err);
	/*
	 * Optional: the texts are compared.  Why storage of the identity `now` is not, or
	 * cannot be shown to be, the one of the identity `was`: a constant that begins with
	 * "it is"; NULL: it is the same.  Either may come from another version, or from
	 * a worker that nobody trusts.  Pure.
	 */
	const char *(*differs)(const char *was, const char *now);
	/*
	 * Optional, with `recorded`.  The value of one of these options with which a later
	 * open() makes the same device of the same storage, or none (false): written down
	 * where an export is declared without it.  Pure; value has IDENTITY_BYTES.
	 */
	bool (*record)(const char *option, const struct backend_limits *limits,
		       const char *identity, char *value, size_t size);
	/* Optional.  Returns 0, or -errno with err filled and nothing held. */
	int (*queue_open)(struct queue *queue, struct error *err);
	void (*queue_close)(struct queue *queue);
	/* Starts a request that ends in exactly one io_complete(). */
	void (*submit)(struct io *io);
	/* Optional: a round's requests were all submitted; send what was batched. */
	void (*round_end)(struct queue *queue);
};

/* The registered backends, in the order of their schemes' link; NULL past the last. */
const struct backend *backend_at(unsigned index);
/* By scheme; NULL where there is none. */
const struct backend *backend_find(const char *scheme);

#define BACKEND_REGISTER(vtable)                               \
	static const struct backend *const vtable##_registered \
		__attribute__((used, section("ublkd_backends"))) = &(vtable)

#endif
