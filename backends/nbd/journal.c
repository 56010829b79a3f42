/* SPDX-License-Identifier: MIT */
/*
 * The replay journal: acknowledged writes that no flush has covered, kept until one does, so that
 * they can be sent again to a server that restarted and lost them.
 *
 * Each queue has a segment, a ring in memory of its own that only its thread writes. What they
 * share is the order of acknowledgements, the bytes in use (the bound is the export's, whichever
 * queue uses it), and the order up to which a flush has covered all (stable).
 *
 * Room is reserved before a write is sent: once acknowledged it must be kept, and there is no way
 * to refuse it then. A flush covers what was acknowledged before it was sent, which
 * nbd_journal_flush_begins() notes, and nothing that was acknowledged meanwhile.
 */
#include "backends/nbd/journal.h"
#include "engine/backend.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/*
 * The segment is a ring: records follow each other, each in one piece; where the end
 * of the ring is too short for one, a record of nothing fills it.  The ring has
 * more room than may ever be set aside, so that one is never missing.
 */

static uint32_t record_bytes(uint32_t data)
{
	return (uint32_t)((sizeof(struct nbd_kept) + data + 15) & ~15ul);
}

uint64_t nbd_journal_max_io(uint64_t bound)
{
	/* Several must fit, or each would wait for the flush of the one before. */
	return bound / 4 > sizeof(struct nbd_kept) ? bound / 4 - sizeof(struct nbd_kept) : 0;
}

int nbd_segment_open(struct nbd_segment *segment, struct nbd_journal *journal, uint32_t max_io,
		     unsigned nr_segments)
{
	*segment = (struct nbd_segment){ .journal = journal };
	if (!journal->bound)
		return 0;
	segment->size = (journal->bound + 2ul * record_bytes(max_io) + 4095) & ~4095ul;
	segment->arena = mmap(NULL, segment->size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (segment->arena == MAP_FAILED) {
		segment->arena = NULL;
		return -ENOMEM;
	}
	segment->own = journal->bound / 2 / nr_segments;
	return 0;
}

/* Between two places of the arena, the part that is not the segment's own. */
static void give_back(const struct nbd_segment *segment, size_t from, size_t to)
{
	size_t page = 4095;

	if (from < segment->own)
		from = segment->own;
	from = (from + page) & ~page;
	to &= ~page;
	if (from < to)
		madvise(segment->arena + from, to - from, MADV_DONTNEED);
}

void nbd_segment_trim(struct nbd_segment *segment)
{
	if (segment->touched <= segment->own)
		return;
	if (segment->tail < segment->head) {
		give_back(segment, segment->tail, segment->head);
		return;
	}
	give_back(segment, 0, segment->head);
	give_back(segment, segment->tail, segment->touched);
	segment->touched = segment->tail;
}

void nbd_segment_close(struct nbd_segment *segment)
{
	if (segment->arena)
		munmap(segment->arena, segment->size);
	segment->arena = NULL;
}

uint32_t nbd_journal_reserve(struct nbd_journal *journal, uint32_t data)
{
	uint32_t room = record_bytes(data);

	if (__atomic_add_fetch(journal->bytes, room, __ATOMIC_RELAXED) <= journal->bound)
		return room;
	nbd_journal_release(journal, room);
	return 0;
}

void nbd_journal_release(struct nbd_journal *journal, uint32_t room)
{
	__atomic_sub_fetch(journal->bytes, room, __ATOMIC_RELAXED);
}

static struct nbd_kept *record_at(const struct nbd_segment *segment, size_t at)
{
	return (struct nbd_kept *)(segment->arena + at);
}

/* A place for `room` bytes in one piece, at the tail. */
static struct nbd_kept *place(struct nbd_segment *segment, uint32_t room)
{
	size_t rest = segment->size - segment->tail;

	if (segment->head == segment->tail)
		segment->head = segment->tail = 0;
	else if (segment->tail > segment->head && rest <= room) {
		/* A few bytes may be too short even for a record of nothing. */
		if (rest >= sizeof(struct nbd_kept)) {
			record_at(segment, segment->tail)->op = IO_OPS;
			segment->touched = segment->size;
		}
		segment->tail = 0;
	}
	assert(segment->tail >= segment->head || segment->tail + room < segment->head);
	return record_at(segment, segment->tail);
}

void nbd_segment_keep(struct nbd_segment *segment, uint32_t room, uint8_t op, uint8_t flags,
		      uint64_t offset, uint32_t length, const void *data)
{
	struct nbd_kept *kept = place(segment, room);

	*kept = (struct nbd_kept){
		.order = atomic_fetch_add(&segment->journal->order, 1),
		.offset = offset,
		.length = length,
		.record = room,
		.op = op,
		.flags = flags,
	};
	if (data)
		memcpy(kept->data, data, length);
	segment->tail += room;
	if (segment->tail > segment->touched)
		segment->touched = segment->tail;
}

/* Where the record at `at` really is: past the end of the ring is its start. */
static size_t past_the_end(const struct nbd_segment *segment, size_t at)
{
	if (at == segment->tail)
		return at;
	if (segment->size - at < sizeof(struct nbd_kept) || record_at(segment, at)->op == IO_OPS)
		return 0;
	return at;
}

static const struct nbd_kept *record_from(const struct nbd_segment *segment, size_t at)
{
	at = past_the_end(segment, at);
	return at == segment->tail ? NULL : record_at(segment, at);
}

const struct nbd_kept *nbd_segment_first(const struct nbd_segment *segment)
{
	return record_from(segment, segment->head);
}

const struct nbd_kept *nbd_segment_next(const struct nbd_segment *segment,
					const struct nbd_kept *kept)
{
	return record_from(segment,
			   (size_t)((const unsigned char *)kept - segment->arena) + kept->record);
}

bool nbd_segment_drop(struct nbd_segment *segment)
{
	uint64_t stable = atomic_load(&segment->journal->stable), freed = 0;
	const struct nbd_kept *kept;

	while ((kept = nbd_segment_first(segment)) && kept->order < stable) {
		freed += kept->record;
		segment->head =
			(size_t)((const unsigned char *)kept - segment->arena) + kept->record;
	}
	if (freed)
		__atomic_sub_fetch(segment->journal->bytes, freed, __ATOMIC_RELAXED);
	return freed;
}

void nbd_journal_flushed(struct nbd_journal *journal, uint64_t covered)
{
	uint64_t stable = atomic_load(&journal->stable);

	while (stable < covered &&
	       !atomic_compare_exchange_weak(&journal->stable, &stable, covered))
		;
}
