/* SPDX-License-Identifier: MIT */
/*
 * The replay journal: acknowledged writes that no flush has covered, kept until one does, so that
 * they can be sent again to a server that restarted and lost them.
 *
 * Each queue has a segment in memory of its own that only its thread writes. What they share is the
 * order of acknowledgements, the bytes in use (the bound is the export's, whichever queue uses it),
 * and the order up to which a flush has covered all (stable). A queue takes a number once a round,
 * and bytes for many operations at once: no request writes what is shared.
 *
 * A place is reserved before a write is sent: once acknowledged the write must be kept, and there
 * is no way to refuse it then. Its data lies in that place from the start, is sent from there, and
 * stays there when the server has acknowledged it: then it only gets its number. A flush covers
 * what was acknowledged before the flush was sent, which nbd_journal_flush_begins() notes, and
 * nothing that was acknowledged meanwhile.
 *
 * Requests end in any order, so the places are no ring. They have sizes of powers of two, and each
 * size has an area of its own, with as many places as the bound allows of that size alone. A write
 * counts as its whole place: whatever the mixture, what has room within the bound finds a place, in
 * one piece, and nothing ever moves. That costs addresses, but no memory: only what was used has
 * memory, and the place that was freed last is taken first. The addresses become usable in steps, as
 * they are needed: where the system does not overcommit (vm.overcommit_memory=2), what is usable
 * counts as memory.
 *
 * Read nbd_segment_reserve(), nbd_segment_keep() and nbd_segment_drop(), then nbd_segment_trim().
 */
#include "backends/nbd/journal.h"
#include "engine/backend.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define PAGE 4096ul
/* Usable from the start, of each size: three places at least, so that one can always be taken. */
#define FIRST_BYTES (256ul << 10)
#define FIRST_NR    3ul

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

static size_t pages(size_t bytes)
{
	return (bytes + PAGE - 1) & ~(PAGE - 1);
}

/* The kind of places for so much data. */
static unsigned kind_of(uint32_t data)
{
	if (data <= PAGE)
		return data > 0;
	return 33 - (unsigned)__builtin_clz(data - 1) - 12;
}

static size_t size_of(unsigned kind)
{
	return kind ? PAGE << (kind - 1) : 0;
}

/* Bytes that a place takes of the bound. */
static size_t charge_of(unsigned kind)
{
	return sizeof(struct nbd_kept) + size_of(kind);
}

uint64_t nbd_journal_max_io(uint64_t bound)
{
	unsigned kind = 0;

	/* Several must fit, or each would wait for the flush of the one before. */
	while (kind + 1 < NBD_KINDS && 3 * charge_of(kind + 1) <= bound)
		kind++;
	return size_of(kind);
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* So many more places, as far as there are. */
static bool make_usable(struct nbd_places *p, size_t more)
{
	size_t nr = more < p->nr - p->usable ? p->usable + more : p->nr;

	if (mprotect(p->records, pages(nr * sizeof(struct nbd_kept)), PROT_READ | PROT_WRITE) ||
	    (p->size && mprotect(p->data, nr * p->size, PROT_READ | PROT_WRITE)))
		return false;
	p->usable = nr;
	return true;
}

int nbd_segment_open(struct nbd_segment *segment, struct nbd_journal *journal, uint32_t max_io,
		     unsigned nr_segments)
{
	size_t at = 0;

	*segment = (struct nbd_segment){ .journal = journal, .last = &segment->first };
	if (!journal->bound)
		return 0;
	segment->nr_kinds = kind_of(max_io) + 1;
	for (unsigned kind = 0; kind < segment->nr_kinds; kind++) {
		size_t nr = journal->bound / charge_of(kind);

		segment->places[kind] = (struct nbd_places){ .size = size_of(kind), .nr = nr };
		segment->size += pages(nr * sizeof(struct nbd_kept)) + nr * size_of(kind);
	}
	segment->arena = mmap(NULL, segment->size, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (segment->arena == MAP_FAILED) {
		segment->arena = NULL;
		return -ENOMEM;
	}
	/* A huge page for the first write of each size would make idle exports expensive. */
	madvise(segment->arena, segment->size, MADV_NOHUGEPAGE);
	for (unsigned kind = 0; kind < segment->nr_kinds; kind++) {
		struct nbd_places *p = &segment->places[kind];

		p->records = (struct nbd_kept *)((unsigned char *)segment->arena + at);
		at += pages(p->nr * sizeof(struct nbd_kept));
		p->data = (unsigned char *)segment->arena + at;
		at += p->nr * p->size;
		if (!make_usable(p, max_size(FIRST_NR, FIRST_BYTES / charge_of(kind)))) {
			nbd_segment_close(segment);
			return -ENOMEM;
		}
	}
	segment->own = journal->bound / 2 / nr_segments;
	segment->chunk = journal->bound / 64 / nr_segments;
	return 0;
}

void nbd_segment_close(struct nbd_segment *segment)
{
	if (segment->arena)
		munmap(segment->arena, segment->size);
	segment->arena = NULL;
}

/* ---- places ---- */

/* NULL: there is no memory for one more. */
static struct nbd_kept *take_place(struct nbd_segment *segment, unsigned kind)
{
	struct nbd_places *p = &segment->places[kind];
	struct nbd_kept *kept = p->free;

	if (kept) {
		p->free = kept->next;
		if (kept->warm)
			segment->warm -= p->size;
	} else {
		/* What is taken counts against the bound, which allows no more of them than nr. */
		assert(p->used < p->nr);
		if (p->used == p->usable && !make_usable(p, max_size(FIRST_NR, p->nr / 16))) {
			segment->is_starved = true;
			return NULL;
		}
		kept = &p->records[p->used];
		kept->kind = (uint8_t)kind;
		kept->data = p->data + p->used * p->size;
		p->used++;
	}
	p->taken++;
	segment->nr_taken++;
	segment->taken += p->size;
	return kept;
}

static void free_place(struct nbd_segment *segment, struct nbd_kept *kept)
{
	struct nbd_places *p = &segment->places[kept->kind];

	if (segment->taken > segment->peak)
		segment->peak = segment->taken;
	segment->is_starved = false;
	p->taken--;
	segment->nr_taken--;
	segment->taken -= p->size;
	segment->warm += p->size;
	kept->warm = true;
	kept->next = p->free;
	p->free = kept;
}

/* ---- the bound ---- */

static bool take_bytes(struct nbd_segment *segment, uint64_t bytes)
{
	const struct nbd_journal *journal = segment->journal;

	if (__atomic_add_fetch(journal->bytes, bytes, __ATOMIC_RELAXED) > journal->bound) {
		__atomic_sub_fetch(journal->bytes, bytes, __ATOMIC_RELAXED);
		return false;
	}
	segment->allowance += bytes;
	return true;
}

/* What an operation takes comes from the allowance. */
static bool charge(struct nbd_segment *segment, size_t bytes)
{
	size_t missing;

	if (segment->allowance < bytes) {
		missing = bytes - segment->allowance;
		if ((missing >= segment->chunk || !take_bytes(segment, segment->chunk)) &&
		    !take_bytes(segment, missing))
			return false;
	}
	segment->allowance -= bytes;
	return true;
}

/* An idle queue has none: what is kept is then what is said to be. */
static void discharge(struct nbd_segment *segment, size_t bytes)
{
	size_t keep = segment->nr_taken ? segment->chunk : 0;

	segment->allowance += bytes;
	if (segment->allowance <= 2 * keep)
		return;
	__atomic_sub_fetch(segment->journal->bytes, segment->allowance - keep, __ATOMIC_RELAXED);
	segment->allowance = keep;
}

/* ---- operations ---- */

struct nbd_kept *nbd_segment_reserve(struct nbd_segment *segment, uint8_t op, uint8_t flags,
				     uint64_t offset, uint32_t length)
{
	unsigned kind = op == IO_WRITE ? kind_of(length) : 0;
	struct nbd_kept *kept;

	if (!charge(segment, charge_of(kind)))
		return NULL;
	kept = take_place(segment, kind);
	if (!kept) {
		discharge(segment, charge_of(kind));
		return NULL;
	}
	kept->offset = offset;
	kept->length = length;
	kept->op = op;
	kept->flags = flags;
	return kept;
}

void nbd_segment_release(struct nbd_segment *segment, struct nbd_kept *kept)
{
	size_t bytes = charge_of(kept->kind);

	free_place(segment, kept);
	discharge(segment, bytes);
}

void nbd_segment_keep(struct nbd_segment *segment, struct nbd_kept *kept, uint64_t round)
{
	kept->order = nbd_segment_number(segment, round);
	kept->next = NULL;
	*segment->last = kept;
	segment->last = &kept->next;
}

bool nbd_segment_drop(struct nbd_segment *segment)
{
	uint64_t stable = atomic_load(&segment->journal->stable), freed = 0;
	struct nbd_kept *kept;

	while ((kept = segment->first) && kept->order < stable) {
		segment->first = kept->next;
		freed += charge_of(kept->kind);
		free_place(segment, kept);
	}
	if (!segment->first)
		segment->last = &segment->first;
	if (freed)
		discharge(segment, freed);
	return freed;
}

void nbd_journal_flushed(struct nbd_journal *journal, uint64_t covered)
{
	uint64_t stable = atomic_load(&journal->stable);

	while (stable < covered &&
	       !atomic_compare_exchange_weak(&journal->stable, &stable, covered))
		;
}

/* ---- memory ---- */

/* The process has locked its memory (process_prepare_for_io()), and MADV_DONTNEED refuses that. */
static void give_back(void *start, size_t bytes)
{
	madvise(start, bytes, MADV_DONTNEED_LOCKED);
}

/*
 * Of free places with memory those that were freed last keep it, up to *keep bytes, which are
 * counted down. Neighbours are given back together.
 */
static void trim_places(struct nbd_segment *segment, struct nbd_places *p, size_t *keep)
{
	unsigned char *start = NULL, *end = NULL;

	for (struct nbd_kept *kept = p->free; kept && kept->warm; kept = kept->next) {
		if (*keep >= p->size) {
			*keep -= p->size;
			continue;
		}
		*keep = 0;
		kept->warm = false;
		segment->warm -= p->size;
		if (kept->data == end) {
			end += p->size;
		} else if (kept->data + p->size == start) {
			start -= p->size;
		} else {
			if (start)
				give_back(start, (size_t)(end - start));
			start = kept->data;
			end = start + p->size;
		}
	}
	if (start)
		give_back(start, (size_t)(end - start));
}

/* Records without data, of which there may be very many: all at once, when none is taken. */
static void trim_records(struct nbd_places *p)
{
	if (p->taken || p->used * sizeof(struct nbd_kept) <= 16 * PAGE)
		return;
	give_back(p->records, pages(p->used * sizeof(struct nbd_kept)));
	p->used = 0;
	p->free = NULL;
}

/*
 * What was needed of late will be again: a flush frees most at once. The peak falls by an eighth a
 * time, so that a burst's memory is gone a few seconds after it.
 */
void nbd_segment_trim(struct nbd_segment *segment)
{
	size_t keep = segment->own;

	if (!segment->arena)
		return;
	trim_records(&segment->places[0]);
	segment->peak -= segment->peak / 8;
	if (segment->peak < segment->taken)
		segment->peak = segment->taken;
	if (keep < segment->peak)
		keep = segment->peak;
	keep -= keep < segment->taken ? keep : segment->taken;
	if (segment->warm <= keep)
		return;
	for (unsigned kind = 1; kind < segment->nr_kinds; kind++)
		trim_places(segment, &segment->places[kind], &keep);
}
