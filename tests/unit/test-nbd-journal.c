/* SPDX-License-Identifier: MIT */
/*
 * Acknowledged writes that the nbd backend keeps: all of them, in order, within
 * its bound, until a flush has covered it.
 */
/* tests: tsan */
#include "backends/nbd/journal.h"
#include "engine/backend.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define BOUND  65536u
#define MAX_IO 12288u
#define LOGS   3u

/* An export's journal and its segments. */
struct books {
	uint64_t bytes;
	struct nbd_journal journal;
	struct nbd_segment segments[LOGS];
};

static void open_books(struct books *b, uint64_t bound)
{
	memset(b, 0, sizeof(*b));
	b->journal.bytes = &b->bytes;
	b->journal.bound = bound;
	for (unsigned i = 0; i < LOGS; i++)
		assert_int_equal(nbd_segment_open(&b->segments[i], &b->journal, MAX_IO, LOGS), 0);
}

static void close_books(struct books *b)
{
	for (unsigned i = 0; i < LOGS; i++)
		nbd_segment_close(&b->segments[i]);
}

/* A byte of a write's data, told by what the write is. */
static uint8_t byte_of(uint64_t offset, uint32_t at)
{
	return (uint8_t)(offset * 31 + at * 7 + at / 256);
}

static struct nbd_kept *reserve_write(struct nbd_segment *segment, uint64_t offset, uint32_t length)
{
	struct nbd_kept *kept = nbd_segment_reserve(segment, IO_WRITE, IO_FUA, offset, length);

	for (uint32_t i = 0; kept && i < length; i++)
		kept->data[i] = byte_of(offset, i);
	return kept;
}

static bool keep_write(struct nbd_segment *segment, uint64_t offset, uint32_t length)
{
	struct nbd_kept *kept = reserve_write(segment, offset, length);

	if (kept)
		nbd_segment_keep(segment, kept, 0);
	return kept;
}

static bool keep_trim(struct nbd_segment *segment, uint64_t offset, uint32_t length)
{
	struct nbd_kept *kept = nbd_segment_reserve(segment, IO_DISCARD, 0, offset, length);

	if (kept)
		nbd_segment_keep(segment, kept, 0);
	return kept;
}

static bool is_write(const struct nbd_kept *kept, uint64_t offset, uint32_t length)
{
	if (kept->op != IO_WRITE || kept->flags != IO_FUA || kept->offset != offset ||
	    kept->length != length)
		return false;
	for (uint32_t i = 0; i < length; i++)
		if (kept->data[i] != byte_of(offset, i))
			return false;
	return true;
}

static bool flush(struct books *b, uint64_t covered, unsigned segment)
{
	nbd_journal_flushed(&b->journal, covered);
	return nbd_segment_drop(&b->segments[segment]);
}

static void test_keeps_acknowledged_writes(void **state)
{
	const struct nbd_kept *kept;
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	assert_null(nbd_segment_first(&b.segments[0]));
	assert_false(nbd_journal_has_unflushed(&b.journal));
	assert_true(keep_write(&b.segments[0], 4096, 512));
	assert_true(keep_trim(&b.segments[0], 8192, 1u << 30));
	assert_true(keep_write(&b.segments[0], 0, MAX_IO));
	assert_true(nbd_journal_has_unflushed(&b.journal));
	kept = nbd_segment_first(&b.segments[0]);
	assert_true(is_write(kept, 4096, 512));
	assert_int_equal(kept->order, 0);
	kept = kept->next;
	assert_int_equal(kept->op, IO_DISCARD);
	assert_int_equal(kept->offset, 8192);
	assert_int_equal(kept->length, 1u << 30);
	assert_int_equal(kept->order, 1);
	kept = kept->next;
	assert_true(is_write(kept, 0, MAX_IO));
	assert_null(kept->next);
	close_books(&b);
}

/* Whatever the order in which they were sent; what is in flight is none of them. */
static void test_the_order_is_that_of_the_acknowledgements(void **state)
{
	struct nbd_kept *sent[4];
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	for (unsigned i = 0; i < 4; i++)
		sent[i] = reserve_write(&b.segments[0], i, 512);
	assert_null(nbd_segment_first(&b.segments[0]));
	assert_false(nbd_journal_has_unflushed(&b.journal));
	nbd_segment_keep(&b.segments[0], sent[2], 0);
	nbd_segment_keep(&b.segments[0], sent[0], 0);
	nbd_segment_release(&b.segments[0], sent[1]);
	assert_ptr_equal(nbd_segment_first(&b.segments[0]), sent[2]);
	assert_ptr_equal(sent[2]->next, sent[0]);
	assert_null(sent[0]->next);
	/* All of that is let go of beside an older one that is in flight still. */
	assert_true(flush(&b, nbd_journal_flush_begins(&b.journal), 0));
	assert_null(nbd_segment_first(&b.segments[0]));
	assert_true(is_write(sent[3], 3, 512));
	/* Nothing else takes its place. */
	for (unsigned i = 0; i < 8; i++)
		assert_true(keep_write(&b.segments[0], 10 + i, 512));
	assert_true(is_write(sent[3], 3, 512));
	nbd_segment_keep(&b.segments[0], sent[3], 0);
	assert_true(is_write(nbd_segment_first(&b.segments[0]), 10, 512));
	assert_true(flush(&b, nbd_journal_flush_begins(&b.journal), 0));
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

/* The memory that was used last is used next. */
static void test_a_place_is_used_again(void **state)
{
	struct nbd_kept *kept;
	unsigned char *data;
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	kept = reserve_write(&b.segments[0], 0, 4096);
	data = kept->data;
	nbd_segment_release(&b.segments[0], kept);
	for (unsigned i = 0; i < 100; i++) {
		kept = reserve_write(&b.segments[0], i, 4096);
		assert_ptr_equal(kept->data, data);
		nbd_segment_keep(&b.segments[0], kept, 0);
		assert_true(flush(&b, nbd_journal_flush_begins(&b.journal), 0));
	}
	close_books(&b);
}

/* A flush covers what was acknowledged before it was sent, and nothing else. */
static void test_a_flush_covers_earlier_writes_only(void **state)
{
	struct books b;
	uint64_t covers;

	(void)state;
	open_books(&b, BOUND);
	keep_write(&b.segments[0], 0, 512);
	keep_write(&b.segments[1], 1024, 512);
	covers = nbd_journal_flush_begins(&b.journal);
	keep_write(&b.segments[0], 2048, 512);
	/* Not before it has succeeded. */
	assert_false(nbd_segment_drop(&b.segments[0]));
	assert_true(flush(&b, covers, 0));
	assert_true(is_write(nbd_segment_first(&b.segments[0]), 2048, 512));
	assert_false(nbd_segment_drop(&b.segments[0]));
	assert_true(nbd_journal_has_unflushed(&b.journal));
	/* Each queue drops its own. */
	assert_non_null(nbd_segment_first(&b.segments[1]));
	assert_true(nbd_segment_drop(&b.segments[1]));
	assert_null(nbd_segment_first(&b.segments[1]));
	/* A flush that was sent earlier, and is answered later, takes nothing back. */
	assert_true(flush(&b, nbd_journal_flush_begins(&b.journal), 0));
	nbd_journal_flushed(&b.journal, covers);
	assert_false(nbd_journal_has_unflushed(&b.journal));
	assert_null(nbd_segment_first(&b.segments[0]));
	assert_int_equal(b.bytes, 0);
	/* Writes that are not kept count as well. */
	nbd_segment_number(&b.segments[0], 0);
	assert_true(nbd_journal_has_unflushed(&b.journal));
	close_books(&b);
}

/* Answers that were there when a round began had come before a flush that is sent later. */
static void test_a_round_has_one_number(void **state)
{
	struct nbd_segment *segment;
	struct nbd_kept *kept[5];
	struct books b;
	uint64_t covers;

	(void)state;
	open_books(&b, BOUND);
	segment = &b.segments[0];
	for (unsigned i = 0; i < 5; i++)
		kept[i] = reserve_write(segment, i, 512);
	nbd_segment_keep(segment, kept[0], 7);
	covers = nbd_journal_flush_begins(&b.journal);
	nbd_segment_keep(segment, kept[1], 7);
	/* The next round's, and those of which nobody knows, may have come after it. */
	nbd_segment_keep(segment, kept[2], 8);
	assert_true(flush(&b, covers, 0));
	assert_ptr_equal(nbd_segment_first(segment), kept[2]);
	covers = nbd_journal_flush_begins(&b.journal);
	nbd_segment_keep(segment, kept[3], 0);
	nbd_segment_keep(segment, kept[4], 0);
	assert_true(kept[4]->order > kept[3]->order);
	assert_true(flush(&b, covers, 0));
	assert_ptr_equal(nbd_segment_first(segment), kept[3]);
	close_books(&b);
}

/* A queue takes bytes for several operations at once, and leaves none taken when it has none. */
static void test_an_allowance_ends_with_the_operations(void **state)
{
	struct nbd_kept *kept[8];
	struct books b;
	uint64_t taken;

	(void)state;
	open_books(&b, 256 * BOUND);
	kept[0] = reserve_write(&b.segments[0], 0, 512);
	taken = b.bytes;
	for (unsigned i = 1; i < 8; i++) {
		kept[i] = reserve_write(&b.segments[0], i, 512);
		assert_int_equal(b.bytes, taken);
	}
	for (unsigned i = 0; i < 8; i++) {
		assert_true(b.bytes >= (8 - i) * 4096);
		nbd_segment_release(&b.segments[0], kept[i]);
	}
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

/* Addresses count as memory where the system does not overcommit: they come as they are needed. */
static void test_memory_that_the_system_refuses(void **state)
{
	struct rlimit limit, none;
	struct nbd_kept *kept[64], *one;
	struct books b;
	unsigned n = 0;

	(void)state;
	open_books(&b, 256 * BOUND);
	assert_int_equal(getrlimit(RLIMIT_DATA, &limit), 0);
	none = (struct rlimit){ .rlim_cur = 4096, .rlim_max = limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_DATA, &none), 0);
	while (n < 64 && (one = reserve_write(&b.segments[0], n, MAX_IO)))
		kept[n++] = one;
	/* A flush makes room, without more memory. */
	nbd_segment_keep(&b.segments[0], kept[0], 0);
	one = b.segments[0].is_starved ? kept[0] : NULL;
	nbd_journal_flushed(&b.journal, nbd_journal_flush_begins(&b.journal));
	nbd_segment_drop(&b.segments[0]);
	kept[0] = reserve_write(&b.segments[0], 0, MAX_IO);
	assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
	assert_true(n >= 3 && n < 64);
	assert_true(one && kept[0] == one);
	assert_false(b.segments[0].is_starved);
	for (unsigned i = 0; i < n; i++)
		nbd_segment_release(&b.segments[0], kept[i]);
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

static void test_the_bound_is_kept(void **state)
{
	struct nbd_kept *kept[BOUND / 32], *one;
	unsigned n = 0, writes;
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	while ((one = reserve_write(&b.segments[n % LOGS], n, 512)))
		kept[n++] = one;
	writes = n;
	/* Each has a page, and no more than that beside its record. */
	assert_true(n == BOUND / 4096 - 1 && b.bytes <= BOUND && b.bytes >= n * 4096);
	/* A small one may fit yet; then nothing does. */
	while ((one = nbd_segment_reserve(&b.segments[n % LOGS], IO_DISCARD, 0, 0, 4096)))
		kept[n++] = one;
	assert_true(n > writes && b.bytes <= BOUND);
	nbd_segment_release(&b.segments[0], kept[0]);
	kept[0] = reserve_write(&b.segments[0], 0, 512);
	assert_non_null(kept[0]);
	for (unsigned i = 0; i < writes; i++)
		assert_true(is_write(kept[i], i, 512));
	for (unsigned i = 0; i < n; i++)
		nbd_segment_release(&b.segments[i % LOGS], kept[i]);
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

static void test_the_largest_operation_leaves_room_for_others(void **state)
{
	static const uint64_t bounds[] = { 65536, 100000, 1 << 20, 64 << 20 };

	(void)state;
	for (unsigned i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
		uint64_t most = nbd_journal_max_io(bounds[i]), bytes = 0;
		struct nbd_journal journal = { .bytes = &bytes, .bound = bounds[i] };
		struct nbd_segment segment;

		assert_true(most >= 8192 && most < bounds[i]);
		assert_int_equal(nbd_segment_open(&segment, &journal, (uint32_t)most, 1), 0);
		/* More than half is flushed at once: the next one always fits then. */
		for (unsigned n = 0; n < 3; n++)
			assert_non_null(
				nbd_segment_reserve(&segment, IO_WRITE, 0, 0, (uint32_t)most));
		nbd_segment_close(&segment);
	}
	assert_int_equal(nbd_journal_max_io(0), 0);
	assert_int_equal(nbd_journal_max_io(100), 0);
}

static void test_nothing_kept_takes_no_memory(void **state)
{
	struct books b;

	(void)state;
	open_books(&b, 0);
	assert_null(b.segments[0].arena);
	assert_false(nbd_segment_drop(&b.segments[0]));
	assert_null(nbd_segment_first(&b.segments[0]));
	close_books(&b);
}

static size_t resident(const struct nbd_segment *segment)
{
	static unsigned char in_core[256 * BOUND / 4096];
	size_t pages = segment->size / 4096, n = 0;

	assert_true(pages <= sizeof(in_core));
	assert_int_equal(mincore(segment->arena, segment->size, in_core), 0);
	for (size_t i = 0; i < pages; i++)
		n += in_core[i] & 1;
	return n * 4096;
}

/* As a process that serves a device has its memory (common/process.c), where that is allowed. */
static void lock_memory(const struct nbd_segment *segment)
{
	if (mlock2(segment->arena, segment->size, MLOCK_ONFAULT))
		print_message("memory is not locked: %s\n", strerror(errno));
}

/* Each segment may keep as much as all, but not hold that much for ever. */
static void test_memory_is_given_back(void **state)
{
	uint64_t bound = 16 * BOUND;
	struct books b;

	(void)state;
	open_books(&b, bound);
	for (unsigned i = 0; i < LOGS; i++) {
		struct nbd_segment *segment = &b.segments[i];
		unsigned n, times = 0;

		lock_memory(segment);
		/* Of every size, and never empty. */
		for (n = 0; n < 4 * bound / MAX_IO; n++) {
			uint32_t length = n % 3 ? MAX_IO : 4096;

			if (!keep_write(segment, n, length)) {
				nbd_journal_flushed(&b.journal, b.journal.order - 1);
				nbd_segment_drop(segment);
				assert_true(keep_write(segment, n, length));
			}
		}
		assert_true(resident(segment) > bound * 3 / 4);
		nbd_journal_flushed(&b.journal, b.journal.order - 1);
		nbd_segment_drop(segment);
		/* Not the most of it at once: it may be needed again. */
		nbd_segment_trim(segment);
		assert_true(resident(segment) > bound / 2);
		assert_true(nbd_segment_is_large(segment));
		while (nbd_segment_is_large(segment) && times++ < 100)
			nbd_segment_trim(segment);
		assert_false(nbd_segment_is_large(segment));
		assert_true(resident(segment) <= bound / 2 / LOGS + 2 * MAX_IO + bound / 32);
		assert_true(
			is_write(nbd_segment_first(segment), n - 1, (n - 1) % 3 ? MAX_IO : 4096));
		/* What was given back can be used. */
		for (n = 0; n < bound / 4 / 4096; n++)
			assert_true(keep_write(segment, n, 4096));
		nbd_journal_flushed(&b.journal, b.journal.order);
		nbd_segment_drop(segment);
		munlock(segment->arena, segment->size);
	}
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

/* As many trims as fit: what they took is the segment's own memory, and goes too. */
static void test_memory_of_trims_is_given_back(void **state)
{
	struct books b;

	(void)state;
	open_books(&b, 32 * BOUND);
	while (keep_trim(&b.segments[0], 0, 4096))
		;
	assert_true(resident(&b.segments[0]) > 31 * BOUND);
	assert_true(flush(&b, b.journal.order, 0));
	nbd_segment_trim(&b.segments[0]);
	assert_int_equal(resident(&b.segments[0]), 0);
	assert_true(keep_trim(&b.segments[0], 0, 4096));
	close_books(&b);
}

/* ---- against a model ---- */

enum {
	MODEL = 4096
};

static struct {
	uint64_t order, offset;
	uint32_t length;
	unsigned segment;
	bool trim;
} model[MODEL];
static unsigned model_first, model_end;

static void compare(const struct books *b)
{
	const struct nbd_kept *at[LOGS];

	for (unsigned i = 0; i < LOGS; i++)
		at[i] = nbd_segment_first(&b->segments[i]);
	for (unsigned m = model_first; m < model_end; m++) {
		unsigned segment = model[m % MODEL].segment;

		assert_non_null(at[segment]);
		assert_int_equal(at[segment]->order, model[m % MODEL].order);
		if (model[m % MODEL].trim)
			assert_int_equal(at[segment]->op, IO_DISCARD);
		else
			assert_true(is_write(at[segment], model[m % MODEL].offset,
					     model[m % MODEL].length));
		at[segment] = at[segment]->next;
	}
	for (unsigned i = 0; i < LOGS; i++)
		assert_null(at[i]);
}

/* An operation in flight. */
struct flying {
	struct nbd_kept *kept;
	unsigned segment;
	bool trim;
};

/* One of those in flight is answered. */
static void answer(struct books *b, struct flying *flying, unsigned *nr, unsigned which, bool fails)
{
	struct flying f = flying[which];

	flying[which] = flying[--*nr];
	if (!f.trim)
		assert_true(is_write(f.kept, f.kept->offset, f.kept->length));
	if (fails) {
		nbd_segment_release(&b->segments[f.segment], f.kept);
		return;
	}
	nbd_segment_keep(&b->segments[f.segment], f.kept, 0);
	model[model_end % MODEL].order = f.kept->order;
	model[model_end % MODEL].offset = f.kept->offset;
	model[model_end % MODEL].length = f.kept->length;
	model[model_end % MODEL].segment = f.segment;
	model[model_end++ % MODEL].trim = f.trim;
	assert_true(model_end - model_first < MODEL);
}

/* Of any size, in any segment, answered in any order, beside what is in flight for long. */
static void test_the_journal_against_a_model(void **state)
{
	struct flying flying[24];
	unsigned full = 0, nr = 0;
	uint64_t seed = 11;
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	model_first = model_end = 0;
	for (unsigned step = 0; step < 60000; step++) {
		/* For a while all in one segment, which then is as full as can be. */
		unsigned segment = step / 1000 % 2 ? step / 2000 % LOGS
						   : (unsigned)(next_random(&seed) % LOGS);
		uint32_t length = (uint32_t)(next_random(&seed) % MAX_IO) + 1;
		uint64_t offset = next_random(&seed);
		bool trim = next_random(&seed) % 8 == 0, is_full = false;
		struct nbd_kept *kept;

		if (next_random(&seed) % 3 == 0)
			length = length % 64 + 1;
		kept = trim ? nbd_segment_reserve(&b.segments[segment], IO_DISCARD, 0, offset,
						  length)
			    : reserve_write(&b.segments[segment], offset, length);
		if (kept)
			flying[nr++] = (struct flying){ kept, segment, trim };
		else
			is_full = true;
		full += is_full;
		while (nr == 24 || (nr && (is_full || next_random(&seed) % 2))) {
			answer(&b, flying, &nr, (unsigned)(next_random(&seed) % nr),
			       next_random(&seed) % 16 == 0);
			is_full = is_full && nr > 2;
		}
		/* A flush of the most of it, and of all of it at times. */
		if (!kept || next_random(&seed) % 64 == 0) {
			uint64_t left = next_random(&seed) % 4 ? next_random(&seed) % 4 : 0;
			uint64_t order = b.journal.order;

			nbd_journal_flushed(&b.journal, order > left ? order - left : 0);
			for (unsigned i = 0; i < LOGS; i++)
				nbd_segment_drop(&b.segments[i]);
			while (model_first < model_end &&
			       model[model_first % MODEL].order < b.journal.stable)
				model_first++;
			compare(&b);
		}
		if (step % 89 == 0)
			nbd_segment_trim(&b.segments[next_random(&seed) % LOGS]);
		if (step % 97 == 0)
			compare(&b);
	}
	assert_true(full > 100);
	while (nr)
		answer(&b, flying, &nr, 0, false);
	nbd_journal_flushed(&b.journal, b.journal.order);
	for (unsigned i = 0; i < LOGS; i++)
		nbd_segment_drop(&b.segments[i]);
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

/* ---- each queue on its thread ---- */

struct worker {
	struct books *books;
	unsigned segment;
	uint64_t kept;
	bool right;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct nbd_segment *segment = &w->books->segments[w->segment];
	uint64_t seed = w->segment + 1, last = 0;

	w->right = true;
	for (unsigned step = 0; step < 4000; step++) {
		uint32_t length = (uint32_t)(next_random(&seed) % MAX_IO) + 1;

		if (keep_write(segment, step, length)) {
			w->kept++;
		} else {
			uint64_t covers = nbd_journal_flush_begins(segment->journal);

			nbd_journal_flushed(segment->journal, covers);
		}
		nbd_segment_drop(segment);
		if (nbd_segment_first(segment)) {
			w->right &= nbd_segment_first(segment)->order >= last;
			last = nbd_segment_first(segment)->order;
		}
	}
	return NULL;
}

static void test_queues_keep_side_by_side(void **state)
{
	struct worker workers[LOGS];
	pthread_t threads[LOGS];
	uint64_t kept = 0;
	struct books b;

	(void)state;
	open_books(&b, BOUND);
	for (unsigned i = 0; i < LOGS; i++) {
		workers[i] = (struct worker){ .books = &b, .segment = i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < LOGS; i++) {
		pthread_join(threads[i], NULL);
		assert_true(workers[i].right);
		kept += workers[i].kept;
	}
	assert_int_equal(b.journal.order, kept);
	nbd_journal_flushed(&b.journal, kept);
	for (unsigned i = 0; i < LOGS; i++)
		nbd_segment_drop(&b.segments[i]);
	assert_int_equal(b.bytes, 0);
	close_books(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_acknowledged_writes),
		cmocka_unit_test(test_the_order_is_that_of_the_acknowledgements),
		cmocka_unit_test(test_a_place_is_used_again),
		cmocka_unit_test(test_a_flush_covers_earlier_writes_only),
		cmocka_unit_test(test_a_round_has_one_number),
		cmocka_unit_test(test_an_allowance_ends_with_the_operations),
		cmocka_unit_test(test_memory_that_the_system_refuses),
		cmocka_unit_test(test_the_bound_is_kept),
		cmocka_unit_test(test_the_largest_operation_leaves_room_for_others),
		cmocka_unit_test(test_nothing_kept_takes_no_memory),
		cmocka_unit_test(test_memory_is_given_back),
		cmocka_unit_test(test_memory_of_trims_is_given_back),
		cmocka_unit_test(test_the_journal_against_a_model),
		cmocka_unit_test(test_queues_keep_side_by_side),
	};

	bound_time(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
