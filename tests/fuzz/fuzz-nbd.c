/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend against any server: a libFuzzer target.
 *
 *   fuzz-nbd [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-nbd --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * An input is a head of four bytes, which says how the export is opened and what
 * is asked of it, and a script for the server (nbd-script.h).
 *
 * Whatever the server does: no sanitizer's report, each request ends once and within
 * the deadline, and what is open can be closed.  And where the server is honest,
 * which is to say only unreliable (it cuts, hangs, is slow, dies and forgets what
 * was not flushed), each read finds what was written last, what a flush covers is
 * on its stable storage, and few mishaps are no error at all.
 *
 * FUZZ_VERBOSE=1 shows what the backend logs and what is asked of it.
 */
#include "tests/fuzz/nbd-script.h"
#include "tests/fuzz/seeds.h"
#include "tests/fuzz/stage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The head's bytes. */
#define HEAD_BYTES 4
enum head {
	HEAD_SERVER, /* enum of_server */
	HEAD_EXPORT, /* enum of_export; the two highest bits: retain */
	HEAD_SEED,   /* of what is asked */
	HEAD_WORK,   /* requests to make, halved; bit 0: close at once behind them */
};
enum of_server {
	SERVER_HONEST = 1,
	SERVER_SIMPLE = 2, /* no structured replies */
	SERVER_MULTI = 4,
	SERVER_READ_ONLY = 8,
	SERVER_NO_ZEROES = 16,
	SERVER_NO_FUA = 32,
	/* How data crosses, on the device's side. */
	USER_COPY = 64,
	COPIES_FAIL = 128, /* now and then: user copy alone */
};
enum of_export {
	EXPORT_TWO_QUEUES = 1,
	EXPORT_READ_ONLY = 2,
	EXPORT_NO_STRUCTURED = 4,
	EXPORT_NO_DEADLINE = 8, /* of an honest server only: it waits for ever */
	EXPORT_DEADLINE_0 = 16,
	EXPORT_RESIZE = 32, /* asked for its size, now and then */
	EXPORT_RETAIN_0 = 64,
	EXPORT_RETAIN_TRUST = 128,
};

#define DEADLINE_S 120u
#define FEW        4u /* mishaps that end within the deadline: a time-out, then back-off */
#define NS_PER_S   (1000 * STAGE_NS_PER_MS)
/* A liar may be suspected again and again before the deadline counts. */
#define OVERDUE_S (DEADLINE_S + 600)
#define PATIENT_S 86400u

/* The last blocks are trimmed and zeroed, too, and what they hold is not looked at. */
#define CHECKED 48u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char socket_path[108];

/* Acknowledgements of a block, as sequence numbers of its writes. */
struct block {
	uint32_t issued, acked, required;
	uint32_t given_up; /* what a flush that failed has told of: no later one covers it */
	bool busy;
};

static struct {
	bool honest, keeps; /* keeps: what was acknowledged survives the server's death */
	bool deadline_0, resizes, copies_fail;
	uint64_t seed;
	unsigned left; /* requests to make */
	uint32_t sequence;
	unsigned failed, failed_flushes;
	struct block blocks[SCRIPT_BLOCKS];
	uint32_t covers[STAGE_QUEUES_MAX][STAGE_DEPTH][SCRIPT_BLOCKS];
	bool last_flush_done;
	int last_flush;
	bool verbose;
} work;

static unsigned chance(unsigned n)
{
	work.seed = work.seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(work.seed >> 33) % n;
}

/* ---- content ---- */

static uint32_t word_of(uint32_t block, uint32_t sequence, uint32_t i)
{
	return (sequence * 0x9e3779b1u ^ block * 0x85ebca6bu) + i * 0xc2b2ae35u;
}

static void fill_block(uint8_t *data, uint32_t block, uint32_t sequence)
{
	for (uint32_t i = 0; i < SCRIPT_BLOCK / 4; i++) {
		uint32_t word = i ? word_of(block, sequence, i) : sequence;

		memcpy(data + i * 4, &word, 4);
	}
}

/* The sequence that it holds; 0: zeroes.  False: nothing that was ever written there. */
static bool look_at_block(const uint8_t *data, uint32_t block, uint32_t *sequence)
{
	uint8_t wanted[SCRIPT_BLOCK] = { 0 };

	memcpy(sequence, data, 4);
	if (*sequence)
		fill_block(wanted, block, *sequence);
	return !memcmp(data, wanted, SCRIPT_BLOCK);
}

static void check_block(const uint8_t *data, uint32_t block, uint32_t least, const char *where)
{
	const struct block *b = &work.blocks[block];
	uint32_t found;

	if (!look_at_block(data, block, &found))
		stage_broken("block %u %s: garbage", block, where);
	if (found < least || found > b->issued)
		stage_broken("block %u %s: %u, and not from %u to %u", block, where, found, least,
			     b->issued);
}

/* ---- requests ---- */

static void for_blocks(const struct io *io, uint32_t *first, uint32_t *end)
{
	*first = (uint32_t)(io->offset / SCRIPT_BLOCK);
	*end = (uint32_t)((io->offset + io->length) / SCRIPT_BLOCK);
	if (*end > SCRIPT_BLOCKS)
		*end = SCRIPT_BLOCKS;
	if (*first > *end)
		*first = *end;
}

static void flush_acked(const struct io *io)
{
	const uint32_t *covers = work.covers[io->queue->index][io->tag];

	for (uint32_t i = 0; i < SCRIPT_BLOCKS; i++)
		if (covers[i] > work.blocks[i].required && covers[i] > work.blocks[i].given_up)
			work.blocks[i].required = covers[i];
}

static void count_failure(const struct io *io, int result)
{
	work.failed++;
	work.failed_flushes += io->op == IO_FLUSH;
	if (!result || (io->op <= IO_WRITE && result > 0))
		stage_broken("op %u of %u bytes ends with %d", io->op, io->length, result);
}

static void ended(struct queue *queue, struct stage_request *r, int result)
{
	const struct io *io = &r->io;
	bool ok = result >= 0 && (io->op > IO_WRITE || (uint32_t)result == io->length);
	uint32_t first, end;

	if (work.verbose)
		fprintf(stderr, "%10.3f queue %u tag %u op %u at %llu+%u ends: %d\n",
			(double)stage.now_ns / 1e9, queue->index, io->tag, io->op,
			(unsigned long long)io->offset, io->length, result);
	if (!ok)
		count_failure(io, result);
	for_blocks(io, &first, &end);
	for (uint32_t i = first; i < end && io->op != IO_FLUSH; i++) {
		struct block *b = &work.blocks[i];

		b->busy = false;
		if (!ok || !work.honest || i >= CHECKED)
			continue;
		if (io->op == IO_WRITE) {
			b->acked = (uint32_t)r->mark;
			if (io->flags & IO_FUA)
				b->required = b->acked;
		} else if (io->op == IO_READ) {
			check_block((const uint8_t *)r->data + (i - first) * SCRIPT_BLOCK, i,
				    work.keeps ? b->acked : b->required, "as read");
		}
	}
	if (io->op == IO_FLUSH && ok)
		flush_acked(io);
	for (uint32_t i = 0; i < SCRIPT_BLOCKS && io->op == IO_FLUSH && !ok; i++)
		work.blocks[i].given_up = work.blocks[i].acked;
	if (io->op == IO_FLUSH && !work.left)
		work.last_flush_done = true, work.last_flush = result;
}

/* A range for io, of whole logical blocks, and in an honest run of whole free blocks. */
static bool choose_range(struct io *io)
{
	const struct backend_limits *l = &stage.instance.limits;
	uint32_t unit = work.honest ? SCRIPT_BLOCK : l->logical_block;
	uint32_t most = l->max_io && l->max_io < 65536 ? l->max_io : 65536, first, end;
	uint64_t units = l->size / unit, count = 1 + chance(4);

	if (count > most / unit)
		count = most / unit ? most / unit : 1;
	if (count > units)
		count = units;
	/* Near the start, or at the very end. */
	io->offset = chance(16) ? chance(SCRIPT_SIZE / unit) : units - count;
	if (io->offset > units - count)
		io->offset = units - count;
	io->offset *= unit;
	io->length = (uint32_t)count * unit;
	for_blocks(io, &first, &end);
	for (uint32_t i = first; i < end; i++)
		if (work.honest && work.blocks[i].busy)
			return false;
	return true;
}

static void choose_op(struct io *io)
{
	const struct backend_limits *l = &stage.instance.limits;
	unsigned dice = chance(20);

	io->flags = 0;
	if (dice < 7 || l->read_only) {
		io->op = IO_READ;
	} else if (dice < 15) {
		io->op = IO_WRITE;
		if (l->fua && !chance(6))
			io->flags = IO_FUA;
	} else if (dice < 18) {
		io->op = l->volatile_cache ? IO_FLUSH : IO_READ;
	} else if (dice < 19) {
		io->op = l->max_discard ? IO_DISCARD : IO_READ;
	} else {
		io->op = l->max_write_zeroes ? IO_WRITE_ZEROES : IO_READ;
		if (io->op == IO_WRITE_ZEROES && chance(2))
			io->flags = IO_KEEP;
	}
}

static void begin_write(struct stage_request *r)
{
	struct io *io = &r->io;
	uint32_t first, end;

	r->mark = ++work.sequence;
	for_blocks(io, &first, &end);
	for (uint32_t i = first; i < end; i++) {
		work.blocks[i].issued = work.sequence;
		if (work.honest)
			fill_block((uint8_t *)r->data + (i - first) * SCRIPT_BLOCK, i,
				   work.sequence);
	}
}

static void start_flush(struct stage_request *r)
{
	r->io.op = IO_FLUSH;
	r->io.flags = 0;
	r->io.offset = r->io.length = 0;
	for (uint32_t i = 0; i < SCRIPT_BLOCKS; i++)
		work.covers[r->io.queue->index][r->io.tag][i] = work.blocks[i].acked;
}

static void set_busy(const struct io *io)
{
	uint32_t first, end;

	for_blocks(io, &first, &end);
	for (uint32_t i = first; i < end; i++)
		work.blocks[i].busy = true;
}

static bool start_request(struct queue *queue)
{
	struct stage_request *r = stage_free_tag(queue);

	if (!r)
		return false;
	choose_op(&r->io);
	if (r->io.op == IO_FLUSH) {
		start_flush(r);
	} else if (!choose_range(&r->io)) {
		return false;
	}
	if (r->io.op > IO_WRITE && r->io.op != IO_FLUSH && work.honest &&
	    r->io.offset < CHECKED * SCRIPT_BLOCK)
		r->io.op = IO_READ, r->io.flags = 0;
	stage_data(r);
	if (r->io.op == IO_WRITE)
		begin_write(r);
	if (r->io.op != IO_FLUSH)
		set_busy(&r->io);
	if (work.verbose)
		fprintf(stderr, "%10.3f queue %u tag %u op %u at %llu+%u flags %u mark %llu\n",
			(double)stage.now_ns / 1e9, queue->index, r->io.tag, r->io.op,
			(unsigned long long)r->io.offset, r->io.length, r->io.flags,
			(unsigned long long)r->mark);
	stage_submit(r);
	return true;
}

/* ---- a run ---- */

static void check_age(unsigned most_s)
{
	uint64_t oldest;

	if (!stage_serving(&oldest))
		return;
	if (stage.now_ns - oldest > most_s * NS_PER_S)
		stage_broken("a request has not ended after %u s", most_s);
}

/* A round of all.  Returns whether anything has moved. */
static bool round_of_all(void)
{
	bool any = script_step();

	stage_follow_size();
	if (work.resizes && work.left && !chance(32))
		stage_resize();
	for (unsigned i = 0; i < stage.instance.nr_queues; i++) {
		struct queue *queue = &stage.queues[i];

		any |= stage_take(queue);
		/* Seldom all at once. */
		while (work.left && chance(3) && start_request(queue)) {
			work.left--;
			any = true;
		}
		stage_round_end(queue);
	}
	return any;
}

static void let_pass(void)
{
	uint64_t next = script_next_ns(), most = 10 * NS_PER_S;

	if (next > stage.now_ns && next - stage.now_ns < most)
		most = next - stage.now_ns;
	/* With requests to come, they come soon. */
	if (work.left && most > 10 * STAGE_NS_PER_MS)
		most = 10 * STAGE_NS_PER_MS;
	stage_let_pass(most);
}

static void run_until_done(unsigned most_s)
{
	uint64_t oldest;

	while (work.left || stage_serving(&oldest)) {
		if (!round_of_all())
			let_pass();
		check_age(most_s);
	}
}

/* All that was acknowledged, onto stable storage. */
static void flush_at_the_end(unsigned most_s)
{
	struct stage_request *r = stage_free_tag(&stage.queues[0]);

	start_flush(r);
	stage_data(r);
	stage_submit(r);
	stage_round_end(&stage.queues[0]);
	run_until_done(most_s);
}

static void check_end(void)
{
	for (uint32_t i = 0; i < CHECKED && work.honest; i++)
		check_block(script_stable() + i * SCRIPT_BLOCK, i, work.blocks[i].required,
			    "on the server");
	if (!work.honest || work.deadline_0 || work.copies_fail || script_mishaps() > FEW)
		return;
	if (work.failed > (work.keeps ? 0 : work.failed_flushes))
		stage_broken("%u requests failed over %u mishaps", work.failed, script_mishaps());
}

static void words_for(char *words, size_t size, unsigned instance)
{
	unsigned deadline = instance & EXPORT_DEADLINE_0 ? 0 : DEADLINE_S;

	snprintf(words, size, "nbd+unix:///?socket=%s request-timeout=2", socket_path);
	words += strlen(words);
	if (!(instance & EXPORT_NO_DEADLINE) || !work.honest)
		snprintf(words, 64, " reconnect-deadline=%u", deadline);
	strcat(words, instance & EXPORT_NO_STRUCTURED ? " structured=off" : " structured=on");
	if (instance & EXPORT_RETAIN_TRUST)
		strcat(words, " retain=trust");
	else if (instance & EXPORT_RETAIN_0)
		strcat(words, " retain=0");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script_setup setup = { .socket = socket_path };
	unsigned from, instance, most_s = OVERDUE_S;
	char words[512];

	if (size < HEAD_BYTES)
		return 0;
	from = data[HEAD_SERVER];
	instance = data[HEAD_EXPORT];
	memset(&work, 0, sizeof(work));
	srandom(1);
	work.verbose = getenv("FUZZ_VERBOSE") != NULL;
	work.honest = from & SERVER_HONEST;
	work.keeps = !(instance & (EXPORT_RETAIN_0 | EXPORT_RETAIN_TRUST));
	work.deadline_0 = instance & EXPORT_DEADLINE_0;
	work.resizes = instance & EXPORT_RESIZE;
	work.copies_fail = from & USER_COPY && from & COPIES_FAIL;
	work.seed = data[HEAD_SEED] * 2862933555777941757ull + 1;
	work.left = data[HEAD_WORK] / 2;
	if (work.honest && instance & EXPORT_NO_DEADLINE)
		most_s = PATIENT_S;

	setup.data = data + HEAD_BYTES;
	setup.size = size - HEAD_BYTES;
	setup.honest = work.honest;
	setup.verbose = work.verbose;
	setup.durable = instance & EXPORT_RETAIN_TRUST;
	setup.structured = !(from & SERVER_SIMPLE);
	setup.multi_conn = from & SERVER_MULTI;
	setup.read_only = from & SERVER_READ_ONLY;
	setup.no_zeroes = from & SERVER_NO_ZEROES;
	setup.no_fua = from & SERVER_NO_FUA;
	words_for(words, sizeof(words), instance);
	script_start(&setup);
	if (!stage_open(words, instance & EXPORT_TWO_QUEUES ? 2 : 1, instance & EXPORT_READ_ONLY,
			script_step, ended)) {
		stage.user_copy = from & USER_COPY;
		stage.copies_fail = from & COPIES_FAIL ? 11 : 0;
		if (data[HEAD_WORK] & 1) {
			while (work.left) {
				if (!round_of_all())
					let_pass();
				check_age(most_s);
			}
		} else {
			run_until_done(most_s);
			flush_at_the_end(most_s);
			check_end();
		}
		stage_close();
	}
	script_end();
	return 0;
}

/* ---- inputs to begin with ---- */

/* Each act, at places from the first message to the fiftieth, in each kind of export. */
static void write_seeds(const char *directory)
{
	unsigned number = 0;
	uint8_t input[HEAD_BYTES + 64];

	for (unsigned act = ACT_SEND; act < 16; act++)
		for (unsigned place = 0; place < 24; place++) {
			size_t n = HEAD_BYTES;

			input[HEAD_SERVER] =
				(uint8_t)((number * 7 & 0xfe) |
					  (act < ACT_PATCH || act == ACT_DIE || act == ACT_PAUSE));
			input[HEAD_EXPORT] = (uint8_t)(number * 37 & 0xef);
			input[HEAD_SEED] = (uint8_t)number;
			input[HEAD_WORK] = (uint8_t)(120 + place);
			if (place < 8) {
				for (unsigned i = 0; i < place; i++)
					input[n++] = ACT_SEND;
			} else {
				for (unsigned i = 0; i < place / 4; i++)
					input[n++] = 0xf0;
			}
			for (unsigned times = 0; times < 2; times++) {
				input[n++] = (uint8_t)(act | place << 4);
				input[n++] = (uint8_t)(number * 5 + times);
				for (unsigned i = 0; i < place % 4; i++)
					input[n++] = (uint8_t)(number + i * 16);
			}
			seeds_write(directory, input, n);
			number++;
		}
}

/* Each of the well-known lies, about replies: again and again, once the device is served. */
static void write_seeds_of_lies(const char *directory)
{
	uint8_t input[HEAD_BYTES + 64];

	for (unsigned lie = 0; lie < 128; lie++) {
		size_t n = HEAD_BYTES;

		input[HEAD_SERVER] = (uint8_t)(lie & 1 ? SERVER_MULTI : 0) | USER_COPY;
		input[HEAD_EXPORT] = 0;
		input[HEAD_SEED] = (uint8_t)lie;
		input[HEAD_WORK] = 240;
		for (unsigned times = 0; times < 12; times++) {
			input[n++] = times ? 0x20 : 0xf0;
			input[n++] = ACT_FIELD;
			input[n++] = (uint8_t)lie;
		}
		seeds_write(directory, input, n);
	}
}

static void remove_socket(void)
{
	unlink(socket_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);
	const char *where = getenv("TMPDIR");

	if (seeds) {
		write_seeds(seeds);
		write_seeds_of_lies(seeds);
		exit(0);
	}
	snprintf(socket_path, sizeof(socket_path), "%s/fuzz-nbd.%d", where ? where : "/tmp",
		 (int)getpid());
	atexit(remove_socket);
	return 0;
}
