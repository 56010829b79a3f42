/* SPDX-License-Identifier: MIT */
/*
 * Counters that a worker may have filled with anything: a libFuzzer target.
 *
 *   fuzz-counters [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-counters --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * An input's first byte says how the memory is: of which size, sealed or not, and whether
 * its header is one of ours; the second how many queues the device has.  The others are
 * laid over the memory, header first, and once more over and over behind it, twice:
 * before it is mapped, and while it is.
 *
 * Whatever is in there: no sanitizer's report, what is not sealed is refused, and what is
 * told of the export is JSON that can be sent.
 */
#include "engine/counters.h"
#include "common/error.h"
#include "engine/host_local.h"
#include "common/log.h"
#include "supervisor/describe.h"
#include "supervisor/export.h"
#include "tests/fuzz/seeds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum shape {
	SHAPE_QUEUES = 3, /* so many, and one */
	SHAPE_UNSEALED = 4,
	SHAPE_ODD_SIZE = 8,
	SHAPE_RAW = 16, /* the input is the header, too */
	SHAPE_LATE = 32 /* the input comes once it is mapped */
};

static struct export *export;

static void broken(const char *what)
{
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void ignore_change(struct export *changed)
{
	(void)changed;
}

static void fill(void *to, size_t room, const uint8_t *data, size_t size)
{
	for (size_t at = 0; size && at < room; at += size)
		memcpy((char *)to + at, data, room - at < size ? room - at : size);
}

static void use(unsigned nr_queues)
{
	json_t *stats;
	char *text;

	export->device.info.nr_hw_queues = (uint16_t)nr_queues;
	export_check_lost(export);
	stats = describe_stats(export);
	text = json_dumps(stats, JSON_COMPACT);
	if (!text || strpbrk(text, "\n\x1b"))
		broken("what is told of an export cannot be sent");
	free(text);
	json_decref(stats);
	stats = describe_export(export);
	if (!stats)
		broken("an export cannot be described");
	json_decref(stats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct counters *mine;
	unsigned shape, queues;
	size_t bytes, skipped;
	int fd;

	if (size < 2)
		return 0;
	shape = data[0];
	queues = data[1];
	data += 2;
	size -= 2;
	bytes = sizeof(struct counters) +
		((shape & SHAPE_QUEUES) + 1) * sizeof(struct queue_counters);
	skipped = shape & SHAPE_RAW ? 0 : offsetof(struct counters, started_s);
	if (shape & SHAPE_ODD_SIZE)
		bytes -= queues;
	fd = host_memfd(COUNTERS_NAME, MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) ||
	    (!(shape & SHAPE_UNSEALED) && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)))
		broken("no memory for counters");
	mine = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mine == MAP_FAILED)
		broken("mmap");
	*mine = (struct counters){ .magic = COUNTERS_MAGIC,
				   .version = COUNTERS_VERSION,
				   .bytes = bytes,
				   .header_bytes = sizeof(*mine),
				   .queue_bytes = sizeof(struct queue_counters),
				   .nr_queues = (shape & SHAPE_QUEUES) + 1,
				   .nr_ops = IO_OPS,
				   .nr_buckets = COUNTERS_BUCKETS };
	if (!(shape & SHAPE_LATE))
		fill((char *)mine + skipped, bytes - skipped, data, size);
	export->worker.counters = counters_map(fd, false);
	if (export->worker.counters && shape & SHAPE_UNSEALED)
		broken("memory that can be taken away is used");
	/* The header was checked: that means nothing from now on. */
	if (export->worker.counters) {
		use(queues);
		fill(mine, bytes, data, size);
		use(queues);
		counters_destroy(export->worker.counters);
		export->worker.counters = NULL;
	}
	munmap(mine, bytes);
	close(fd);
	export->storage.lost = 0;
	export->rates = (struct rates){ 0 };
	return 0;
}

static void write_seeds(const char *where)
{
	uint8_t seed[2 + 400];

	for (unsigned shape = 0; shape < 64; shape++) {
		memset(seed, (int)shape, sizeof(seed));
		seed[0] = (uint8_t)shape;
		seed[1] = (uint8_t)(shape & 7);
		seeds_write(where, seed, shape & 1 ? sizeof(seed) : 60);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);
	struct error err;

	if (seeds) {
		write_seeds(seeds);
		exit(0);
	}
	log_setup("fuzz", LOG_LEVEL_ERROR);
	export_changed = ignore_change;
	if (export_create(&export, "disk", "null:1M", json_object(), ORIGIN_REQUESTED, &err))
		broken(err.text);
	return 0;
}
