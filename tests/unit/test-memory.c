/* SPDX-License-Identifier: MIT */
/*
 * The memory backend beyond what every backend must do: what it costs, what it
 * gives back, its limit, and all queues at once on the same shards.
 */
#include "engine/host_local.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define KIB 1024u
#define MIB (1024u * KIB)

/* refused: a call that the kernel does not have; NULL: it has all. */
static void begin_without(struct served *s, const char *words, const char *refused)
{
	fake_start(&fake_linux_7_2);
	fake_fail(refused, refused ? 1 : 0, 0);
	served_begin(s, words);
}

static void begin(struct served *s, const char *words)
{
	begin_without(s, words, NULL);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
}

static int request(unsigned queue, unsigned op, uint32_t flags, uint64_t offset, uint32_t length,
		   void *data)
{
	return fake_request(0, queue, op, flags, offset, length, data);
}

static int write_byte(uint64_t offset, uint32_t length, uint8_t byte)
{
	void *data = fake_data(length, byte);
	int ret = request(0, UBLK_OP_WRITE, 0, offset, length, data);

	fake_data_free(data);
	return ret;
}

/* Fails unless the range reads as nothing but `byte`. */
static void reads_as(uint64_t offset, uint32_t length, uint8_t byte)
{
	uint8_t *data = fake_data(length, (uint8_t)~byte);

	assert_int_equal(request(0, UBLK_OP_READ, 0, offset, length, data), 0);
	for (uint32_t i = 0; i < length; i++)
		if (data[i] != byte)
			fail_msg("byte %llu is %#x, not %#x", (unsigned long long)offset + i,
				 data[i], byte);
	fake_data_free(data);
}

/* Bytes that the backend's memory takes, as the kernel counts them. */
static uint64_t taken(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	uint64_t bytes = UINT64_MAX;
	char path[300], target[64];
	struct stat st;

	while ((entry = readdir(dir))) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = 0;
		if (!strncmp(target, "/memfd:ublkd-memory", 19) && !stat(path, &st))
			bytes = (uint64_t)st.st_blocks * 512;
	}
	closedir(dir);
	assert_true(bytes != UINT64_MAX);
	return bytes;
}

static uint64_t gauge(const struct served *s, const char *name)
{
	const struct counters *c = s->standalone.counters;

	for (unsigned i = 0; i < INSTANCE_GAUGES; i++)
		if (!strcmp(c->gauge_names[i], name))
			return __atomic_load_n(&c->gauges[i], __ATOMIC_RELAXED);
	fail_msg("there is no gauge '%s'", name);
	return 0;
}

static uint64_t allocated(const struct served *s)
{
	return gauge(s, "allocated-bytes");
}

/* ---- what it costs ---- */

static void test_unwritten_blocks_take_no_memory(void **state)
{
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		char words[100];

		snprintf(words, sizeof(words), "memory:1T queues=1 depth=2 io-path=%s",
			 io_path_name((enum io_path)path));
		begin(&s, words);
		for (uint64_t at = 0; at < 1ull << 40; at += 1ull << 35)
			reads_as(at, 64 * KIB, 0);
		assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 1ull << 30, 1u << 30, NULL), 0);
		assert_int_equal(request(0, UBLK_OP_WRITE_ZEROES, 0, 5ull << 30, 1u << 30, NULL),
				 0);
		assert_int_equal(taken(), 0);
		assert_int_equal(allocated(&s), 0);
		assert_int_equal(write_byte((1ull << 40) - 4096, 4096, 1), 0);
		assert_int_equal(taken(), 4096);
		assert_int_equal(allocated(&s), 2 * MIB);
		/* Beside it in the shard, which is counted whole. */
		reads_as((1ull << 40) - 8192, 4096, 0);
		assert_true(taken() <= allocated(&s));
		finish(&s);
	}
}

static void test_holes_are_given_back(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "memory:16M queues=1 depth=2 -oshard=1M");
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(write_byte(i * MIB, MIB, (uint8_t)(i + 1)), 0);
	assert_int_equal(taken(), 16 * MIB);
	assert_int_equal(allocated(&s), 16 * MIB);
	/* Whole shards, and parts of others, whose pages go too. */
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 2 * MIB + 512 * KIB, 4 * MIB, NULL), 0);
	assert_int_equal(taken(), 12 * MIB);
	assert_int_equal(allocated(&s), 13 * MIB);
	reads_as(2 * MIB, 512 * KIB, 3);
	reads_as(2 * MIB + 512 * KIB, 512 * KIB, 0);
	reads_as(4 * MIB, MIB, 0);
	reads_as(6 * MIB + 512 * KIB, 512 * KIB, 7);
	assert_int_equal(request(0, UBLK_OP_WRITE_ZEROES, 0, 8 * MIB, 2 * MIB, NULL), 0);
	assert_int_equal(allocated(&s), 11 * MIB);
	assert_true(taken() <= 11 * MIB);
	/* Kept: it counts as before. */
	assert_int_equal(
		request(0, UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, 10 * MIB, 2 * MIB, NULL), 0);
	assert_int_equal(allocated(&s), 11 * MIB);
	reads_as(10 * MIB, MIB, 0);
	/* Less than a page is zero all the same. */
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 12 * MIB + 512, 1024, NULL), 0);
	reads_as(12 * MIB, 512, 13);
	reads_as(12 * MIB + 512, 1024, 0);
	reads_as(12 * MIB + 1536, 512, 13);
	/* Again what was a hole. */
	assert_int_equal(write_byte(4 * MIB + 4096, 512, 9), 0);
	reads_as(4 * MIB, 4096, 0);
	reads_as(4 * MIB + 4096, 512, 9);
	reads_as(4 * MIB + 4096 + 512, MIB - 8192, 0);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, 16 * MIB, NULL), 0);
	assert_int_equal(taken(), 0);
	assert_int_equal(allocated(&s), 0);
	finish(&s);
}

static void test_sizes_that_no_shard_divides(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "memory:999936 queues=1 depth=2 -oshard=64K");
	assert_int_equal(s.standalone.serving.instance.limits.size, 1000000 / 512 * 512);
	assert_int_equal(write_byte(0, 960 * KIB, 5), 0);
	assert_int_equal(write_byte(1000000 / 512 * 512 - 512, 512, 6), 0);
	reads_as(1000000 / 512 * 512 - 512, 512, 6);
	assert_int_equal(write_byte(1000000 / 512 * 512, 512, 7), -EIO);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, 1000000 / 512 * 512, NULL), 0);
	reads_as(0, 960 * KIB, 0);
	finish(&s);
}

/* ---- the limit ---- */

static void test_the_limit_is_exact(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "memory:16M queues=1 depth=2 -oshard=64K -olimit=1M");
	assert_int_equal(gauge(&s, "limit-bytes"), MIB);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(write_byte(i * 512 * KIB, 512, (uint8_t)(i + 1)), 0);
	assert_int_equal(allocated(&s), MIB);
	/* Not one more, again and again; what is there can be written on. */
	for (unsigned i = 16; i < 32; i++)
		assert_int_equal(write_byte(i * 512 * KIB, 512, 1), -ENOSPC);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(write_byte(i * 512 * KIB + 4096, 512, 1), 0);
	assert_int_equal(write_byte(60 * KIB, 8 * KIB, 1), -ENOSPC);
	reads_as(16 * 512 * KIB, 64 * KIB, 0);
	reads_as(512 * KIB, 512, 2);
	assert_int_equal(allocated(&s), MIB);
	/* A part of a shard gives nothing back that another could have; a whole one does. */
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 512 * KIB, 32 * KIB, NULL), 0);
	assert_int_equal(write_byte(15 * MIB, 512, 1), -ENOSPC);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 512 * KIB, 64 * KIB, NULL), 0);
	assert_int_equal(write_byte(15 * MIB, 512, 1), 0);
	assert_int_equal(write_byte(15 * MIB + 64 * KIB, 512, 1), -ENOSPC);
	/* Zeroes that stay allocated free nothing. */
	assert_int_equal(request(0, UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, 0, 64 * KIB, NULL), 0);
	assert_int_equal(write_byte(14 * MIB, 512, 1), -ENOSPC);
	assert_int_equal(request(0, UBLK_OP_WRITE_ZEROES, 0, 0, 64 * KIB, NULL), 0);
	assert_int_equal(write_byte(14 * MIB, 512, 1), 0);
	finish(&s);
}

static void test_a_failed_punch_keeps_its_shards(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "memory:16M queues=1 depth=2 -oshard=64K -olimit=1M");
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(write_byte(i * 64 * KIB, 64 * KIB, (uint8_t)(i + 1)), 0);
	fake_work(IORING_OP_FALLOCATE, 0, 1, -EINTR);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, 512 * KIB, NULL), -EINTR);
	assert_int_equal(allocated(&s), MIB);
	for (unsigned i = 0; i < 16; i++)
		reads_as(i * 64 * KIB, 64 * KIB, (uint8_t)(i + 1));
	assert_int_equal(write_byte(2 * MIB, 512, 1), -ENOSPC);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, 512 * KIB, NULL), 0);
	assert_int_equal(allocated(&s), 512 * KIB);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(write_byte(2 * MIB + i * 64 * KIB, 512, 1), 0);
	assert_int_equal(write_byte(3 * MIB, 512, 1), -ENOSPC);
	finish(&s);
}

/* A write into shards that are being freed ends on either side of the discard, not within. */
static void test_writes_while_a_discard_is_under_way(void **state)
{
	struct fake_request *discard;
	struct served s;

	(void)state;
	for (unsigned fails = 0; fails < 2; fails++) {
		begin(&s, "memory:1M queues=1 depth=4 -oshard=64K");
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(write_byte(i * 64 * KIB, 64 * KIB, 0x11), 0);
		/* The hole is punched; that it is done, the backend has not heard yet. */
		if (fails)
			fake_work(IORING_OP_FALLOCATE, 0, 1, -EIO);
		fake_hold_work(true);
		discard = fake_request_start(0, 0, UBLK_OP_DISCARD, 0, 0, MIB, NULL);
		while (!fake_work_held())
			sleep_us(100);
		/* A shard that was live, and one that never was. */
		assert_int_equal(write_byte(3 * 64 * KIB + 4096, 4096, 0x22), 0);
		assert_int_equal(write_byte(12 * 64 * KIB + 4096, 4096, 0x33), 0);
		fake_hold_work(false);
		assert_int_equal(fake_request_wait(discard), fails ? -EIO : 0);
		reads_as(3 * 64 * KIB + 4096, 4096, 0x22);
		reads_as(12 * 64 * KIB + 4096, 4096, 0x33);
		reads_as(3 * 64 * KIB, 4096, fails ? 0x11 : 0);
		reads_as(12 * 64 * KIB, 4096, 0);
		reads_as(0, 64 * KIB, fails ? 0x11 : 0);
		assert_int_equal(allocated(&s), (fails ? 9 : 2) * 64 * KIB);
		assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, MIB, NULL), 0);
		assert_int_equal(allocated(&s), 0);
		assert_int_equal(taken(), 0);
		finish(&s);
	}
}

/*
 * A write of another queue that is under way, to a shard that is live: a discard of that shard
 * keeps it, or what is written would come back later, out of a shard that reads as zeroes.  With
 * the kernel's fence, and without.
 */
static void test_a_discard_of_a_shard_that_is_written(void **state)
{
	uint8_t *data = fake_data(4096, 0x22), *found = fake_data(4096, 0);
	struct fake_request *write, *discard;
	struct served s;

	(void)state;
	for (unsigned fence = 0; fence < 2; fence++) {
		begin_without(&s, "memory:1M queues=2 depth=2 io-path=user-copy -oshard=64K",
			      fence ? NULL : "membarrier");
		assert_int_equal(fake_failed() != NULL, !fence);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(write_byte(i * 64 * KIB, 64 * KIB, 0x11), 0);
		fake_hold_copies(true);
		write = fake_request_start(0, 0, UBLK_OP_WRITE, 0, 3 * 64 * KIB + 8192, 4096, data);
		while (!fake_copies_held())
			sleep_us(100);
		discard = fake_request_start(0, 1, UBLK_OP_DISCARD, 0, 0, MIB, NULL);
		assert_int_equal(fake_request_wait(discard), 0);
		fake_hold_copies(false);
		assert_int_equal(fake_request_wait(write), 0);
		/* What it reads as now, it reads as when another block was written. */
		assert_int_equal(request(0, UBLK_OP_READ, 0, 3 * 64 * KIB + 8192, 4096, found), 0);
		assert_int_equal(write_byte(3 * 64 * KIB, 4096, 0x33), 0);
		reads_as(3 * 64 * KIB + 8192, 4096, found[0]);
		/* Shards before it are free; from it on they stay, and read as zeroes. */
		assert_int_equal(allocated(&s), 5 * 64 * KIB);
		reads_as(0, 64 * KIB, 0);
		reads_as(7 * 64 * KIB, 64 * KIB, 0);
		assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, MIB, NULL), 0);
		assert_int_equal(allocated(&s), 0);
		assert_int_equal(taken(), 0);
		finish(&s);
	}
	fake_data_free(found);
	fake_data_free(data);
}

/* ---- a model, one thread, every size of shard ---- */

static void test_any_shard_size_reads_as_the_model(void **state)
{
	static const char *const shards[] = { "4K", "16K", "64K", "2M", "1G" };
	static uint8_t model[MIB], in[MIB];
	uint64_t seed = 11;

	(void)state;
	for (unsigned i = 0; i < sizeof(shards) / sizeof(*shards); i++) {
		struct served s;
		char words[100];

		snprintf(words, sizeof(words), "memory:1M queues=1 depth=1 -oshard=%s", shards[i]);
		begin(&s, words);
		memset(model, 0, sizeof(model));
		for (unsigned n = 0; n < 200; n++) {
			uint32_t length = 512u << next_random(&seed) % 9;
			uint64_t offset = next_random(&seed) % ((MIB - length) / 512) * 512;
			uint8_t byte = (uint8_t)(n + 1);

			switch (next_random(&seed) % 4) {
			case 0:
				assert_int_equal(
					request(0, UBLK_OP_DISCARD, 0, offset, length, NULL), 0);
				memset(model + offset, 0, length);
				break;
			case 1:
				assert_int_equal(request(0, UBLK_OP_WRITE_ZEROES,
							 n % 2 ? UBLK_REQ_NOUNMAP : 0, offset,
							 length, NULL),
						 0);
				memset(model + offset, 0, length);
				break;
			default:
				assert_int_equal(write_byte(offset, length, byte), 0);
				memset(model + offset, byte, length);
				break;
			}
		}
		assert_int_equal(request(0, UBLK_OP_READ, 0, 0, MIB, in), 0);
		assert_memory_equal(in, model, MIB);
		finish(&s);
	}
}

/* ---- all queues at once ---- */

#define WRITERS 4u
#define BLOCK   4096u
#define BLOCKS  64u /* in shards of 4: each shard has one of every writer's */
#define ROUNDS  400u

/*
 * Each block is written by one thread only; another discards ranges of them.
 * Times are counted, not measured: each event takes the next number.
 */
static struct {
	atomic_uint_fast64_t now;
	struct {
		uint64_t write_began, write_ended; /* its owner's */
		uint64_t pattern;
		atomic_uint discards;               /* under way */
		atomic_uint_fast64_t discard_ended; /* the last one */
		atomic_uint_fast64_t
			discard_began; /* of those that have ended, the last to begin */
	} block[BLOCKS];
	atomic_bool over;
	atomic_uint full;
} world;

static uint64_t tick(void)
{
	return atomic_fetch_add(&world.now, 1) + 1;
}

static void raise_to(atomic_uint_fast64_t *number, uint64_t to)
{
	uint_fast64_t is = atomic_load(number);

	while (is < to && !atomic_compare_exchange_weak(number, &is, to))
		;
}

static void write_block(unsigned queue, unsigned b, uint64_t pattern, uint64_t *words)
{
	uint64_t began = tick();
	int ret;

	for (unsigned i = 0; i < BLOCK / 8; i++)
		words[i] = pattern;
	ret = request(queue, UBLK_OP_WRITE, 0, (uint64_t)b * BLOCK, BLOCK, words);
	if (ret == -ENOSPC) {
		/* Nothing was written: the block is what it was. */
		atomic_fetch_add(&world.full, 1);
		return;
	}
	assert_int_equal(ret, 0);
	world.block[b].write_began = began;
	world.block[b].write_ended = tick();
	world.block[b].pattern = pattern;
}

static void check_block(unsigned queue, unsigned b, uint64_t *words)
{
	/* Of discards that had ended before the read began. */
	bool gone = atomic_load(&world.block[b].discard_began) > world.block[b].write_ended;
	bool zero = false, old = false, may_be_zero;

	memset(words, 0xff, BLOCK);
	assert_int_equal(request(queue, UBLK_OP_READ, 0, (uint64_t)b * BLOCK, BLOCK, words), 0);
	for (unsigned i = 0; i < BLOCK / 8; i++) {
		if (!words[i])
			zero = true;
		else if (words[i] == world.block[b].pattern)
			old = true;
		else
			fail_msg("block %u has what was never there: %#llx, and not %#llx", b,
				 (unsigned long long)words[i],
				 (unsigned long long)world.block[b].pattern);
	}
	may_be_zero = !world.block[b].pattern || atomic_load(&world.block[b].discards) ||
		      atomic_load(&world.block[b].discard_ended) > world.block[b].write_began;
	if (zero && !may_be_zero)
		fail_msg("block %u was lost", b);
	if (old && gone)
		fail_msg("block %u came back after a discard", b);
}

static void *write_and_check(void *arg)
{
	unsigned queue = (unsigned)(uintptr_t)arg;
	uint64_t *words = fake_data(BLOCK, 0), seed = queue + 1;

	for (unsigned i = 1; i <= ROUNDS; i++) {
		unsigned b = (unsigned)(next_random(&seed) % (BLOCKS / WRITERS)) * WRITERS + queue;

		if (i % 2)
			write_block(queue, b, (uint64_t)(queue + 1) << 32 | i, words);
		check_block(queue, b, words);
	}
	fake_data_free(words);
	return NULL;
}

static void *discard_ranges(void *arg)
{
	uint64_t seed = 99;

	(void)arg;
	for (unsigned i = 0; !atomic_load(&world.over); i++) {
		unsigned first = (unsigned)(next_random(&seed) % BLOCKS);
		unsigned n = 1 + (unsigned)(next_random(&seed) % 12);
		uint64_t began;

		if (n > BLOCKS - first)
			n = BLOCKS - first;
		for (unsigned b = first; b < first + n; b++)
			atomic_fetch_add(&world.block[b].discards, 1);
		began = tick();
		assert_int_equal(request(i % WRITERS,
					 i % 3 ? UBLK_OP_DISCARD : UBLK_OP_WRITE_ZEROES,
					 i % 2 ? UBLK_REQ_NOUNMAP : 0, (uint64_t)first * BLOCK,
					 n * BLOCK, NULL),
				 0);
		for (unsigned b = first; b < first + n; b++) {
			raise_to(&world.block[b].discard_began, began);
			raise_to(&world.block[b].discard_ended, tick());
			atomic_fetch_sub(&world.block[b].discards, 1);
		}
	}
	return NULL;
}

static void all_at_once(const char *options)
{
	pthread_t writers[WRITERS], discarders[2];
	struct served s;
	char words[200];

	memset(&world, 0, sizeof(world));
	snprintf(words, sizeof(words), "memory:%u queues=%u depth=4 -oshard=%u %s", BLOCKS * BLOCK,
		 WRITERS, WRITERS * BLOCK, options);
	begin(&s, words);
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, write_and_check, (void *)i);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&discarders[i], NULL, discard_ranges, NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	atomic_store(&world.over, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(discarders[i], NULL);
	/*
	 * Nothing under way: what counts is what is there, but for zeroes that a read has left in a
	 * shard which was freed meanwhile. They go with the shard, once it was written.
	 */
	assert_true(taken() <= allocated(&s) + BLOCKS / 8 * BLOCK);
	assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, BLOCKS * BLOCK, NULL), 0);
	assert_int_equal(allocated(&s), 0);
	for (unsigned b = 0; b < BLOCKS; b += WRITERS) {
		assert_int_equal(write_byte(b * BLOCK, BLOCK, 1), 0);
		assert_int_equal(request(0, UBLK_OP_DISCARD, 0, b * BLOCK, WRITERS * BLOCK, NULL),
				 0);
	}
	assert_int_equal(taken(), 0);
	reads_as(0, BLOCKS * BLOCK, 0);
	finish(&s);
}

static void test_all_queues_at_once(void **state)
{
	char options[100];

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		snprintf(options, sizeof(options), "io-path=%s", io_path_name((enum io_path)path));
		all_at_once(options);
		assert_int_equal(world.full, 0);
	}
}

static void test_all_queues_at_once_at_the_limit(void **state)
{
	(void)state;
	all_at_once("-olimit=96K io-path=copy");
	all_at_once("-olimit=96K io-path=user-copy");
	assert_true(world.full > 0);
}

/* Claims of one shard by all queues at once count once. */
static void test_a_shard_is_counted_once(void **state)
{
	struct fake_request *r[WRITERS * 4];
	void *data = fake_data(BLOCK, 1);
	struct served s;

	(void)state;
	begin(&s, "memory:64M queues=4 depth=4 -oshard=64K -olimit=32M");
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < WRITERS * 4; i++)
			r[i] = fake_request_start(0, i % WRITERS, UBLK_OP_WRITE, 0,
						  round * 64ull * KIB + i * BLOCK, BLOCK, data);
		for (unsigned i = 0; i < WRITERS * 4; i++)
			assert_int_equal(fake_request_wait(r[i]), 0);
	}
	assert_int_equal(allocated(&s), 300 * 64 * KIB);
	fake_data_free(data);
	finish(&s);
}

/* ---- the content of an earlier server ---- */

static int kept_fd;

static int keep_for_the_next(struct instance *instance, unsigned flags)
{
	(void)instance;
	(void)flags;
	return fcntl(kept_fd, F_DUPFD_CLOEXEC, 0);
}

/* Serves memory:4M with what an earlier server has kept in size bytes. */
static int take_over(off_t size, struct served *s, struct serving *serving)
{
	struct backend_host host = host_here;
	struct serving_of of = { .host = &host, .reason = OPEN_TAKEOVER };
	int ret, counters_fd;

	host.keep_memory = keep_for_the_next;
	kept_fd = memfd_create("kept", MFD_CLOEXEC);
	assert_int_equal(ftruncate(kept_fd, size), 0);
	assert_int_equal(pwrite(kept_fd, "kept", 4, MIB), 4);
	fake_start(&fake_linux_7_2);
	served_open(s, "memory:4M queues=1 depth=2 -oshard=1M");
	of.spec = &s->spec;
	of.counters = counters_create(1, s->spec.backend->gauges, &counters_fd);
	assert_non_null(of.counters);
	ret = serving_open(serving, &of, &s->err);
	close(counters_fd);
	close(kept_fd);
	if (!ret) {
		/* The one shard that holds something is known to do so. */
		assert_int_equal(of.counters->gauges[0], MIB);
		serving_close(serving);
	}
	counters_destroy(of.counters);
	served_close(s);
	fake_stop();
	return ret;
}

static void test_content_that_was_kept_is_taken_over(void **state)
{
	struct serving serving;
	struct served s;

	(void)state;
	assert_int_equal(take_over(4 * MIB, &s, &serving), 0);
	assert_int_equal(take_over(8 * MIB, &s, &serving), -ESTALE);
}

static void test_huge_pages(void **state)
{
	struct served s;
	int ret;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_open(&s, "memory:8M queues=1 depth=2 -ohugepages=2M -olimit=4M");
	ret = served_start(&s);
	if (ret) {
		/* Said in words, and nothing left. */
		assert_non_null(strstr(s.err.text, "hugepages=2M"));
		served_close(&s);
		fake_stop();
		print_message("no huge pages here: %s\n", s.err.text);
		skip();
	}
	ret = write_byte(0, 4096, 1);
	if (ret) {
		/* None is free: an error of the write, not a SIGBUS. */
		assert_int_equal(ret, -ENOSPC);
		assert_int_equal(allocated(&s), 0);
		reads_as(0, 4096, 0);
	} else {
		reads_as(0, 4096, 1);
		assert_int_equal(request(0, UBLK_OP_DISCARD, 0, 0, 2 * MIB, NULL), 0);
		reads_as(0, 4096, 0);
		assert_int_equal(allocated(&s), 0);
	}
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unwritten_blocks_take_no_memory),
		cmocka_unit_test(test_holes_are_given_back),
		cmocka_unit_test(test_sizes_that_no_shard_divides),
		cmocka_unit_test(test_the_limit_is_exact),
		cmocka_unit_test(test_a_failed_punch_keeps_its_shards),
		cmocka_unit_test(test_writes_while_a_discard_is_under_way),
		cmocka_unit_test(test_a_discard_of_a_shard_that_is_written),
		cmocka_unit_test(test_any_shard_size_reads_as_the_model),
		cmocka_unit_test(test_all_queues_at_once),
		cmocka_unit_test(test_all_queues_at_once_at_the_limit),
		cmocka_unit_test(test_a_shard_is_counted_once),
		cmocka_unit_test(test_content_that_was_kept_is_taken_over),
		cmocka_unit_test(test_huge_pages),
	};

	bound_time(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
