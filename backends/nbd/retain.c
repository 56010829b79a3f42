/* SPDX-License-Identifier: MIT */
#include "backends/nbd/retain.h"
#include "engine/backend.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/*
 * The log is a ring: records follow each other, each in one piece; where the end
 * of the ring is too short for one, a record of nothing fills it.  The ring has
 * more room than may ever be set aside, so that one is never missing.
 */

static uint32_t record_bytes(uint32_t data)
{
	return (uint32_t)((sizeof(struct nbd_kept) + data + 15) & ~15ul);
}

uint64_t nbd_ledger_max_io(uint64_t bound)
{
	/* Several must fit, or each would wait for the flush of the one before. */
	return bound / 4 > sizeof(struct nbd_kept) ? bound / 4 - sizeof(struct nbd_kept) : 0;
}

int nbd_log_open(struct nbd_log *log, struct nbd_ledger *ledger, uint32_t max_io, unsigned nr_logs)
{
	*log = (struct nbd_log){ .ledger = ledger };
	if (!ledger->bound)
		return 0;
	log->size = (ledger->bound + 2ul * record_bytes(max_io) + 4095) & ~4095ul;
	log->arena = mmap(NULL, log->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (log->arena == MAP_FAILED) {
		log->arena = NULL;
		return -ENOMEM;
	}
	log->own = ledger->bound / 2 / nr_logs;
	return 0;
}

/* Between two places of the arena, the part that is not the log's own. */
static void give_back(const struct nbd_log *log, size_t from, size_t to)
{
	size_t page = 4095;

	if (from < log->own)
		from = log->own;
	from = (from + page) & ~page;
	to &= ~page;
	if (from < to)
		madvise(log->arena + from, to - from, MADV_DONTNEED);
}

void nbd_log_trim(struct nbd_log *log)
{
	if (log->touched <= log->own)
		return;
	if (log->tail < log->head) {
		give_back(log, log->tail, log->head);
		return;
	}
	give_back(log, 0, log->head);
	give_back(log, log->tail, log->touched);
	log->touched = log->tail;
}

void nbd_log_close(struct nbd_log *log)
{
	if (log->arena)
		munmap(log->arena, log->size);
	log->arena = NULL;
}

uint32_t nbd_ledger_reserve(struct nbd_ledger *ledger, uint32_t data)
{
	uint32_t room = record_bytes(data);

	if (__atomic_add_fetch(ledger->bytes, room, __ATOMIC_RELAXED) <= ledger->bound)
		return room;
	nbd_ledger_release(ledger, room);
	return 0;
}

void nbd_ledger_release(struct nbd_ledger *ledger, uint32_t room)
{
	__atomic_sub_fetch(ledger->bytes, room, __ATOMIC_RELAXED);
}

static struct nbd_kept *record_at(const struct nbd_log *log, size_t at)
{
	return (struct nbd_kept *)(log->arena + at);
}

/* A place for `room` bytes in one piece, at the tail. */
static struct nbd_kept *place(struct nbd_log *log, uint32_t room)
{
	size_t rest = log->size - log->tail;

	if (log->head == log->tail)
		log->head = log->tail = 0;
	else if (log->tail > log->head && rest <= room) {
		/* A few bytes may be too short even for a record of nothing. */
		if (rest >= sizeof(struct nbd_kept)) {
			record_at(log, log->tail)->op = IO_OPS;
			log->touched = log->size;
		}
		log->tail = 0;
	}
	assert(log->tail >= log->head || log->tail + room < log->head);
	return record_at(log, log->tail);
}

void nbd_log_keep(struct nbd_log *log, uint32_t room, uint8_t op, uint8_t flags, uint64_t offset,
		  uint32_t length, const void *data)
{
	struct nbd_kept *kept = place(log, room);

	*kept = (struct nbd_kept){
		.order = atomic_fetch_add(&log->ledger->order, 1),
		.offset = offset,
		.length = length,
		.record = room,
		.op = op,
		.flags = flags,
	};
	if (data)
		memcpy(kept->data, data, length);
	log->tail += room;
	if (log->tail > log->touched)
		log->touched = log->tail;
}

/* Where the record at `at` really is: past the end of the ring is its start. */
static size_t past_the_end(const struct nbd_log *log, size_t at)
{
	if (at == log->tail)
		return at;
	if (log->size - at < sizeof(struct nbd_kept) || record_at(log, at)->op == IO_OPS)
		return 0;
	return at;
}

static const struct nbd_kept *record_from(const struct nbd_log *log, size_t at)
{
	at = past_the_end(log, at);
	return at == log->tail ? NULL : record_at(log, at);
}

const struct nbd_kept *nbd_log_first(const struct nbd_log *log)
{
	return record_from(log, log->head);
}

const struct nbd_kept *nbd_log_next(const struct nbd_log *log, const struct nbd_kept *kept)
{
	return record_from(log, (size_t)((const unsigned char *)kept - log->arena) + kept->record);
}

bool nbd_log_drop(struct nbd_log *log)
{
	uint64_t stable = atomic_load(&log->ledger->stable), freed = 0;
	const struct nbd_kept *kept;

	while ((kept = nbd_log_first(log)) && kept->order < stable) {
		freed += kept->record;
		log->head = (size_t)((const unsigned char *)kept - log->arena) + kept->record;
	}
	if (freed)
		__atomic_sub_fetch(log->ledger->bytes, freed, __ATOMIC_RELAXED);
	return freed;
}

void nbd_ledger_flushed(struct nbd_ledger *ledger, uint64_t covered)
{
	uint64_t stable = atomic_load(&ledger->stable);

	while (stable < covered && !atomic_compare_exchange_weak(&ledger->stable, &stable, covered))
		;
}
