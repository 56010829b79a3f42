/* SPDX-License-Identifier: MIT */
/*
 * nbd-loop: what an NBD client costs, without a block device.
 *
 *   nbd-loop [-o OPTION]... CLIENT URI JOB BLOCK DEPTH IOS
 *
 *   CLIENT   ublkd         the backend of ublkd with its ring and buffers; -o as for ublkctl run
 *            libnbd        a loop of libnbd's asynchronous calls, all else at its defaults
 *            libnbd-lean   the same with simple replies, and reads into memory that is not cleared
 *   JOB      randread, randwrite, read, write, or
 *            fill, check   write a pattern to the first IOS blocks, or compare them with it;
 *                          it is another one for each BLOCK
 *
 * DEPTH requests of BLOCK bytes are in flight, over one connection, until IOS have ended; a tenth
 * more goes before them and does not count. The line that it prints:
 *   IOS CPU_NS USER_NS SYSTEM_NS OTHER_NS WALL_NS WAITS
 * CPU_NS is of all threads, the kernel's io-wq included, OTHER_NS of all but the loop's. WAITS is
 * how often the client waited: it took IOS / WAITS replies at once.
 *
 * ublkd's loop is do_round() of engine/queue.c: requests are made here, where a queue takes them
 * from the driver, and end here, where it commits them. Between submit() and io_complete() all is
 * the engine's and the backend's own code.
 */
#include "common/clock.h"
#include "common/log.h"
#include "engine/counters.h"
#include "engine/host_local.h"
#include "engine/queue_parts.h"
#include "engine/serve.h"

#include <libnbd.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define OPTIONS_MAX 8
#define SCATTER     7919u /* a prime: fill and check jump from block to block */

static noreturn __attribute__((format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("nbd-loop: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* ---- the job: which I/O is next, and what its data is ---- */

static struct {
	const char *uri, *options[OPTIONS_MAX];
	unsigned nr_options;
	bool writes, is_random, has_pattern;
	uint32_t block;
	unsigned depth;
	uint64_t size; /* of the export; the client's open() says it */
	uint64_t ios, begun, ended, waits;
	uint64_t random;
} job = { .random = 88172645463325252u };

/* The offset of the next I/O. */
static uint64_t next_offset(void)
{
	uint64_t blocks = job.size / job.block, n = job.begun++;

	if (job.has_pattern)
		return n * SCATTER % job.ios * job.block;
	if (!job.is_random)
		return n % blocks * job.block;
	job.random ^= job.random << 13;
	job.random ^= job.random >> 7;
	job.random ^= job.random << 17;
	return job.random % blocks * job.block;
}

/* Blocks of another size have another pattern. */
static uint64_t pattern(uint64_t offset, uint32_t at)
{
	return (offset + at + job.block) * 0x9e3779b97f4a7c15u;
}

static void prepare_data(uint64_t offset, uint64_t *data)
{
	for (uint32_t at = 0; job.has_pattern && job.writes && at < job.block; at += 8)
		data[at / 8] = pattern(offset, at);
}

static void io_has_ended(uint64_t offset, const uint64_t *data)
{
	job.ended++;
	for (uint32_t at = 0; job.has_pattern && !job.writes && at < job.block; at += 8)
		if (data[at / 8] != pattern(offset, at))
			die("wrong data at byte %llu", (unsigned long long)(offset + at));
}

/* ---- ublkd ---- */

static struct {
	struct spec spec;
	struct counters *counters;
	struct serving serving;
	struct queue queue;
	uint16_t *tags; /* that are free */
	unsigned nr_tags;
} ours;

static void must(int ret, const struct error *err)
{
	if (ret)
		die("%s", err->text);
}

static void set_option(const char *name, unsigned value)
{
	struct error err;
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	must(spec_set(&ours.spec, name, text, &err), &err);
}

/* The parts of open_queue() in engine/queue_thread.c that need no device. */
static void open_queue(struct queue *q)
{
	const uint64_t ops = RING_OP(IORING_OP_READ) | RING_OP(IORING_OP_POLL_ADD) |
			     RING_OP(IORING_OP_TIMEOUT) | RING_OP(IORING_OP_ASYNC_CANCEL) |
			     RING_OP(IORING_OP_SENDMSG) | RING_OP(IORING_OP_RECV);
	const struct backend *backend = q->backend;
	struct error err;

	q->wake = eventfd(0, EFD_CLOEXEC);
	q->requests = calloc(job.depth, sizeof(*q->requests));
	q->done = calloc(job.depth, sizeof(*q->done));
	q->private = calloc(1, backend->queue_size);
	q->io_private = calloc(job.depth, backend->io_size);
	ours.tags = calloc(job.depth, sizeof(*ours.tags));
	if (q->wake < 0 || !q->requests || !q->done || !q->private || !q->io_private || !ours.tags)
		die("no memory");
	for (unsigned tag = 0; tag < job.depth; tag++) {
		q->requests[tag].io = (struct io){ .queue = q, .tag = (uint16_t)tag };
		q->requests[tag].private = (char *)q->io_private + tag * backend->io_size;
		ours.tags[ours.nr_tags++] = (uint16_t)tag;
	}
	must(ring_open(&q->ring, job.depth + 8, ops, false, &err), &err);
	if (buffers_open(&q->buffers, IO_PATH_COPY, backend->access, 0, -1, job.depth,
			 ours.serving.instance.limits.max_io, &q->ring))
		die("no memory");
	q->now_ns = clock_ns();
	must(backend->queue_open(q, &err), &err);
	/* As if it had just been woken: it waits for the next time. */
	queue_woken(&q->wake_op, 1);
}

static void ublkd_open(void)
{
	struct serving_of of = { .spec = &ours.spec, .host = &host_here };
	struct instance *instance = &ours.serving.instance;
	struct error err;
	int fd;

	must(spec_open(&ours.spec, job.uri, &err), &err);
	if (ours.spec.backend->access != ACCESS_SOCKET)
		die("%s is no NBD export", job.uri);
	set_option("queues", 1);
	set_option("depth", job.depth);
	for (unsigned i = 0; i < job.nr_options; i++)
		must(spec_set_backend(&ours.spec, job.options[i], &err), &err);
	must(spec_check(&ours.spec, &err), &err);
	of.counters = ours.counters = counters_create(1, ours.spec.backend->gauges, &fd);
	if (!ours.counters)
		die("no memory");
	close(fd);
	must(serving_open(&ours.serving, &of, &err), &err);
	instance->was_live = true;
	ours.queue = (struct queue){
		.setup = { .instance = instance },
		.backend = instance->backend,
		.wake_op.done = queue_woken,
		.zero = -1,
	};
	open_queue(&ours.queue);
	job.size = instance->limits.size;
	if (job.block > instance->limits.max_io)
		die("requests are of %u bytes at most", instance->limits.max_io);
}

static void begin_one(struct queue *q)
{
	struct request *r = &q->requests[ours.tags[--ours.nr_tags]];

	r->io.op = job.writes ? IO_WRITE : IO_READ;
	r->io.offset = next_offset();
	r->io.length = job.block;
	r->in_flight = true;
	if (buffers_arrive(&q->buffers, &r->io))
		die("a write's data did not arrive");
	if (job.has_pattern)
		prepare_data(r->io.offset, buffers_data(&q->buffers, &r->io));
	q->backend->submit(&r->io);
}

static void take_done(struct queue *q)
{
	for (unsigned i = 0; i < q->nr_done; i++) {
		struct request *r = q->done[i];

		if (r->result != (int)job.block)
			die("a request ended with %d", r->result);
		io_has_ended(r->io.offset, buffers_data(&q->buffers, &r->io));
		ours.tags[ours.nr_tags++] = r->io.tag;
	}
	q->nr_done = 0;
}

static void ublkd_run(void)
{
	struct queue *q = &ours.queue;

	while (job.ended < job.ios) {
		q->now_ns = clock_ns();
		ring_dispatch(&q->ring);
		take_done(q);
		while (ours.nr_tags && job.begun < job.ios)
			begin_one(q);
		q->backend->round_end(q);
		if (job.ended == job.ios || q->nr_done)
			continue;
		job.waits++;
		if (ring_wait(&q->ring))
			die("io_uring_enter failed");
	}
}

static void ublkd_close(void)
{
	struct queue *q = &ours.queue;

	q->backend->queue_close(q);
	ring_close(&q->ring);
	buffers_close(&q->buffers);
	serving_close(&ours.serving);
	counters_destroy(ours.counters);
	spec_close(&ours.spec);
	close(q->wake);
	free(q->requests);
	free(q->done);
	free(q->private);
	free(q->io_private);
	free(ours.tags);
}

/* ---- libnbd ---- */

struct slot {
	uint64_t offset, *data;
};

static struct {
	struct nbd_handle *handle;
	struct slot *slots, **free;
	unsigned nr_free;
} theirs;

static int slot_ended(void *context, int *error)
{
	struct slot *slot = context;

	if (*error)
		die("a request ended with %d", *error);
	io_has_ended(slot->offset, slot->data);
	theirs.free[theirs.nr_free++] = slot;
	return 1; /* libnbd forgets the command */
}

static void connect_handle(bool lean)
{
	int64_t size;

	theirs.handle = nbd_create();
	if (!theirs.handle)
		die("%s", nbd_get_error());
	if (lean && (nbd_set_request_structured_replies(theirs.handle, false) ||
		     nbd_set_pread_initialize(theirs.handle, false)))
		die("%s", nbd_get_error());
	if (nbd_connect_uri(theirs.handle, job.uri))
		die("%s", nbd_get_error());
	size = nbd_get_size(theirs.handle);
	if (size < 0)
		die("%s", nbd_get_error());
	job.size = (uint64_t)size;
	theirs.slots = calloc(job.depth, sizeof(*theirs.slots));
	theirs.free = calloc(job.depth, sizeof(struct slot *));
	if (!theirs.slots || !theirs.free)
		die("no memory");
	for (unsigned i = 0; i < job.depth; i++) {
		theirs.slots[i].data = aligned_alloc(4096, (job.block + 4095) & ~4095u);
		if (!theirs.slots[i].data)
			die("no memory");
		memset(theirs.slots[i].data, 0, job.block);
		theirs.free[theirs.nr_free++] = &theirs.slots[i];
	}
}

static void libnbd_open(void)
{
	connect_handle(false);
}

static void libnbd_lean_open(void)
{
	connect_handle(true);
}

static void begin_slot(void)
{
	struct slot *slot = theirs.free[--theirs.nr_free];
	nbd_completion_callback ended = { .callback = slot_ended, .user_data = slot };
	int64_t ret;

	slot->offset = next_offset();
	prepare_data(slot->offset, slot->data);
	if (job.writes)
		ret = nbd_aio_pwrite(theirs.handle, slot->data, job.block, slot->offset, ended, 0);
	else
		ret = nbd_aio_pread(theirs.handle, slot->data, job.block, slot->offset, ended, 0);
	if (ret < 0)
		die("%s", nbd_get_error());
}

static void libnbd_run(void)
{
	while (job.ended < job.ios) {
		while (theirs.nr_free && job.begun < job.ios)
			begin_slot();
		if (job.ended == job.ios)
			continue;
		job.waits++;
		if (nbd_poll(theirs.handle, -1) < 0)
			die("%s", nbd_get_error());
	}
}

static void libnbd_close(void)
{
	nbd_shutdown(theirs.handle, 0);
	nbd_close(theirs.handle);
	for (unsigned i = 0; i < job.depth; i++)
		free(theirs.slots[i].data);
	free(theirs.slots);
	free(theirs.free);
}

/* ---- the measurement ---- */

static const struct client {
	const char *name;
	void (*open)(void);
	void (*run)(void);
	void (*close)(void);
} clients[] = {
	{ "ublkd", ublkd_open, ublkd_run, ublkd_close },
	{ "libnbd", libnbd_open, libnbd_run, libnbd_close },
	{ "libnbd-lean", libnbd_lean_open, libnbd_run, libnbd_close },
};

static const struct kind {
	const char *name;
	bool writes, is_random, has_pattern;
} kinds[] = {
	{ "randread", false, true, false }, { "randwrite", true, true, false },
	{ "read", false, false, false },    { "write", true, false, false },
	{ "fill", true, false, true },      { "check", false, false, true },
};

struct usage {
	uint64_t user_ns, system_ns, thread_ns, wall_ns;
};

static uint64_t ns_of(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_usec * 1000u;
}

static struct usage usage_now(void)
{
	struct rusage process, thread;

	getrusage(RUSAGE_SELF, &process);
	getrusage(RUSAGE_THREAD, &thread);
	return (struct usage){ ns_of(process.ru_utime), ns_of(process.ru_stime),
			       ns_of(thread.ru_utime) + ns_of(thread.ru_stime), clock_ns() };
}

static void run(const struct client *client, uint64_t ios)
{
	job.begun = job.ended = job.waits = 0;
	job.ios = ios;
	client->run();
}

static void measure(const struct client *client)
{
	uint64_t ios = job.ios, user, system, all;
	struct usage before, after;

	if (!job.has_pattern)
		run(client, ios / 10 + 1);
	before = usage_now();
	run(client, ios);
	after = usage_now();
	user = after.user_ns - before.user_ns;
	system = after.system_ns - before.system_ns;
	all = user + system;
	printf("%llu %llu %llu %llu %lld %llu %llu\n", (unsigned long long)ios,
	       (unsigned long long)all, (unsigned long long)user, (unsigned long long)system,
	       (long long)(all - (after.thread_ns - before.thread_ns)),
	       (unsigned long long)(after.wall_ns - before.wall_ns), (unsigned long long)job.waits);
}

static const struct client *find_client(const char *name)
{
	for (size_t i = 0; i < sizeof(clients) / sizeof(*clients); i++)
		if (!strcmp(clients[i].name, name))
			return &clients[i];
	die("no client %s", name);
}

static void set_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kinds[i].name, name))
			continue;
		job.writes = kinds[i].writes;
		job.is_random = kinds[i].is_random;
		job.has_pattern = kinds[i].has_pattern;
		return;
	}
	die("no job %s", name);
}

static uint64_t number(const char *text, uint64_t most)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (*end || !n || n > most)
		die("%s is no number from 1 to %llu", text, (unsigned long long)most);
	return n;
}

int main(int argc, char **argv)
{
	const struct client *client;
	int letter;

	while ((letter = getopt(argc, argv, "+o:")) == 'o')
		if (job.nr_options < OPTIONS_MAX)
			job.options[job.nr_options++] = optarg;
	if (letter != -1 || argc - optind != 6)
		die("it takes [-o OPTION]... CLIENT URI JOB BLOCK DEPTH IOS");
	log_setup("nbd-loop", LOG_LEVEL_WARNING);
	argv += optind;
	client = find_client(argv[0]);
	job.uri = argv[1];
	set_kind(argv[2]);
	job.block = (uint32_t)number(argv[3], 32u << 20);
	job.depth = (unsigned)number(argv[4], 1024);
	job.ios = number(argv[5], 1u << 30);
	if (job.block % 512)
		die("%u bytes are not whole sectors", job.block);
	client->open();
	if (job.size < job.block || (job.has_pattern && job.ios > job.size / job.block))
		die("the export has %llu bytes", (unsigned long long)job.size);
	/* Else some block would come twice. */
	if (job.has_pattern && !(job.ios % SCATTER))
		die("with a pattern, IOS is no multiple of %u", SCATTER);
	measure(client);
	client->close();
	return 0;
}
