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
 * below the one that the flush started with, and is covered by it.  Those that one
 * round of a queue acknowledges share a number: all of their answers had come
 * before it was given out.
 */
#ifndef UBLKD_NBD_JOURNAL_H
#define UBLKD_NBD_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owner: the export.  Any thread. */
struct nbd_journal {
	/* What each queue reads in each round does not share a line with what they write. */
	_Atomic uint64_t order __attribute__((aligned(64))); /* the next acknowledgement's number */
	_Atomic uint64_t stable __attribute__((aligned(64))); /* what has a number below it is on
								  stable storage */
	uint64_t *bytes; /* taken by what is kept or in flight, and the allowances; atomic */
	uint64_t bound;  /* of bytes; 0: nothing is kept */
};

/*
 * A write, zeroing or trim: from nbd_segment_reserve() on, before it is sent; kept in the order of
 * acknowledgements once it has a number.  Owner: the segment.
 */
struct nbd_kept {
	struct nbd_kept *next; /* kept: acknowledged later; free: its successor in that list */
	uint64_t order;
	uint64_t offset; /* bytes, as is length */
	uint32_t length;
	uint8_t op;          /* enum io_op */
	uint8_t flags;       /* IO_FUA, IO_KEEP */
	uint8_t kind;        /* of places.  The segment's, as is warm */
	bool warm;           /* free: memory may still be behind data */
	unsigned char *data; /* a write's, of length bytes: it is sent from there */
};

/* Places of one size, of which each belongs to a record. */
struct nbd_places {
	struct nbd_kept *records;
	unsigned char *data; /* size bytes a record */
	size_t size;         /* 0: of operations without data */
	size_t nr, used;     /* all; those that were ever taken, from the first one on */
	size_t usable;       /* those whose addresses may be written to */
	size_t taken;
	struct nbd_kept *free; /* last freed first; those without memory come last */
};

/* 4 KiB to 64 MiB, and none. */
#define NBD_KINDS 16

/* Owner: a queue, on its thread; others read it only while that queue holds still. */
struct nbd_segment {
	struct nbd_journal *journal;
	void *arena; /* NULL: nothing is kept */
	size_t size;
	unsigned nr_kinds;
	struct nbd_places places[NBD_KINDS];
	struct nbd_kept *first, **last; /* acknowledged, by order */
	size_t taken;                   /* bytes of all places that are */
	size_t nr_taken;
	/* Bytes of the bound that the queue has, and no operation: it takes and returns many at once. */
	size_t allowance, chunk;
	uint64_t round, number; /* the last one with an acknowledgement, and that one's number */
	size_t warm;            /* bytes of free places with memory */
	size_t peak;            /* the most that was taken in the last seconds */
	size_t own;             /* so much is not given back */
	bool is_starved;        /* the system refused memory for a place: a flush is due */
};

/*
 * Memory for what one of nr_segments queues may keep, of operations of at most max_io
 * bytes.  It takes room when used, not before.  Returns 0, or -ENOMEM.
 */
int nbd_segment_open(struct nbd_segment *segment, struct nbd_journal *journal, uint32_t max_io,
		     unsigned nr_segments);
void nbd_segment_close(struct nbd_segment *segment);

/*
 * Gives back memory that the segment has used and does not need now, beyond its part of half the
 * bound and what it has needed of late: or each segment would in time hold as much as all may
 * together.  Every so often, on the queue's thread.
 */
void nbd_segment_trim(struct nbd_segment *segment);
/* Whether there is more to give back, in time. */
static inline bool nbd_segment_is_large(const struct nbd_segment *segment)
{
	return segment->warm && segment->warm + segment->taken > segment->own;
}

/* The largest operation that may be sent where so much is kept at most. */
uint64_t nbd_journal_max_io(uint64_t bound);

/*
 * Sets a place aside for an operation, before it is sent; a write's data is to be brought to its
 * data.  NULL: there is no room now, or no memory (is_starved).  To be given to nbd_segment_keep() or nbd_segment_release().
 */
struct nbd_kept *nbd_segment_reserve(struct nbd_segment *segment, uint8_t op, uint8_t flags,
				     uint64_t offset, uint32_t length);
/* It was not acknowledged, and never will be. */
void nbd_segment_release(struct nbd_segment *segment, struct nbd_kept *kept);
/*
 * The number of an operation that is acknowledged.  round: the queue's, in which its answer was
 * there from the start (queue_round()); 0: the answer may have come since, so that it gets a number
 * of its own.
 */
static inline uint64_t nbd_segment_number(struct nbd_segment *segment, uint64_t round)
{
	if (!round || round != segment->round) {
		segment->round = round;
		segment->number = atomic_fetch_add(&segment->journal->order, 1);
	}
	return segment->number;
}
/* An operation was acknowledged in that round: gets its number, and is kept. */
void nbd_segment_keep(struct nbd_segment *segment, struct nbd_kept *kept, uint64_t round);

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

/* The oldest kept operation, of those that were acknowledged; NULL: none.  Its next one follows. */
static inline const struct nbd_kept *nbd_segment_first(const struct nbd_segment *segment)
{
	return segment->first;
}

#endif
