/* SPDX-License-Identifier: MIT */
/*
 * Writes that a server has acknowledged and no flush has covered yet.
 *
 * A server that comes back may have lost it, and a flush on the new connection
 * would succeed over the hole.  So each such write, zeroing and trim is kept
 * until a flush covers it, and sent again, in the order of the acknowledgements,
 * before anything else on a new connection (replay.c).  FUA writes are kept
 * too: an older write that is sent again must not be the last word over one.
 *
 * A journal is an export's; a segment is a queue's part of it, written by that
 * queue's thread only.  The order of acknowledgements is one number for all
 * queues: an operation that was answered before a flush was sent has a number
 * below the one that the flush started with, and is covered by it.
 */
#ifndef UBLKD_NBD_JOURNAL_H
#define UBLKD_NBD_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owner: the export.  Any thread. */
struct nbd_journal {
	_Atomic uint64_t order;  /* the next acknowledgement's number */
	_Atomic uint64_t stable; /* what has a number below it is on stable storage */
	uint64_t *bytes;         /* kept, or set aside for operations in flight; atomic */
	uint64_t bound;          /* of bytes; 0: nothing is kept */
};

/* An operation.  Owner: the segment, from nbd_segment_keep() to nbd_segment_drop(). */
struct nbd_kept {
	uint64_t order;
	uint64_t offset; /* bytes, as is length */
	uint32_t length;
	uint32_t record; /* bytes of the segment that it takes, this struct included */
	uint8_t op;      /* enum io_op; IO_OPS: nothing, the rest of the segment's end */
	uint8_t flags;   /* IO_FUA, IO_KEEP */
	unsigned char data[] __attribute__((aligned(16))); /* a write's */
};

/* Owner: a queue, on its thread; others read it only while that queue holds still. */
struct nbd_segment {
	struct nbd_journal *journal;
	unsigned char *arena;
	size_t size;
	size_t head, tail; /* oldest, next; head == tail: nothing is kept */
	size_t touched;    /* the memory behind it was never used, or given back */
	size_t own;        /* so much is not given back */
};

/*
 * Memory for what one of nr_logs queues may keep, of operations of at most max_io
 * bytes.  It takes room when used, not before.  Returns 0, or -ENOMEM.
 */
int nbd_segment_open(struct nbd_segment *segment, struct nbd_journal *journal, uint32_t max_io,
		     unsigned nr_segments);
void nbd_segment_close(struct nbd_segment *segment);

/*
 * Gives back what the segment has used and does not need now, beyond its part of half
 * the bound: or each segment would in time hold as much as all may together.  Every
 * so often, on the queue's thread.
 */
void nbd_segment_trim(struct nbd_segment *segment);

/* The largest operation that may be sent where so much is kept at most. */
uint64_t nbd_journal_max_io(uint64_t bound);

/*
 * Sets room aside for an operation with `data` bytes to keep, before it is sent.
 * Returns the room, to be given to nbd_segment_keep() or nbd_journal_release(); 0: there is
 * none now.  Any thread.
 */
uint32_t nbd_journal_reserve(struct nbd_journal *journal, uint32_t data);
void nbd_journal_release(struct nbd_journal *journal, uint32_t room);

/*
 * An operation was acknowledged: gives it its number and keeps it in the room
 * that was set aside for it.  data: a write's, else NULL.
 */
void nbd_segment_keep(struct nbd_segment *segment, uint32_t room, uint8_t op, uint8_t flags,
		      uint64_t offset, uint32_t length, const void *data);
/* The same where nothing is kept: only the number counts.  Any thread. */
static inline void nbd_journal_acknowledged(struct nbd_journal *journal)
{
	atomic_fetch_add(&journal->order, 1);
}

/* Lets go of what is on stable storage by now.  Returns whether that was anything. */
bool nbd_segment_drop(struct nbd_segment *segment);

/* A flush is about to be sent; what it covers if it succeeds. */
static inline uint64_t nbd_journal_flush_begins(struct nbd_journal *journal)
{
	return atomic_load(&journal->order);
}
/* The flush has succeeded, on a server that had all of it. */
void nbd_journal_flushed(struct nbd_journal *journal, uint64_t covered);

/* Whether something was acknowledged that no flush has covered. */
static inline bool nbd_journal_has_unflushed(struct nbd_journal *journal)
{
	return atomic_load(&journal->order) > atomic_load(&journal->stable);
}

/* The oldest kept operation; after `kept`, the next; NULL: none. */
const struct nbd_kept *nbd_segment_first(const struct nbd_segment *segment);
const struct nbd_kept *nbd_segment_next(const struct nbd_segment *segment,
					const struct nbd_kept *kept);

#endif
