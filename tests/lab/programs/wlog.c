/* SPDX-License-Identifier: MIT */
/*
 * wlog: writes blocks that can be told apart, logs what it did outside of the
 * device, and checks afterwards that the device kept its promises:
 *
 *   per block: newest flushed and acknowledged <= found <= newest issued
 *
 *   wlog write [OPTIONS] DEVICE LOG    --blocks N --threads N --ops N --seed N
 *                                      --flush PERCENT --fua PERCENT --zero PERCENT --errors
 *                                      --pause MS
 *   wlog verify DEVICE LOG
 *
 * Each thread owns the blocks of its number modulo the threads, has one request
 * in flight, and a log of its own (LOG.0, LOG.1 …).  A log is a file, or with
 * LOG as "DEVICE@BYTES" an area of a block device, one sector a record, written
 * directly: that survives the machine's death, and so tells the truth after it.
 *
 * Every event takes a number from one counter.  A write is covered by a flush
 * when its acknowledgement's number is below that of the flush's issue: both
 * numbers are taken on the safe side, so nothing is asked that was not promised.
 * Reads between the writes must find what the thread wrote last.
 *
 * Exit status: 0 all promises kept, 1 one broken (said on stderr, with block and
 * sequence), 2 it could not tell.  An I/O error ends the writing with 2, or with
 * --errors is logged and writing goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK        4096u
#define SECTOR       512u
#define THREADS_MAX  64
#define AREA_BYTES   (4u << 20) /* of a log on a block device, for each thread */
#define BLOCK_MAGIC  0x776c6f672d626c6bull
#define RECORD_MAGIC 0x776c6f67u

enum event {
	EVENT_ISSUE, /* a write of block: sequence says which; zeroes if flagged */
	EVENT_ACK,
	EVENT_ERROR,
	EVENT_FLUSH_ISSUE,
	EVENT_FLUSH_ACK, /* number_of: that of its issue */
	EVENT_FLUSH_ERROR,
};

#define RECORD_ZERO 1u /* the block becomes zeroes */
#define RECORD_FUA  2u /* acknowledged means durable */

struct record {
	uint32_t magic;
	uint8_t event;
	uint8_t flags;
	uint16_t code; /* errno */
	uint64_t number;
	uint64_t block;
	uint64_t sequence; /* a flush: the number of its issue */
};

struct block_head { /* the rest of a block is a stream made of these */
	uint64_t magic;
	uint64_t block;
	uint64_t sequence;
	uint64_t sum;
};

struct log {
	int fd;
	bool direct;
	off_t offset, end;
	void *sector;
};

static struct {
	const char *device, *log;
	uint64_t blocks, ops, seed;
	unsigned threads, flush, fua, zero, pause_ms;
	bool errors;
} set = { .blocks = 1024, .ops = 1000, .seed = 1, .threads = 4, .flush = 5, .fua = 5 };

static atomic_uint_fast64_t next_number = 1;
static atomic_int worst;

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("wlog: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

/* splitmix64: from one number the next, well mixed. */
static uint64_t mix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* ---- blocks ---- */

static uint64_t sum_of(const void *data)
{
	const uint64_t *word = data;
	uint64_t sum = 0xcbf29ce484222325ull;

	for (unsigned i = sizeof(struct block_head) / 8; i < BLOCK / 8; i++)
		sum = (sum ^ word[i]) * 0x100000001b3ull;
	return sum;
}

static void make_block(void *data, uint64_t block, uint64_t sequence)
{
	struct block_head *head = data;
	uint64_t *word = data, state = block * 0x100000001ull ^ sequence;

	for (unsigned i = sizeof(*head) / 8; i < BLOCK / 8; i++)
		word[i] = mix(&state);
	*head = (struct block_head){ BLOCK_MAGIC, block, sequence, sum_of(data) };
}

enum found {
	FOUND_ZERO,
	FOUND_SEQUENCE,
	FOUND_GARBAGE
};

static enum found look_at_block(const void *data, uint64_t block, uint64_t *sequence)
{
	static const uint8_t zeroes[BLOCK];
	const struct block_head *head = data;

	*sequence = 0;
	if (!memcmp(data, zeroes, BLOCK))
		return FOUND_ZERO;
	if (head->magic != BLOCK_MAGIC || head->block != block || head->sum != sum_of(data))
		return FOUND_GARBAGE;
	*sequence = head->sequence;
	return FOUND_SEQUENCE;
}

/* ---- the log ---- */

static void log_open(struct log *log, unsigned thread, bool writing)
{
	char path[512];
	char *at;
	uint64_t base;

	*log = (struct log){ 0 };
	snprintf(path, sizeof(path), "%s", set.log);
	at = strrchr(path, '@');
	if (at) {
		*at = 0;
		base = strtoull(at + 1, NULL, 10);
		log->direct = true;
		log->offset = (off_t)(base + (uint64_t)thread * AREA_BYTES);
		log->end = log->offset + AREA_BYTES;
		log->sector = aligned_alloc(BLOCK, BLOCK);
		memset(log->sector, 0, SECTOR);
		log->fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	} else {
		snprintf(path + strlen(path), sizeof(path) - strlen(path), ".%u", thread);
		log->fd = open(path, (writing ? O_RDWR | O_CREAT | O_TRUNC : O_RDONLY) | O_CLOEXEC,
			       0600);
		log->end = INT64_MAX;
	}
	if (log->fd < 0 && writing)
		die("%s: %s", path, strerror(errno));
	/* An empty record ends a log on a device: what lay there before must not be read on. */
	if (log->direct && writing && pwrite(log->fd, log->sector, SECTOR, log->offset) != SECTOR)
		die("%s: %s", path, strerror(errno));
}

static void log_put(struct log *log, struct record record)
{
	size_t size = log->direct ? SECTOR : sizeof(record);
	const void *data = &record;

	record.magic = RECORD_MAGIC;
	if (log->direct) {
		memcpy(log->sector, &record, sizeof(record));
		data = log->sector;
	}
	if (log->offset + (off_t)size > log->end)
		die("the log's area is full: fewer --ops");
	if (pwrite(log->fd, data, size, log->offset) != (ssize_t)size)
		die("writing the log: %s", strerror(errno));
	log->offset += (off_t)size;
	if (!log->direct || log->offset + SECTOR > log->end)
		return;
	/* The next sector may hold an older run's record. */
	memset(log->sector, 0, SECTOR);
	if (pwrite(log->fd, log->sector, SECTOR, log->offset) != SECTOR)
		die("writing the log: %s", strerror(errno));
}

static bool log_get(struct log *log, struct record *record)
{
	size_t size = log->direct ? SECTOR : sizeof(*record);
	void *data = log->direct ? log->sector : record;

	if (log->fd < 0 || log->offset + (off_t)size > log->end ||
	    pread(log->fd, data, size, log->offset) != (ssize_t)size)
		return false;
	if (log->direct)
		memcpy(record, data, sizeof(*record));
	log->offset += (off_t)size;
	return record->magic == RECORD_MAGIC;
}

/* ---- writing ---- */

struct writer {
	pthread_t thread;
	unsigned index;
	int fd, fua_fd;
	struct log log;
	uint64_t state;  /* of the random numbers */
	uint64_t *last;  /* sequence of each own block's last acknowledged write */
	bool *last_zero; /* and whether it left zeroes */
	bool *unsure;    /* a write to it failed: it may hold either */
	void *data;
};

static bool chance(struct writer *w, unsigned percent)
{
	return mix(&w->state) % 100 < percent;
}

static void failed_io(struct writer *w, struct record record, int code, const char *what)
{
	if (!set.errors)
		die("%s: block %" PRIu64 ": %s", what, record.block, strerror(code));
	record.code = (uint16_t)code;
	record.number = atomic_fetch_add(&next_number, 1);
	log_put(&w->log, record);
}

static void flush_all(struct writer *w)
{
	struct record record = { .event = EVENT_FLUSH_ISSUE };
	uint64_t number = atomic_fetch_add(&next_number, 1);

	record.number = number;
	log_put(&w->log, record);
	record.sequence = number;
	if (fdatasync(w->fd)) {
		record.event = EVENT_FLUSH_ERROR;
		failed_io(w, record, errno, "flush");
		return;
	}
	record.event = EVENT_FLUSH_ACK;
	record.number = atomic_fetch_add(&next_number, 1);
	log_put(&w->log, record);
}

static int change(struct writer *w, uint64_t block, uint64_t sequence, bool zero, bool fua)
{
	off_t offset = (off_t)(block * BLOCK);
	ssize_t done;

	if (zero)
		return fallocate(w->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, BLOCK)
			       ? errno
			       : 0;
	make_block(w->data, block, sequence);
	done = pwrite(fua ? w->fua_fd : w->fd, w->data, BLOCK, offset);
	return done == BLOCK ? 0 : done < 0 ? errno : EIO;
}

static void write_block(struct writer *w, uint64_t own)
{
	uint64_t block = own * set.threads + w->index;
	bool zero = chance(w, set.zero), fua = !zero && chance(w, set.fua);
	struct record record = {
		.event = EVENT_ISSUE,
		.flags = (uint8_t)((zero ? RECORD_ZERO : 0) | (fua ? RECORD_FUA : 0)),
		.block = block,
	};
	int code;

	record.number = record.sequence = atomic_fetch_add(&next_number, 1);
	log_put(&w->log, record);
	code = change(w, block, record.sequence, zero, fua);
	if (code) {
		w->unsure[own] = true;
		record.event = EVENT_ERROR;
		failed_io(w, record, code, zero ? "zeroing" : "write");
		return;
	}
	w->last[own] = record.sequence;
	w->last_zero[own] = zero;
	w->unsure[own] = false;
	record.event = EVENT_ACK;
	record.number = atomic_fetch_add(&next_number, 1);
	log_put(&w->log, record);
}

/* Nobody else writes this block, so it must be what this thread wrote last. */
static void check_block(struct writer *w, uint64_t own)
{
	uint64_t block = own * set.threads + w->index, sequence;
	ssize_t done = pread(w->fd, w->data, BLOCK, (off_t)(block * BLOCK));
	enum found found;

	if (w->unsure[own])
		return;
	if (done != BLOCK) {
		if (!set.errors)
			die("read: block %" PRIu64 ": %s", block,
			    done < 0 ? strerror(errno) : "short");
		return;
	}
	found = look_at_block(w->data, block, &sequence);
	if (!w->last[own])
		return; /* from before this run */
	if (w->last_zero[own] ? found == FOUND_ZERO
			      : found == FOUND_SEQUENCE && sequence == w->last[own])
		return;
	fprintf(stderr,
		"wlog: block %" PRIu64 ": read %s %" PRIu64 " after %s %" PRIu64
		" was acknowledged\n",
		block,
		found == FOUND_GARBAGE ? "garbage"
		: found == FOUND_ZERO  ? "zeroes"
				       : "sequence",
		sequence, w->last_zero[own] ? "zeroes" : "sequence", w->last[own]);
	atomic_store(&worst, 1);
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t own_blocks = set.blocks / set.threads;

	for (uint64_t i = 0; i < set.ops && !atomic_load(&worst); i++) {
		uint64_t own = mix(&w->state) % own_blocks;

		write_block(w, own);
		if (chance(w, set.flush))
			flush_all(w);
		if (chance(w, 25))
			check_block(w, mix(&w->state) % own_blocks);
		if (set.pause_ms)
			usleep(set.pause_ms * 1000);
	}
	return NULL;
}

static int write_all(void)
{
	struct writer *writers = calloc(set.threads, sizeof(*writers));
	uint64_t own_blocks = set.blocks / set.threads;

	if (!own_blocks)
		die("fewer blocks than threads");
	for (unsigned i = 0; i < set.threads; i++) {
		struct writer *w = &writers[i];

		w->index = i;
		w->state = set.seed * 1000003 + i;
		w->fd = open(set.device, O_RDWR | O_DIRECT | O_CLOEXEC);
		w->fua_fd = open(set.device, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
		if (w->fd < 0 || w->fua_fd < 0)
			die("%s: %s", set.device, strerror(errno));
		w->last = calloc(own_blocks, sizeof(*w->last));
		w->last_zero = calloc(own_blocks, sizeof(*w->last_zero));
		w->unsure = calloc(own_blocks, sizeof(*w->unsure));
		w->data = aligned_alloc(BLOCK, BLOCK);
		log_open(&w->log, i, true);
	}
	for (unsigned i = 0; i < set.threads; i++)
		if (pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]))
			die("a thread cannot be started");
	for (unsigned i = 0; i < set.threads; i++) {
		struct writer *w = &writers[i];

		pthread_join(w->thread, NULL);
		free(w->last);
		free(w->last_zero);
		free(w->unsure);
		free(w->data);
	}
	free(writers);
	return worst;
}

/* ---- verifying ---- */

/* Log entries of a block. */
struct history {
	uint64_t required;  /* the newest sequence that must not be lost */
	uint64_t newest;    /* the newest that was issued */
	uint64_t last_zero; /* the newest that left zeroes */
	bool required_zero;
};

/* The number of the newest flush that succeeded, at its issue. */
static uint64_t newest_flush(void)
{
	struct record record;
	uint64_t newest = 0;
	struct log log;

	for (unsigned i = 0; i < THREADS_MAX; i++) {
		log_open(&log, i, false);
		while (log_get(&log, &record))
			if (record.event == EVENT_FLUSH_ACK && record.sequence > newest)
				newest = record.sequence;
	}
	return newest;
}

static struct history *read_history(uint64_t *blocks, uint64_t *records)
{
	uint64_t flushed = newest_flush();
	struct history *all = NULL;
	struct record record;
	struct log log;

	*blocks = *records = 0;
	for (unsigned i = 0; i < THREADS_MAX; i++) {
		log_open(&log, i, false);
		while (log_get(&log, &record)) {
			struct history *h;

			++*records;
			if (record.event != EVENT_ISSUE && record.event != EVENT_ACK)
				continue;
			if (record.block >= *blocks) {
				uint64_t more = record.block + 1024;

				all = realloc(all, more * sizeof(*all));
				if (!all)
					die("no memory");
				memset(all + *blocks, 0, (more - *blocks) * sizeof(*all));
				*blocks = more;
			}
			h = &all[record.block];
			if (record.event == EVENT_ISSUE) {
				h->newest = record.sequence;
				if (record.flags & RECORD_ZERO)
					h->last_zero = record.sequence;
			} else if (record.number < flushed || record.flags & RECORD_FUA) {
				h->required = record.sequence;
				h->required_zero = record.flags & RECORD_ZERO;
			}
		}
	}
	return all;
}

static bool promise_kept(const struct history *h, enum found found, uint64_t sequence)
{
	switch (found) {
	case FOUND_ZERO:
		return !h->required || h->required_zero || h->last_zero >= h->required;
	case FOUND_SEQUENCE:
		return sequence >= h->required && sequence <= h->newest;
	case FOUND_GARBAGE:
		break;
	}
	return false;
}

static int verify_all(void)
{
	static const char *const words[] = { "zeroes", "sequence", "garbage" };
	uint64_t blocks, records, written = 0, required = 0, broken = 0;
	struct history *all = read_history(&blocks, &records);
	void *data = aligned_alloc(BLOCK, BLOCK);
	int fd = open(set.device, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", set.device, strerror(errno));
	if (!records)
		die("%s: the log is empty", set.log);
	for (uint64_t block = 0; block < blocks; block++) {
		const struct history *h = &all[block];
		uint64_t sequence;
		enum found found;

		if (!h->newest)
			continue;
		written++;
		required += h->required != 0;
		if (pread(fd, data, BLOCK, (off_t)(block * BLOCK)) != BLOCK)
			die("read: block %" PRIu64 ": %s", block, strerror(errno));
		found = look_at_block(data, block, &sequence);
		if (promise_kept(h, found, sequence))
			continue;
		if (broken++ < 20)
			fprintf(stderr,
				"wlog: block %" PRIu64 ": found %s %" PRIu64 ", but %" PRIu64
				" was durable and %" PRIu64 " the newest issued\n",
				block, words[found], sequence, h->required, h->newest);
	}
	printf("%" PRIu64 " records, %" PRIu64 " blocks written, %" PRIu64
	       " with durable content, %" PRIu64 " promises broken\n",
	       records, written, required, broken);
	return broken ? 1 : 0;
}

/* ---- the command line ---- */

static uint64_t number(const char *name, const char *text, uint64_t most)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value > most)
		die("--%s: '%s': give a number up to %" PRIu64, name, text, most);
	return value;
}

static void parse_option(int index, const struct option *option)
{
	switch (index) {
	case 'b':
		set.blocks = number(option->name, optarg, 1u << 30);
		break;
	case 't':
		set.threads = (unsigned)number(option->name, optarg, THREADS_MAX);
		break;
	case 'o':
		set.ops = number(option->name, optarg, 1u << 30);
		break;
	case 's':
		set.seed = number(option->name, optarg, 1u << 30);
		break;
	case 'f':
		set.flush = (unsigned)number(option->name, optarg, 100);
		break;
	case 'u':
		set.fua = (unsigned)number(option->name, optarg, 100);
		break;
	case 'z':
		set.zero = (unsigned)number(option->name, optarg, 100);
		break;
	case 'p':
		set.pause_ms = (unsigned)number(option->name, optarg, 10000);
		break;
	case 'e':
		set.errors = true;
		break;
	default:
		die("unknown option: see the head of wlog.c");
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "blocks", required_argument, NULL, 'b' },
		{ "threads", required_argument, NULL, 't' },
		{ "ops", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' },
		{ "flush", required_argument, NULL, 'f' },
		{ "fua", required_argument, NULL, 'u' },
		{ "zero", required_argument, NULL, 'z' },
		{ "pause", required_argument, NULL, 'p' },
		{ "errors", no_argument, NULL, 'e' },
		{ NULL, 0, NULL, 0 },
	};
	int c, index = 0;

	while ((c = getopt_long(argc, argv, "", options, &index)) != -1)
		parse_option(c, &options[index]);
	if (argc - optind != 3)
		die("usage: wlog write|verify [OPTIONS] DEVICE LOG");
	set.device = argv[optind + 1];
	set.log = argv[optind + 2];
	if (!set.threads)
		die("--threads: at least 1");
	if (!strcmp(argv[optind], "write"))
		return write_all();
	if (!strcmp(argv[optind], "verify"))
		return verify_all();
	die("'%s': write or verify", argv[optind]);
}
