/* SPDX-License-Identifier: MIT */
/*
 * Counters in a sealed memfd: a worker's queues write, ublkd and its clients read, without a lock.
 * A reader sees each number whole, but two numbers may belong to two moments.
 *
 * The counters of a queue begin on a cache line of their own, so that two threads never write one
 * line. Latencies are histograms of fixed size, four buckets for each power of two (counters.h).
 *
 * ublkd maps memory that a compromised worker may write. Truncating the memfd would raise SIGBUS in
 * ublkd, so counters_map() demands F_SEAL_SHRINK. A larger nr_queues would lead reads out of the
 * mapping, so map() keeps size and number of queues in a private page in front of it (own_of()).
 *
 * Read counters_create(), counters_map() and map() first, then counters_sum() and
 * counters_percentile(). counters_add() in counters.h is the queues' side.
 */
#include "engine/counters.h"
#include "engine/host_local.h"
#include "engine/ublk_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Processes of two releases share the memory: what is added must not move the next queue. */
_Static_assert(COUNTERS_VERSION == 2 && sizeof(struct queue_counters) == 6720,
	       "version 2 has queues of this size");

static const struct {
	int code;
	const char *name;
} error_kinds[COUNTERS_ERRORS] = {
	{ EIO, "EIO" },
	{ ENOSPC, "ENOSPC" },
	{ ENOMEM, "ENOMEM" },
	{ EPERM, "EPERM" },
	{ EINVAL, "EINVAL" },
	{ EROFS, "EROFS" },
	{ EOPNOTSUPP, "EOPNOTSUPP" },
	{ ETIMEDOUT, "ETIMEDOUT" },
	{ ENOLINK, "ENOLINK" },
	{ 0, "other" },
};

/*
 * In front of each mapping, in a page of its own: what a process that shares the
 * memory, and is not trusted, cannot change.
 */
struct own {
	size_t bytes; /* of the memory */
	unsigned nr_queues;
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static struct own *own_of(const struct counters *counters)
{
	return (struct own *)((uintptr_t)counters - page_bytes());
}

static struct counters *map(int fd, size_t bytes, int protection)
{
	size_t page = page_bytes();
	char *at = mmap(NULL, page + bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int saved;

	if (at == MAP_FAILED)
		return NULL;
	if (mmap(at + page, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		saved = errno;
		munmap(at, page + bytes);
		errno = saved;
		return NULL;
	}
	*(struct own *)at = (struct own){
		.bytes = bytes,
		.nr_queues = (unsigned)((bytes - sizeof(struct counters)) /
					sizeof(struct queue_counters)),
	};
	return (struct counters *)(at + page);
}

struct counters *counters_create(unsigned nr_queues, const char *const *gauges, int *fd)
{
	struct counters header = {
		.magic = COUNTERS_MAGIC,
		.version = COUNTERS_VERSION,
		.header_bytes = sizeof(header),
		.queue_bytes = sizeof(struct queue_counters),
		.nr_queues = nr_queues,
		.nr_ops = IO_OPS,
		.nr_buckets = COUNTERS_BUCKETS,
		.started_s = time(NULL),
	};
	struct counters *counters;
	int saved;

	header.bytes = header.header_bytes + (uint64_t)nr_queues * header.queue_bytes;
	for (unsigned i = 0; gauges && gauges[i] && i < INSTANCE_GAUGES; i++)
		snprintf(header.gauge_names[i], sizeof(header.gauge_names[i]), "%s", gauges[i]);
	*fd = host_memfd(COUNTERS_NAME, MFD_ALLOW_SEALING);
	if (*fd < 0) {
		errno = -*fd;
		*fd = -1;
		return NULL;
	}
	if (ftruncate(*fd, (off_t)header.bytes) ||
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto close_fd;
	counters = map(*fd, header.bytes, PROT_READ | PROT_WRITE);
	if (!counters)
		goto close_fd;
	*counters = header;
	return counters;

close_fd:
	saved = errno;
	close(*fd);
	*fd = -1;
	errno = saved;
	return NULL;
}

struct counters *counters_map(int fd, bool writable)
{
	struct counters *counters;
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) ||
	    (size_t)st.st_size < sizeof(*counters) ||
	    (size_t)st.st_size >
		    sizeof(*counters) + UBLK_QUEUES_MAX * sizeof(struct queue_counters))
		goto bad;
	/* Reading a hole of a hugetlb file raises SIGBUS if no huge page is free. */
	if (!writable && (fstatfs(fd, &fs) || fs.f_type != TMPFS_MAGIC))
		goto bad;
	counters = map(fd, (size_t)st.st_size, PROT_READ | (writable ? PROT_WRITE : 0));
	if (!counters)
		return NULL;
	if (counters->magic == COUNTERS_MAGIC && counters->version == COUNTERS_VERSION &&
	    counters->header_bytes == sizeof(*counters) &&
	    counters->queue_bytes == sizeof(struct queue_counters) &&
	    counters->bytes == (uint64_t)st.st_size &&
	    counters->nr_queues <= own_of(counters)->nr_queues)
		return counters;
	counters_destroy(counters);
bad:
	errno = EBADMSG;
	return NULL;
}

void counters_destroy(struct counters *counters)
{
	struct own *own = own_of(counters);

	munmap(own, page_bytes() + own->bytes);
}

unsigned counters_nr_queues(const struct counters *counters)
{
	unsigned nr = __atomic_load_n(&counters->nr_queues, __ATOMIC_RELAXED);
	unsigned room = own_of(counters)->nr_queues;

	return nr < room ? nr : room;
}

uint64_t counters_bucket_start(unsigned bucket)
{
	unsigned log = bucket / 4 + 1;

	if (bucket < 4)
		return bucket;
	return (4ull + bucket % 4) << (log - 2);
}

uint64_t counters_percentile(const struct op_counters *op, double percent)
{
	uint64_t total = 0, seen = 0, wanted;

	for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
		total += op->latency[i];
	if (!total)
		return 0;
	wanted = (uint64_t)((double)total * percent / 100.0);
	if ((double)wanted < (double)total * percent / 100.0 || !wanted)
		wanted++;
	for (unsigned i = 0; i < COUNTERS_BUCKETS - 1; i++) {
		seen += op->latency[i];
		if (seen >= wanted)
			return counters_bucket_start(i + 1) - 1;
	}
	return counters_bucket_start(COUNTERS_BUCKETS - 1);
}

const char *counters_op_name(enum io_op op)
{
	static const char *const names[IO_OPS] = { "read", "write", "flush", "discard",
						   "write-zeroes" };

	return op < IO_OPS ? names[op] : "?";
}

const char *counters_error_name(unsigned kind)
{
	return kind < COUNTERS_ERRORS ? error_kinds[kind].name : "?";
}

unsigned counters_error_kind(int code)
{
	unsigned kind = 0;

	while (kind < COUNTERS_ERRORS - 1 && error_kinds[kind].code != code)
		kind++;
	return kind;
}

static uint64_t read_counter(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

void counters_sum(struct counters *counters, enum io_op op, struct op_counters *sum)
{
	unsigned nr = counters_nr_queues(counters);

	*sum = (struct op_counters){ 0 };
	for (unsigned q = 0; q < nr; q++) {
		const struct op_counters *one = &counters_queue(counters, q)->op[op];

		sum->completed += read_counter(&one->completed);
		sum->bytes += read_counter(&one->bytes);
		sum->failed += read_counter(&one->failed);
		sum->latency_ns += read_counter(&one->latency_ns);
		for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
			sum->latency[i] += read_counter(&one->latency[i]);
	}
}

uint64_t counters_sum_errors(struct counters *counters, unsigned kind)
{
	unsigned nr = counters_nr_queues(counters);
	uint64_t sum = 0;

	for (unsigned q = 0; q < nr; q++)
		sum += read_counter(&counters_queue(counters, q)->errors[kind]);
	return sum;
}

uint64_t counters_completed(struct counters *counters)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < counters_nr_queues(counters); i++)
		sum += read_counter(&counters_queue(counters, i)->completed);
	return sum;
}

uint64_t counters_rounds(struct counters *counters)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < counters_nr_queues(counters); i++)
		sum += read_counter(&counters_queue(counters, i)->rounds);
	return sum;
}
