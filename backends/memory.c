/* SPDX-License-Identifier: MIT */
/*
 * memory: a RAM disk in one memfd, mapped whole; block n of the disk is byte n
 * of the memfd.
 *
 * The disk is divided in shards.  A shard costs nothing until its first write
 * and reads as zeroes without being touched; a discard, or a write-zeroes that
 * need not keep it, gives back each shard that it covers (and the pages of the
 * others, which come back when they are touched).  Each shard has one word of state, changed with
 * atomic operations by any queue:
 *
 *   LIVE      it may hold data; counted against the limit
 *   CLAIMING  a writer is counting it against the limit, to make it LIVE
 *   FREEING   a hole is being punched into all of it, by one request; until that
 *             is done it stays counted, and a write that makes it LIVE again
 *             takes the count over
 *   EMPTY     with FREEING: it was not LIVE before
 *   the rest  the number of writers at work on it that are counted
 *
 * What must always hold: a shard that is neither LIVE nor FREEING, and has no
 * writer, is a hole of the memfd, so that old data never comes back.  Hence a
 * free begins only on a shard without writers, and ends in "not LIVE" only if no
 * writer came meanwhile.  A write that overlaps a discard in flight may take
 * place before or after it, as on any disk.
 *
 * Writes to a LIVE shard, nearly all of them, write no word that queues share.  Such a writer notes
 * the shard in a word of its queue's own, then looks whether it is LIVE; who frees makes it
 * FREEING, then looks at the queues' words.  One of the two sees the other: the fence that this
 * takes is on the side of who frees alone, membarrier(2), which is a fence in each thread.
 */
#include "common/clock.h"
#include "engine/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARD_LIVE     (1u << 31)
#define SHARD_FREEING  (1u << 30)
#define SHARD_EMPTY    (1u << 29)
#define SHARD_CLAIMING (1u << 28)

enum {
	GAUGE_ALLOCATED,
	GAUGE_LIMIT
};

static const char *const memory_gauges[] = { "allocated-bytes", "limit-bytes", NULL };

static const struct option_def memory_options[] = {
	{ "shard", OPTION_SIZE, NULL, "2M", 4096, 1ull << 40,
	  "memory is allocated and freed in pieces of this size, a power of 2" },
	{ "limit", OPTION_SIZE, "none", "none", 1, 0,
	  "limit on memory: writes beyond it fail with ENOSPC" },
	{ "hugepages", OPTION_CHOICE, "off|2M|1G", "off", 0, 0, "use huge pages of this size" },
	{ "numa", OPTION_CHOICE, "default|interleave|local", "default", 0, 0,
	  "NUMA placement: interleave: over all nodes; local: on the node of the queue that "
	  "writes first" },
	{ .name = NULL },
};

struct memory {
	int fd;
	uint8_t *base;
	uint64_t size; /* of the mapping */
	unsigned shard_shift;
	bool hugepages;
	uint64_t limit_shards;
	_Atomic uint64_t live_shards;
	_Atomic uint64_t full_ms; /* when a write last found no memory; 0: reported as over */
	_Atomic uint32_t *shards;
	struct writer *writers; /* one a queue */
	unsigned nr_writers;
	bool fences; /* the kernel has the fence of who frees; else every writer is counted */
};

/* In a cache line of its own. */
struct writer {
	_Atomic uint64_t shard; /* that it writes to, and is not counted for; NO_SHARD: none */
} __attribute__((aligned(64)));
#define NO_SHARD UINT64_MAX

struct memory_queue {
	int file; /* the memfd, in the queue's ring */
	struct writer *writer;
};

struct memory_io {
	uint64_t first, end; /* the shards that this request is freeing */
};

static uint64_t page_bytes(const struct instance *instance)
{
	static const uint64_t bytes[] = { 4096, 2ull << 20, 1ull << 30 };

	return bytes[instance_option(instance, "hugepages")->word];
}

static uint64_t shard_bytes(const struct instance *instance)
{
	uint64_t shard = instance_option(instance, "shard")->number, page = page_bytes(instance);

	/* A default smaller than a huge page gives way. */
	return !instance_option(instance, "shard")->given && shard < page ? page : shard;
}

static int memory_check(const struct instance *instance, struct error *err)
{
	uint64_t size, shard = shard_bytes(instance);
	char text[24];

	if (instance_size(instance, &size, err))
		return -EINVAL;
	if (shard & (shard - 1))
		return error_set(err, EINVAL, "shard: '%s' is not valid: use a power of 2",
				 instance_option(instance, "shard")->text);
	/* The memory consists of whole shards, and is a file of the kernel's. */
	if (size > INT64_MAX - (shard - 1))
		return error_set(err, EINVAL,
				 "'%s': too large in whole shards of %s: use a size below 8E, as "
				 "in %s:512M",
				 instance->name, size_format(shard, text, sizeof(text)),
				 instance->backend->scheme);
	if (instance_option(instance, "limit")->word < 0 &&
	    instance_option(instance, "limit")->number < shard)
		return error_set(
			err, EINVAL,
			"limit: '%s' is less than one shard (%s): use a larger limit, or a "
			"smaller shard=",
			instance_option(instance, "limit")->text,
			size_format(shard, text, sizeof(text)));
	if (shard < page_bytes(instance))
		return error_set(err, EINVAL,
				 "shard: '%s' is smaller than the huge pages asked for (%s)",
				 instance_option(instance, "shard")->text,
				 instance_option(instance, "hugepages")->text);
	return 0;
}

/* Set before this process touches a page: without MPOL_MF_MOVE a policy moves none that exist. */
static void set_policy(const struct memory *m, const struct instance *instance)
{
	unsigned long nodes[64] = { 0 }; /* 4096 nodes */
	int word = instance_option(instance, "numa")->word;
	long ret = 0;

	if (!word)
		return;
	if (word == 1) {
		ret = syscall(SYS_get_mempolicy, NULL, nodes, sizeof(nodes) * 8, NULL,
			      MPOL_F_MEMS_ALLOWED);
		if (!ret)
			ret = syscall(SYS_mbind, m->base, m->size, MPOL_INTERLEAVE, nodes,
				      sizeof(nodes) * 8, 0);
	} else {
		ret = syscall(SYS_mbind, m->base, m->size, MPOL_LOCAL, NULL, 0ul, 0);
	}
	if (ret)
		log_warning(instance->name, "numa=%s has no effect: mbind: %s",
			    instance_option(instance, "numa")->text, strerror(errno));
}

/* Where the kernel says how many huge pages could be had; NULL past the last. */
static const char *hugepages_path(uint64_t page, unsigned index, char *path, size_t size)
{
	static const char *const files[] = { "free_hugepages", "nr_overcommit_hugepages" };

	if (index >= sizeof(files) / sizeof(*files))
		return NULL;
	snprintf(path, size, "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		 (unsigned long long)(page >> 10), files[index]);
	return path;
}

/* Huge pages that could be had now; those that the kernel may make on demand count as some. */
static uint64_t free_hugepages(struct instance *instance)
{
	uint64_t sum = 0, n;
	char path[96];

	for (unsigned i = 0; hugepages_path(page_bytes(instance), i, path, sizeof(path)); i++)
		if (instance_read_number(instance, path, &n))
			sum += n;
	return sum;
}

static void memory_needs(const struct instance *instance, backend_need_callback *need,
			 void *context)
{
	char path[96];

	if (!instance_option(instance, "hugepages")->word)
		return;
	for (unsigned i = 0; hugepages_path(page_bytes(instance), i, path, sizeof(path)); i++)
		need(context, NEED_HOST_READ, path);
}

static int open_memfd(struct instance *instance, struct error *err)
{
	static const unsigned flags[] = { 0, MFD_HUGETLB | MFD_HUGE_2MB,
					  MFD_HUGETLB | MFD_HUGE_1GB };
	int huge = instance_option(instance, "hugepages")->word;
	int fd = instance->host->keep_memory(instance, flags[huge]);

	if (instance->reason == OPEN_TAKEOVER && fd < 0)
		return error_set(err, fd,
				 "the content was lost with the process that held it (%s): remove "
				 "the export and create it again",
				 strerror(-fd));
	if (fd < 0 && huge)
		return error_set(err, fd, "hugepages=%s: this machine does not support them: %s",
				 instance_option(instance, "hugepages")->text, strerror(-fd));
	if (huge && instance->reason != OPEN_TAKEOVER && !free_hugepages(instance)) {
		close(fd);
		return error_set(
			err, ENOSPC,
			"hugepages=%s: none are free: reserve some (sysctl vm.nr_hugepages for "
			"2M, hugepagesz= and hugepages= at boot for 1G)",
			instance_option(instance, "hugepages")->text);
	}
	if (fd < 0)
		return error_set(err, fd, "memfd_create: %s", strerror(-fd));
	return fd;
}

static void count_shards(struct instance *instance, int64_t change);

/* Content of an earlier worker: shards that hold anything are LIVE. */
static void find_live_shards(struct instance *instance)
{
	struct memory *m = instance->private;
	off_t data = 0, hole, end = (off_t)m->size;
	uint64_t shard, next = 0;

	__atomic_store_n(&instance->gauges[GAUGE_ALLOCATED], 0, __ATOMIC_RELAXED);
	while (data < end) {
		data = lseek(m->fd, data, SEEK_DATA);
		if (data < 0)
			return;
		hole = lseek(m->fd, data, SEEK_HOLE);
		if (hole < 0)
			hole = end;
		/*
		 * A shard with several extents is counted once: next is the first that was not
		 * counted.
		 */
		shard = (uint64_t)data >> m->shard_shift;
		for (shard = shard > next ? shard : next; shard << m->shard_shift < (uint64_t)hole;
		     shard++) {
			atomic_store(&m->shards[shard], SHARD_LIVE);
			count_shards(instance, 1);
		}
		next = shard;
		data = hole;
	}
}

static int open_writers(struct memory *m, unsigned nr)
{
	m->writers = aligned_alloc(sizeof(*m->writers), nr * sizeof(*m->writers));
	if (!m->writers)
		return -ENOMEM;
	m->nr_writers = nr;
	for (unsigned i = 0; i < nr; i++)
		atomic_init(&m->writers[i].shard, NO_SHARD);
	m->fences = !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	return 0;
}

static int memory_open(struct instance *instance, struct error *err)
{
	const struct option_value *limit = instance_option(instance, "limit");
	struct backend_limits *l = &instance->limits;
	struct memory *m = instance->private;
	uint64_t shard = shard_bytes(instance), nr_shards;
	int ret;

	if (instance_size(instance, &l->size, err))
		return -EINVAL;
	l->logical_block = instance->block_size ? instance->block_size : 512;
	l->physical_block = 4096;
	/* Huge pages are zeroed in place where they cannot go: not for long at a time. */
	l->max_discard = l->max_write_zeroes =
		instance_option(instance, "hugepages")->word ? 16u << 20 : 1u << 30;
	l->discard_granularity = 4096;
	l->read_only = instance->read_only;

	m->hugepages = instance_option(instance, "hugepages")->word;
	m->shard_shift = (unsigned)__builtin_ctzll(shard);
	nr_shards = (l->size + shard - 1) >> m->shard_shift;
	m->size = nr_shards << m->shard_shift;
	m->limit_shards = limit->word < 0 ? limit->number >> m->shard_shift : UINT64_MAX;
	m->fd = open_memfd(instance, err);
	if (m->fd < 0)
		return m->fd;
	if (instance->reason == OPEN_TAKEOVER && lseek(m->fd, 0, SEEK_END) != (off_t)m->size) {
		ret = error_set(err, ESTALE,
				"the memory of the previous worker is not this "
				"export's");
		goto close_fd;
	}
	if (instance->reason != OPEN_TAKEOVER && ftruncate(m->fd, (off_t)m->size)) {
		ret = error_set(err, errno,
				"cannot create a memory file of %llu bytes: %s: use a "
				"smaller size",
				(unsigned long long)m->size, strerror(errno));
		goto close_fd;
	}
	/*
	 * Accessible only then: in a process that locks its memory, the kernel fills a
	 * mapping of huge pages as it is made.
	 */
	m->base = mmap(NULL, m->size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->base == MAP_FAILED || mprotect(m->base, m->size, PROT_READ | PROT_WRITE)) {
		ret = error_set(err, errno,
				"cannot map %llu bytes of memory: %s: use a smaller size",
				(unsigned long long)m->size, strerror(errno));
		if (m->base != MAP_FAILED)
			munmap(m->base, m->size);
		goto close_fd;
	}
	/* Mapped and not allocated: a disk of many TiB has a table of MiB, touched as it is used. */
	m->shards = mmap(NULL, nr_shards * sizeof(*m->shards), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->shards == MAP_FAILED) {
		ret = error_set(err, errno,
				"cannot allocate a table of %llu shards: %s: use a "
				"larger shard=",
				(unsigned long long)nr_shards, strerror(errno));
		goto unmap;
	}
	if (open_writers(m, instance->nr_queues)) {
		ret = error_set(err, ENOMEM, "no memory for %u queues", instance->nr_queues);
		goto unmap_shards;
	}
	set_policy(m, instance);
	if (instance->reason == OPEN_TAKEOVER)
		find_live_shards(instance);
	__atomic_store_n(&instance->gauges[GAUGE_LIMIT],
			 limit->word < 0 ? m->limit_shards << m->shard_shift : m->size,
			 __ATOMIC_RELAXED);
	return 0;

unmap_shards:
	munmap((void *)m->shards, nr_shards * sizeof(*m->shards));
unmap:
	munmap(m->base, m->size);
close_fd:
	close(m->fd);
	return ret;
}

static void memory_close(struct instance *instance)
{
	struct memory *m = instance->private;

	free(m->writers);
	munmap((void *)m->shards, (m->size >> m->shard_shift) * sizeof(*m->shards));
	munmap(m->base, m->size);
	close(m->fd);
}

static int memory_queue_open(struct queue *queue, struct error *err)
{
	struct memory *m = queue_instance(queue)->private;
	struct memory_queue *mq = queue_private(queue);

	mq->writer = &m->writers[queue_index(queue)];
	mq->file = queue_add_file(queue, m->fd);
	if (mq->file < 0)
		return error_set(err, mq->file,
				 "registering the memory's descriptor with io_uring: %s",
				 strerror(-mq->file));
	return 0;
}

static void count_shards(struct instance *instance, int64_t change)
{
	struct memory *m = instance->private;

	atomic_fetch_add_explicit(&m->live_shards, (uint64_t)change, memory_order_relaxed);
	__atomic_fetch_add(&instance->gauges[GAUGE_ALLOCATED], (uint64_t)change << m->shard_shift,
			   __ATOMIC_RELAXED);
}

/* Counts one more shard, if the limit allows it. */
static bool reserve_shard(struct instance *instance)
{
	struct memory *m = instance->private;
	uint64_t live = atomic_load_explicit(&m->live_shards, memory_order_relaxed);

	/* Compared and counted in one step: two queues must not both take the last shard. */
	do {
		if (live >= m->limit_shards)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&m->live_shards, &live, live + 1, memory_order_relaxed, memory_order_relaxed));
	__atomic_fetch_add(&instance->gauges[GAUGE_ALLOCATED], 1ull << m->shard_shift,
			   __ATOMIC_RELAXED);
	return true;
}

static void note_full(struct instance *instance)
{
	struct memory *m = instance->private;

	atomic_store(&m->full_ms, clock_ms());
	instance_report(instance, CAUSE_MEMORY_FULL,
			m->hugepages ? "no huge page is free: writes fail with ENOSPC"
				     : "the limit is reached: writes fail with ENOSPC");
}

/* A huge page that is not there is an error here, and a SIGBUS when first touched. */
static int populate(const struct memory *m, uint64_t shard)
{
	off_t start = (off_t)(shard << m->shard_shift), length = (off_t)1 << m->shard_shift;
	int ret;

	if (!m->hugepages)
		return 0;
	do
		ret = fallocate(m->fd, 0, start, length) ? -errno : 0;
	while (ret == -EINTR);
	/* Pages that it got before it failed must not stay. */
	if (ret)
		fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length);
	return ret == -ENOMEM ? -ENOSPC : ret;
}

/* The first write to a shard; the caller is counted as its writer. */
static int make_live(struct instance *instance, uint64_t shard)
{
	struct memory *m = instance->private;
	_Atomic uint32_t *state = &m->shards[shard];
	uint32_t old;
	int ret = 0;

	for (;;) {
		old = atomic_fetch_or(state, SHARD_CLAIMING);
		if (old & SHARD_LIVE) {
			if (!(old & SHARD_CLAIMING))
				atomic_fetch_and(state, ~SHARD_CLAIMING);
			return 0;
		}
		if (!(old & SHARD_CLAIMING))
			break;
		/* Another queue is here for the same shard; it has only to count. */
		sched_yield();
	}
	/* A shard that is being freed is counted until then; the count passes on. */
	old = atomic_load(state);
	while ((old & (SHARD_FREEING | SHARD_EMPTY)) == SHARD_FREEING) {
		ret = populate(m, shard);
		if (ret || atomic_compare_exchange_weak(state, &old, old | SHARD_LIVE))
			goto unclaim;
	}
	if (!reserve_shard(instance)) {
		ret = -ENOSPC;
	} else {
		ret = populate(m, shard);
		if (ret)
			count_shards(instance, -1);
	}
	if (!ret)
		atomic_fetch_or(state, SHARD_LIVE);
	if (ret == -ENOSPC)
		note_full(instance);
	else if (!ret)
		instance_settle(instance, CAUSE_MEMORY_FULL, &m->full_ms);
unclaim:
	atomic_fetch_and(state, ~SHARD_CLAIMING);
	return ret;
}

/* In any state of the shard. */
static __attribute__((noinline)) int write_counted(struct io *io, uint64_t shard, uint32_t at,
						   uint32_t length)
{
	struct instance *instance = queue_instance(io->queue);
	struct memory *m = instance->private;
	_Atomic uint32_t *state = &m->shards[shard];
	int ret = 0;

	/*
	 * Counted as a writer first: from then on begin_free() leaves the shard alone, whose
	 * compare-and-exchange expects no writers.
	 */
	if (!(atomic_fetch_add(state, 1) & SHARD_LIVE))
		ret = make_live(instance, shard);
	if (!ret)
		ret = io_copy_from(io, at, m->base + io->offset + at, length);
	atomic_fetch_sub(state, 1);
	return ret;
}

static int write_shard(struct memory *m, struct io *io, uint64_t shard, uint32_t at,
		       uint32_t length)
{
	struct memory_queue *mq = queue_private(io->queue);
	bool plain;
	int ret = 0;

	atomic_store_explicit(&mq->writer->shard, shard, memory_order_relaxed);
	/* The compiler's order; the CPU's is seen to by who frees. */
	atomic_signal_fence(memory_order_seq_cst);
	plain = m->fences && (atomic_load_explicit(&m->shards[shard], memory_order_acquire) &
			      (SHARD_LIVE | SHARD_FREEING)) == SHARD_LIVE;
	if (plain)
		ret = io_copy_from(io, at, m->base + io->offset + at, length);
	atomic_store_explicit(&mq->writer->shard, NO_SHARD, memory_order_release);
	return plain ? ret : write_counted(io, shard, at, length);
}

static int read_shard(struct memory *m, struct io *io, uint64_t shard, uint32_t at, uint32_t length)
{
	/*
	 * Readers are not counted: a read that overlaps a discard in flight may see either content,
	 * and may leave pages of zeroes in a shard that is free then: the mapping was touched. They
	 * go with the shard's next discard after a write.
	 */
	if (!(atomic_load_explicit(&m->shards[shard], memory_order_acquire) & SHARD_LIVE))
		return io_fill_zero(io, at, length);
	return io_copy_to(io, at, m->base + io->offset + at, length);
}

static inline int copy_shard(struct memory *m, struct io *io, uint64_t shard, uint32_t at,
			     uint32_t length)
{
	return io->op == IO_READ ? read_shard(m, io, shard, at, length)
				 : write_shard(m, io, shard, at, length);
}

static __attribute__((noinline)) int copy_shards(struct memory *m, struct io *io)
{
	uint32_t at = 0;
	int ret = 0;

	while (at < io->length && !ret) {
		uint64_t offset = io->offset + at, shard = offset >> m->shard_shift;
		uint64_t room = ((shard + 1) << m->shard_shift) - offset;
		uint32_t length = io->length - at;

		if (length > room)
			length = (uint32_t)room;
		ret = copy_shard(m, io, shard, at, length);
		at += length;
	}
	return ret;
}

static void read_or_write(struct io *io)
{
	struct memory *m = queue_instance(io->queue)->private;
	uint64_t shard = io->offset >> m->shard_shift;
	int ret;

	if (__builtin_expect((io->offset + io->length - 1) >> m->shard_shift == shard, 1))
		ret = copy_shard(m, io, shard, 0, io->length);
	else
		ret = copy_shards(m, io);
	io_complete(io, ret ? ret : (int)io->length);
}

/* ---- giving back ---- */

/* False where no shard that the range touches holds anything. */
static bool holds_anything(const struct memory *m, const struct io *io)
{
	uint64_t last = (io->offset + io->length - 1) >> m->shard_shift;

	for (uint64_t i = io->offset >> m->shard_shift; i <= last; i++)
		if (atomic_load_explicit(&m->shards[i], memory_order_acquire))
			return true;
	return false;
}

/* A shard is FREEING no more; freed: it is a hole. */
static void unclaim(struct instance *instance, uint64_t shard, bool freed)
{
	struct memory *m = instance->private;
	_Atomic uint32_t *state = &m->shards[shard];
	uint32_t old;

	/* What was EMPTY is that still. */
	if (!freed && !(atomic_load(state) & SHARD_EMPTY))
		atomic_fetch_or(state, SHARD_LIVE);
	old = atomic_fetch_and(state, ~(SHARD_FREEING | SHARD_EMPTY));
	/* LIVE: a writer has made it so, and has its count. */
	if (!(old & (SHARD_EMPTY | SHARD_LIVE)))
		count_shards(instance, -1);
}

/* The first shard from first to end that a writer is at work on without being counted; or end. */
static uint64_t first_written(struct memory *m, uint64_t first, uint64_t end)
{
	if (!m->fences || first == end)
		return end;
	/* A writer that comes from here on sees that the shards are FREEING. */
	if (m->nr_writers > 1)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	for (unsigned i = 0; i < m->nr_writers; i++) {
		uint64_t shard = atomic_load_explicit(&m->writers[i].shard, memory_order_acquire);

		if (shard >= first && shard < end)
			end = shard;
	}
	return end;
}

/* Claims the shards that the request covers whole, up to the first that is in use. */
static void begin_free(struct instance *instance, struct io *io)
{
	struct memory *m = instance->private;
	struct memory_io *mio = io_private(io);
	uint64_t shard = 1ull << m->shard_shift, claimed;
	uint64_t end = (io->offset + io->length) >> m->shard_shift;

	mio->first = claimed = (io->offset + shard - 1) >> m->shard_shift;
	for (; claimed < end; claimed++) {
		uint32_t live = SHARD_LIVE, empty = 0;

		/*
		 * Both expect a shard without writers. The first shard that has one ends the range:
		 * what lies behind keeps its shards, and only its pages go.
		 */
		if (!atomic_compare_exchange_strong(&m->shards[claimed], &live, SHARD_FREEING) &&
		    !atomic_compare_exchange_strong(&m->shards[claimed], &empty,
						    SHARD_FREEING | SHARD_EMPTY))
			break;
	}
	mio->end = first_written(m, mio->first, claimed);
	while (claimed > mio->end)
		unclaim(instance, --claimed, false);
}

static void end_free(struct io *io, int result)
{
	struct instance *instance = queue_instance(io->queue);
	struct memory *m = instance->private;
	struct memory_io *mio = io_private(io);

	for (uint64_t i = mio->first; i < mio->end; i++)
		unclaim(instance, i, result >= 0);
	instance_settle(instance, CAUSE_MEMORY_FULL, &m->full_ms);
}

static void punched(struct io *io, int result)
{
	end_free(io, result);
	io_complete(io, result);
}

/* Zeroes [offset, end) in place, where it is not free anyway. */
static void zero_in_place(struct memory *m, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		uint64_t shard = offset >> m->shard_shift, stop = (shard + 1) << m->shard_shift;

		if (stop > end)
			stop = end;
		/* Counted as a writer, so that nobody frees the shard meanwhile. */
		if (atomic_fetch_add(&m->shards[shard], 1) & SHARD_LIVE)
			memset(m->base + offset, 0, stop - offset);
		atomic_fetch_sub(&m->shards[shard], 1);
		offset = stop;
	}
}

static void give_back(struct io *io)
{
	struct instance *instance = queue_instance(io->queue);
	struct memory *m = instance->private;
	struct memory_queue *mq = queue_private(io->queue);
	struct memory_io *mio = io_private(io);
	uint64_t from = io->offset, end = io->offset + io->length;

	mio->first = mio->end = 0;
	if (!holds_anything(m, io)) {
		io_complete(io, 0);
		return;
	}
	if (!(io->op == IO_WRITE_ZEROES && io->flags & IO_KEEP))
		begin_free(instance, io);
	/*
	 * Ordinary pages of a LIVE shard may go too: they come back when touched.  A
	 * huge page might not, so only whole free shards lose theirs.
	 */
	if (m->hugepages) {
		uint64_t first = mio->first << m->shard_shift, last = mio->end << m->shard_shift;

		if (first == last) {
			zero_in_place(m, from, end);
			io_complete(io, 0);
			return;
		}
		zero_in_place(m, from, first);
		zero_in_place(m, last, end);
		from = first;
		end = last;
	}
	io_fallocate(io, mq->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, end - from,
		     punched);
}

static void memory_submit(struct io *io)
{
	switch (io->op) {
	case IO_READ:
	case IO_WRITE:
		read_or_write(io);
		break;
	case IO_FLUSH:
		io_complete(io, 0);
		break;
	default:
		give_back(io);
		break;
	}
}

static const struct backend memory_backend = {
	.scheme = "memory",
	.syntax = "memory:SIZE",
	.summary = "a RAM disk that takes memory as it is written and gives it back on discard",
	.access = ACCESS_MEMORY,
	.partitions = true,
	.options = memory_options,
	.gauges = memory_gauges,
	.instance_size = sizeof(struct memory),
	.queue_size = sizeof(struct memory_queue),
	.io_size = sizeof(struct memory_io),
	.check = memory_check,
	.needs = memory_needs,
	.open = memory_open,
	.close = memory_close,
	.queue_open = memory_queue_open,
	.submit = memory_submit,
};
BACKEND_REGISTER(memory_backend);
