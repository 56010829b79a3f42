/* SPDX-License-Identifier: MIT */
/*
 * io_uring, as far as a server needs it.  The inline half of liburing works on
 * rings in memory, which are ours here; the calls that enter the kernel come to
 * the functions below.  A completion appears in the ring only while its owner is
 * in the kernel, as with deferred task work.
 */
#include "common/clock.h"
#include "tests/unit/fake-internal.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#define DISCARD_COMMAND _IO(0x12, 0) /* of a block device, Linux 6.12 */
#define NOT_YET         1000000      /* the result of work that waits for a file, or time */

struct completion {
	uint64_t user_data;
	int result;
};

struct list {
	struct completion *items;
	unsigned count, room;
};

/* Work that is not done yet: a read of an eventfd, a poll, a timeout, a send or receive. */
struct waiting {
	struct io_uring_sqe sqe;
	int fd;            /* its own but a read's, as the kernel holds the file */
	uint64_t until_ns; /* a timeout's */
	size_t done;       /* bytes that a send or receive has moved so far */
	bool used;
};

struct buffer_slot {
	uint8_t *data; /* NULL: nothing is registered */
	uint64_t base; /* the address of its first byte, as an SQE names it */
	uint64_t length;
	bool to_fill, to_send; /* what it may be used for */
};

struct fake_ring {
	struct fake_ring *next;
	struct io_uring *user;
	uint32_t flags;
	bool disabled;   /* until it is enabled */
	bool restricted; /* to what is set in these, by number */
	uint64_t sqe_ops, register_ops;
	uint8_t sqe_flags;
	pthread_t owner;
	bool owned;
	unsigned khead, ktail, cq_head, cq_tail, kflags, overflow, dropped;
	unsigned sq_mask, sq_entries, cq_mask, cq_entries;
	uint8_t *sqes;
	struct io_uring_cqe *cqes;
	int files[FAKE_FILES];
	struct fake_device *file_devices[FAKE_FILES];
	bool has_files;
	struct buffer_slot *slots;
	unsigned nr_slots;
	struct list ready; /* to appear in the ring */
	struct list held;
	struct waiting waiting[FAKE_WAITING];
};

static struct fake_ring *rings;
static bool holding;

static struct {
	int opcode;
	unsigned skip, times;
	int result;
} rules[8];
static unsigned done_by_opcode[64], dsyncs;

void fake_rings_reset(void)
{
	holding = false;
	dsyncs = 0;
	memset(rules, 0, sizeof(rules));
	memset(done_by_opcode, 0, sizeof(done_by_opcode));
}

unsigned fake_rings(void)
{
	unsigned n = 0;

	for (struct fake_ring *r = rings; r; r = r->next)
		n++;
	return n;
}

static struct fake_ring *ring_of(struct io_uring *user)
{
	for (struct fake_ring *r = rings; r; r = r->next)
		if (r->user == user)
			return r;
	fake_die("an io_uring that was never set up, or is closed");
}

uint32_t fake_ring_flags(const struct fake_ring *ring)
{
	return ring->flags;
}

/* ---- completions ---- */

static void append(struct list *list, struct completion c)
{
	if (list->count == list->room) {
		list->room = list->room ? 2 * list->room : 64;
		list->items = __real_realloc(list->items, list->room * sizeof(*list->items));
	}
	list->items[list->count++] = c;
}

/* As task work that waits for the owner to enter the kernel. */
void fake_ring_flag(struct fake_ring *ring)
{
	if (ring->flags & IORING_SETUP_TASKRUN_FLAG)
		__atomic_fetch_or(&ring->kflags, IORING_SQ_TASKRUN, __ATOMIC_RELEASE);
}

static void become_ready(struct fake_ring *ring, struct completion c)
{
	append(&ring->ready, c);
	fake_ring_flag(ring);
}

void fake_ring_complete(struct fake_ring *ring, uint64_t user_data, int result)
{
	become_ready(ring, (struct completion){ user_data, result });
	pthread_cond_broadcast(&fake_changed);
}

static void work_complete(struct fake_ring *ring, uint64_t user_data, int result)
{
	if (holding)
		append(&ring->held, (struct completion){ user_data, result });
	else
		fake_ring_complete(ring, user_data, result);
}

void fake_hold_work(bool on)
{
	pthread_mutex_lock(&fake_lock);
	holding = on;
	for (struct fake_ring *r = rings; r && !on; r = r->next) {
		while (r->held.count)
			become_ready(r, r->held.items[--r->held.count]);
	}
	pthread_cond_broadcast(&fake_changed);
	pthread_mutex_unlock(&fake_lock);
}

unsigned fake_work_held(void)
{
	unsigned n = 0;

	pthread_mutex_lock(&fake_lock);
	for (struct fake_ring *r = rings; r; r = r->next)
		n += r->held.count;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

static unsigned visible(const struct fake_ring *r)
{
	return r->cq_tail - __atomic_load_n(&r->cq_head, __ATOMIC_ACQUIRE);
}

static void look_at_waiting(struct fake_ring *r);

static void deliver(struct fake_ring *r)
{
	unsigned n = 0;

	look_at_waiting(r);
	fake_deliver_requests(r);
	for (; n < r->ready.count && visible(r) < r->cq_entries; n++) {
		struct io_uring_cqe *cqe = &r->cqes[r->cq_tail & r->cq_mask];

		cqe->user_data = r->ready.items[n].user_data;
		cqe->res = r->ready.items[n].result;
		cqe->flags = 0;
		__atomic_store_n(&r->cq_tail, r->cq_tail + 1, __ATOMIC_RELEASE);
	}
	if (n) {
		r->ready.count -= n;
		memmove(r->ready.items, r->ready.items + n,
			r->ready.count * sizeof(*r->ready.items));
	}
	if (!r->ready.count)
		__atomic_fetch_and(&r->kflags, ~IORING_SQ_TASKRUN, __ATOMIC_RELEASE);
}

/* ---- work ---- */

void fake_work(int opcode, unsigned skip, unsigned times, int result)
{
	pthread_mutex_lock(&fake_lock);
	for (unsigned i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		if (!rules[i].times) {
			rules[i].opcode = opcode;
			rules[i].skip = skip;
			rules[i].times = times;
			rules[i].result = result;
			break;
		}
	pthread_mutex_unlock(&fake_lock);
}

unsigned fake_work_done(int opcode)
{
	unsigned n;

	pthread_mutex_lock(&fake_lock);
	n = done_by_opcode[opcode];
	pthread_mutex_unlock(&fake_lock);
	return n;
}

unsigned fake_dsyncs(void)
{
	unsigned n;

	pthread_mutex_lock(&fake_lock);
	n = dsyncs;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

/* False where the work is done as it should be. */
static bool rule_for(int opcode, int *result)
{
	if (opcode == IORING_OP_READ_FIXED)
		opcode = IORING_OP_READ;
	if (opcode == IORING_OP_WRITE_FIXED)
		opcode = IORING_OP_WRITE;
	for (unsigned i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		if (!rules[i].times || rules[i].opcode != opcode)
			continue;
		if (rules[i].skip) {
			rules[i].skip--;
			continue;
		}
		rules[i].times--;
		*result = rules[i].result;
		return true;
	}
	return false;
}

int fake_ring_register(struct fake_ring *ring, unsigned index, void *data, uint32_t length,
		       bool for_read)
{
	if (index >= ring->nr_slots)
		return -EINVAL;
	if (ring->slots[index].data)
		return -EBUSY;
	ring->slots[index] = (struct buffer_slot){ data, 0, length, for_read, !for_read };
	return 0;
}

void fake_ring_unregister(struct fake_ring *ring, unsigned index)
{
	ring->slots[index].data = NULL;
}

/* The memory that a FIXED operation names; a request's pages are addressed from 0. */
static int fixed_buffer(struct fake_ring *ring, const struct io_uring_sqe *sqe, void **at)
{
	const struct buffer_slot *slot;

	if (sqe->buf_index >= ring->nr_slots)
		return -EFAULT;
	slot = &ring->slots[sqe->buf_index];
	if (!slot->data || sqe->addr < slot->base ||
	    sqe->addr - slot->base + sqe->len > slot->length ||
	    !(sqe->opcode == IORING_OP_READ_FIXED ? slot->to_fill : slot->to_send))
		return -EFAULT;
	*at = slot->data + (sqe->addr - slot->base);
	return 0;
}

static int transfer(struct fake_ring *ring, const struct io_uring_sqe *sqe, int fd, uint32_t length)
{
	struct iovec vec = { (void *)(uintptr_t)sqe->addr, length };
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	bool reads = sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_READ_FIXED;
	struct stat st;
	ssize_t ret;
	int code;

	if (sqe->opcode == IORING_OP_READ_FIXED || sqe->opcode == IORING_OP_WRITE_FIXED) {
		code = fixed_buffer(ring, sqe, &vec.iov_base);
		if (code)
			return code;
	}
	if (__real_fstat(fd, &st))
		return -EBADF;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode)) {
		if (!poll(&pfd, 1, 0))
			return NOT_YET;
		ret = read(fd, vec.iov_base, length);
	} else if (reads) {
		ret = preadv2(fd, &vec, 1, (off_t)sqe->off, sqe->rw_flags);
	} else {
		if (sqe->rw_flags & RWF_DSYNC)
			dsyncs++;
		ret = pwritev2(fd, &vec, 1, (off_t)sqe->off, sqe->rw_flags);
	}
	return ret < 0 ? -errno : (int)ret;
}

static int discard(const struct io_uring_sqe *sqe, int fd)
{
	if (sqe->cmd_op != (uint32_t)DISCARD_COMMAND || !fake_now.discards)
		return -EOPNOTSUPP;
	return __real_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)sqe->addr,
				(off_t)sqe->addr3)
		       ? -errno
		       : 0;
}

static int poll_now(const struct io_uring_sqe *sqe, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = (short)sqe->poll32_events };

	if (sqe->len)
		return -EINVAL; /* several shots, or an update: nobody here wants them */
	if (fd < 0)
		return -EBADF;
	if (!poll(&pfd, 1, 0))
		return NOT_YET;
	return pfd.revents & POLLNVAL ? -EBADF : pfd.revents;
}

/* A relative one, that no completion ends. */
static int check_timeout(const struct io_uring_sqe *sqe)
{
	const struct __kernel_timespec *ts = (const void *)(uintptr_t)sqe->addr;

	if (sqe->off || sqe->len != 1 || sqe->timeout_flags)
		return -EINVAL;
	return ts->tv_sec < 0 || ts->tv_nsec < 0 ? -EINVAL : NOT_YET;
}

/* ---- sockets ---- */

static int socket_result(ssize_t n, size_t done)
{
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return NOT_YET;
	/* What was moved before is told, as the kernel does. */
	if (n <= 0 && done)
		return (int)done;
	return n < 0 ? -errno : 0;
}

static int send_now(const struct io_uring_sqe *sqe, int fd, size_t *done)
{
	const struct msghdr *message = (const void *)(uintptr_t)sqe->addr;
	bool all = sqe->msg_flags & MSG_WAITALL;
	size_t total = 0;

	for (size_t i = 0; i < message->msg_iovlen; i++)
		total += message->msg_iov[i].iov_len;
	while (*done < total) {
		struct iovec rest[1024];
		struct msghdr part = { .msg_iov = rest };
		size_t skip = *done;
		ssize_t n;

		for (size_t i = 0; i < message->msg_iovlen; i++) {
			struct iovec piece = message->msg_iov[i];
			size_t gone = skip < piece.iov_len ? skip : piece.iov_len;

			skip -= gone;
			if (gone < piece.iov_len)
				rest[part.msg_iovlen++] =
					(struct iovec){ (char *)piece.iov_base + gone,
							piece.iov_len - gone };
		}
		n = sendmsg(fd, &part, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n <= 0)
			return socket_result(n, *done);
		*done += (size_t)n;
		if (!all)
			break;
	}
	return (int)*done;
}

static int receive_now(const struct io_uring_sqe *sqe, int fd, size_t *done)
{
	bool all = sqe->msg_flags & MSG_WAITALL;

	do {
		ssize_t n = recv(fd, (char *)(uintptr_t)sqe->addr + *done, sqe->len - *done,
				 MSG_DONTWAIT);

		if (n <= 0)
			return socket_result(n, *done);
		*done += (size_t)n;
	} while (all && *done < sqe->len);
	return (int)*done;
}

static int do_work(struct fake_ring *ring, const struct io_uring_sqe *sqe, int fd, size_t *done)
{
	int result = 0, ret = -EINVAL;
	/* The queue's own read of an eventfd is not a backend's work. */
	bool ruled = (sqe->opcode != IORING_OP_READ || sqe->flags & IOSQE_FIXED_FILE) &&
		     rule_for(sqe->opcode, &result);

	done_by_opcode[sqe->opcode & 63]++;
	if (ruled && result < 0)
		return result;
	switch (sqe->opcode) {
	case IORING_OP_NOP:
		ret = 0;
		break;
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_READ_FIXED:
	case IORING_OP_WRITE_FIXED:
		ret = transfer(ring, sqe, fd,
			       ruled && (uint32_t)result < sqe->len ? (uint32_t)result : sqe->len);
		break;
	case IORING_OP_FSYNC:
		ret = (sqe->fsync_flags & IORING_FSYNC_DATASYNC ? fdatasync(fd) : fsync(fd))
			      ? -errno
			      : 0;
		break;
	case IORING_OP_FALLOCATE:
		if (fake_fallocate_lacks((int)sqe->len))
			return -EOPNOTSUPP;
		ret = __real_fallocate(fd, (int)sqe->len, (off_t)sqe->off, (off_t)sqe->addr)
			      ? -errno
			      : 0;
		break;
	case IORING_OP_URING_CMD:
		ret = discard(sqe, fd);
		break;
	case IORING_OP_POLL_ADD:
		ret = poll_now(sqe, fd);
		break;
	case IORING_OP_TIMEOUT:
		ret = check_timeout(sqe);
		break;
	case IORING_OP_SENDMSG:
		ret = send_now(sqe, fd, done);
		break;
	case IORING_OP_RECV:
		ret = receive_now(sqe, fd, done);
		break;
	}
	return ret;
}

/* ---- work that waits ---- */

static bool is_used(const struct waiting *w, uint8_t opcode)
{
	return w->used && w->sqe.opcode == opcode;
}

static bool holds_file(const struct waiting *w)
{
	return is_used(w, IORING_OP_POLL_ADD) || is_used(w, IORING_OP_SENDMSG) ||
	       is_used(w, IORING_OP_RECV);
}

/* Whether the file that is held is what its SQE names still. */
static bool is_open(const struct waiting *w)
{
	struct stat named, held;

	return !__real_fstat(w->sqe.fd, &named) && !__real_fstat(w->fd, &held) &&
	       named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

static void drop_waiting(struct waiting *w)
{
	if (holds_file(w))
		__real_close(w->fd);
	w->used = false;
}

static int result_of(struct fake_ring *r, struct waiting *w)
{
	switch (w->sqe.opcode) {
	case IORING_OP_POLL_ADD:
		return poll_now(&w->sqe, w->fd);
	case IORING_OP_TIMEOUT:
		return clock_ns() < w->until_ns ? NOT_YET : -ETIME;
	case IORING_OP_SENDMSG:
		return send_now(&w->sqe, w->fd, &w->done);
	case IORING_OP_RECV:
		return receive_now(&w->sqe, w->fd, &w->done);
	default:
		return transfer(r, &w->sqe, w->fd, w->sqe.len);
	}
}

static void look_at_waiting(struct fake_ring *r)
{
	for (struct waiting *w = r->waiting; w < r->waiting + FAKE_WAITING; w++) {
		int ret;

		if (!w->used)
			continue;
		if (holds_file(w) && !is_open(w))
			fake_violation("descriptor %d is closed while a ring has work on it",
				       w->sqe.fd);
		ret = result_of(r, w);
		if (ret == NOT_YET)
			continue;
		drop_waiting(w);
		/* A read of an eventfd wakes the queue, whatever else is held. */
		if (w->sqe.opcode == IORING_OP_READ)
			fake_ring_complete(r, w->sqe.user_data, ret);
		else
			work_complete(r, w->sqe.user_data, ret);
	}
}

static void wait_for_it(struct fake_ring *r, const struct io_uring_sqe *sqe, int fd, size_t done)
{
	struct waiting *place = NULL;

	for (struct waiting *w = r->waiting; w < r->waiting + FAKE_WAITING; w++) {
		if (!w->used)
			place = w;
		else if (w->sqe.user_data == sqe->user_data)
			fake_violation("what waits already is given to the ring once more");
	}
	if (!place)
		fake_die("more than %u reads, polls and timeouts wait", FAKE_WAITING);
	*place = (struct waiting){ .sqe = *sqe, .fd = fd, .done = done, .used = true };
	if (holds_file(place)) {
		place->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (place->fd < 0)
			fake_die("no descriptor is left for what waits");
	} else if (sqe->opcode == IORING_OP_TIMEOUT) {
		const struct __kernel_timespec *ts = (const void *)(uintptr_t)sqe->addr;

		place->until_ns =
			clock_ns() + (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
	}
}

/* How long a ring may sleep before it must look again, in milliseconds. */
static unsigned patience(const struct fake_ring *r)
{
	uint64_t now = clock_ns(), ms = FAKE_POLL_MS;

	for (const struct waiting *w = r->waiting; w < r->waiting + FAKE_WAITING; w++) {
		uint64_t left = 1;

		if (is_used(w, IORING_OP_TIMEOUT))
			left = w->until_ns > now ? (w->until_ns - now) / 1000000 + 1 : 1;
		else if (!holds_file(w))
			continue;
		if (left < ms)
			ms = left;
	}
	return (unsigned)ms;
}

/* Whether that was waiting; it hears of its end by itself. */
static bool cancel_waiting(struct fake_ring *r, uint64_t user_data)
{
	for (struct waiting *w = r->waiting; w < r->waiting + FAKE_WAITING; w++)
		if (w->used && w->sqe.user_data == user_data) {
			drop_waiting(w);
			work_complete(r, user_data, -ECANCELED);
			return true;
		}
	return false;
}

/* 0, -ENOENT, or what a command's cancel says. */
static int cancel(struct fake_ring *r, const struct io_uring_sqe *sqe)
{
	if (sqe->cancel_flags)
		return -EINVAL;
	return cancel_waiting(r, sqe->addr) ? 0 : fake_cancel_command(r, sqe->addr);
}

static bool find_file(struct fake_ring *r, const struct io_uring_sqe *sqe, int *fd,
		      struct fake_file *file)
{
	struct fake_file *known;

	*file = (struct fake_file){ 0 };
	if (sqe->flags & IOSQE_FIXED_FILE) {
		if (!r->has_files || sqe->fd < 0 || sqe->fd >= (int)FAKE_FILES ||
		    r->files[sqe->fd] < 0)
			return false;
		*fd = r->files[sqe->fd];
		if (r->file_devices[sqe->fd]) {
			file->kind = FAKE_CHAR;
			file->device = r->file_devices[sqe->fd];
		}
		return true;
	}
	*fd = sqe->fd;
	known = fake_file_of(*fd);
	if (known)
		*file = *known;
	return true;
}

static bool may_do(const struct fake_ring *r, const struct io_uring_sqe *sqe)
{
	return !r->restricted ||
	       (r->sqe_ops & 1ull << (sqe->opcode & 63) && !(sqe->flags & ~r->sqe_flags));
}

/* With the lock. */
static bool may_register(const struct fake_ring *r, unsigned op)
{
	bool may = !r->restricted || r->disabled || r->register_ops & 1ull << op;

	if (!may)
		fake_violation("a ring is not allowed to register with %u", op);
	return may;
}

static void issue(struct fake_ring *r, const struct io_uring_sqe *sqe)
{
	struct fake_file file;
	size_t done = 0;
	int fd, ret;

	if (!may_do(r, sqe)) {
		fake_violation("a ring is not allowed operation %u, flags %#x", sqe->opcode,
			       sqe->flags);
		fake_ring_complete(r, sqe->user_data, -EACCES);
		return;
	}
	if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
		fake_ring_complete(r, sqe->user_data, cancel(r, sqe));
		return;
	}
	if (!find_file(r, sqe, &fd, &file)) {
		fake_ring_complete(r, sqe->user_data, -EBADF);
		return;
	}
	if (sqe->opcode == IORING_OP_URING_CMD && file.kind == FAKE_CONTROL) {
		fake_control_command(r, sqe);
	} else if (sqe->opcode == IORING_OP_URING_CMD && file.kind == FAKE_CHAR) {
		fake_io_command(r, file.device, sqe);
	} else {
		ret = do_work(r, sqe, fd, &done);
		if (ret == NOT_YET)
			wait_for_it(r, sqe, fd, done);
		else
			work_complete(r, sqe->user_data, ret);
	}
}

static void check_owner(struct fake_ring *r)
{
	if (!r->owned) {
		r->owned = true;
		r->owner = pthread_self();
	} else if (r->flags & IORING_SETUP_SINGLE_ISSUER &&
		   !pthread_equal(r->owner, pthread_self())) {
		fake_violation("a ring of a single issuer is entered by another thread");
	}
}

static int submit(struct fake_ring *r)
{
	struct io_uring_sq *sq = &r->user->sq;
	unsigned shift = r->flags & IORING_SETUP_SQE128 ? 7 : 6, n = 0;

	if (r->disabled)
		return -EBADFD;
	check_owner(r);
	while (sq->sqe_head != sq->sqe_tail) {
		const uint8_t *sqe = r->sqes + ((size_t)(sq->sqe_head & r->sq_mask) << shift);

		sq->sqe_head++;
		issue(r, (const struct io_uring_sqe *)sqe);
		n++;
	}
	__atomic_store_n(&r->khead, sq->sqe_head, __ATOMIC_RELEASE);
	__atomic_store_n(&r->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	deliver(r);
	return (int)n;
}

/* ---- the calls ---- */

static unsigned power_of_2(unsigned n)
{
	unsigned p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static void connect_rings(struct fake_ring *r, struct io_uring *user, int fd)
{
	memset(user, 0, sizeof(*user));
	user->flags = r->flags;
	user->ring_fd = user->enter_ring_fd = fd;
	user->sq.khead = &r->khead;
	user->sq.ktail = &r->ktail;
	user->sq.kring_mask = &r->sq_mask;
	user->sq.kring_entries = &r->sq_entries;
	user->sq.kflags = &r->kflags;
	user->sq.kdropped = &r->dropped;
	user->sq.sqes = (struct io_uring_sqe *)r->sqes;
	user->sq.ring_mask = r->sq_mask;
	user->sq.ring_entries = r->sq_entries;
	user->cq.khead = &r->cq_head;
	user->cq.ktail = &r->cq_tail;
	user->cq.kring_mask = &r->cq_mask;
	user->cq.kring_entries = &r->cq_entries;
	user->cq.kflags = &r->kflags;
	user->cq.koverflow = &r->overflow;
	user->cq.cqes = r->cqes;
	user->cq.ring_mask = r->cq_mask;
	user->cq.ring_entries = r->cq_entries;
}

int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *user,
				      struct io_uring_params *p);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *user,
				      struct io_uring_params *p)
{
	struct fake_ring *r;
	int code, fd;

	if (!fake_active)
		fake_die("a ring is set up without fake_start()");
	if (fake_point("io_uring_queue_init_params", ENOMEM, &code))
		return -code;
	if (fake_now.ring_refusal)
		return -fake_now.ring_refusal;
	if (p->flags & ~(fake_now.ring_flags | IORING_SETUP_R_DISABLED) || !entries)
		return -EINVAL;
	/* Deferred task work is a single issuer's. */
	if (p->flags & IORING_SETUP_DEFER_TASKRUN && !(p->flags & IORING_SETUP_SINGLE_ISSUER))
		return -EINVAL;
	if (p->flags & IORING_SETUP_TASKRUN_FLAG &&
	    !(p->flags & (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_DEFER_TASKRUN)))
		return -EINVAL;
	fd = __real_memfd_create("fake", MFD_CLOEXEC);
	r = __real_calloc(1, sizeof(*r));
	r->user = user;
	r->flags = p->flags;
	r->disabled = p->flags & IORING_SETUP_R_DISABLED;
	r->sq_entries = power_of_2(entries);
	r->cq_entries =
		p->flags & IORING_SETUP_CQSIZE ? power_of_2(p->cq_entries) : 2 * r->sq_entries;
	r->sq_mask = r->sq_entries - 1;
	r->cq_mask = r->cq_entries - 1;
	r->sqes = __real_calloc(r->sq_entries, 128);
	r->cqes = __real_calloc(r->cq_entries, sizeof(*r->cqes));
	connect_rings(r, user, fd);
	pthread_mutex_lock(&fake_lock);
	fake_file_new(fd, FAKE_RING);
	r->next = rings;
	rings = r;
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

static void drop_file(struct fake_ring *r, unsigned slot)
{
	struct fake_device *device = r->file_devices[slot];

	r->file_devices[slot] = NULL;
	if (device)
		fake_drop_char(device);
}

static void drop_files(struct fake_ring *r)
{
	for (unsigned i = 0; i < FAKE_FILES; i++)
		drop_file(r, i);
	r->has_files = false;
}

void __wrap_io_uring_queue_exit(struct io_uring *user);
void __wrap_io_uring_queue_exit(struct io_uring *user)
{
	struct fake_ring *r, **link;
	int fd = user->ring_fd;

	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	fake_forget_ring(r);
	drop_files(r);
	for (struct waiting *w = r->waiting; w < r->waiting + FAKE_WAITING; w++)
		drop_waiting(w);
	for (link = &rings; *link != r; link = &(*link)->next)
		;
	*link = r->next;
	*fake_file_of(fd) = (struct fake_file){ 0 };
	pthread_cond_broadcast(&fake_changed);
	pthread_mutex_unlock(&fake_lock);
	__real_close(fd);
	free(r->sqes);
	free(r->cqes);
	free(r->slots);
	free(r->ready.items);
	free(r->held.items);
	free(r);
}

int __wrap_io_uring_submit(struct io_uring *user);
int __wrap_io_uring_submit(struct io_uring *user)
{
	int code, ret;

	if (fake_point("io_uring_submit", EAGAIN, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	ret = submit(ring_of(user));
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *user);
int __wrap_io_uring_submit_and_get_events(struct io_uring *user)
{
	struct fake_ring *r;
	int ret;

	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	ret = submit(r);
	deliver(r);
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_submit_and_wait(struct io_uring *user, unsigned wait_nr);
int __wrap_io_uring_submit_and_wait(struct io_uring *user, unsigned wait_nr)
{
	uint64_t end = clock_ms() + FAKE_PATIENCE * 1000;
	struct fake_ring *r;
	int code, ret;

	if (fake_point("io_uring_submit_and_wait", EAGAIN, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	ret = submit(r);
	while (visible(r) < wait_nr) {
		fake_wait(patience(r));
		deliver(r);
		if (clock_ms() > end)
			fake_die("a ring has waited %u s for %u completions", FAKE_PATIENCE,
				 wait_nr);
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

/*
 * The clock runs ahead where nothing can happen: all that a ring waits for is a
 * command that a test told not to be answered.
 */
int __wrap_io_uring_wait_cqe_timeout(struct io_uring *user, struct io_uring_cqe **cqe,
				     struct __kernel_timespec *ts);
int __wrap_io_uring_wait_cqe_timeout(struct io_uring *user, struct io_uring_cqe **cqe,
				     struct __kernel_timespec *ts)
{
	uint64_t now = clock_ms(), end;
	struct fake_ring *r;
	int code, ret = 0;

	end = now + (ts ? (uint64_t)ts->tv_sec * 1000 + (uint64_t)ts->tv_nsec / 1000000
			: FAKE_PATIENCE * 1000);
	if (fake_point("io_uring_wait_cqe_timeout", EINTR, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	check_owner(r);
	for (deliver(r); !visible(r); deliver(r)) {
		if (fake_ring_has_commands(r, true) && !fake_ring_has_commands(r, false))
			ret = -ETIME;
		else if (now >= end)
			ret = -ETIME;
		if (ret)
			break;
		fake_wait(end - now < FAKE_POLL_MS ? (unsigned)(end - now) : FAKE_POLL_MS);
		now = clock_ms();
	}
	if (!ret)
		*cqe = &r->cqes[__atomic_load_n(&r->cq_head, __ATOMIC_ACQUIRE) & r->cq_mask];
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

static int restrict_ring(struct fake_ring *r, const struct io_uring_restriction *all, unsigned n)
{
	if (!r->disabled)
		return -EBADFD;
	if (r->restricted)
		return -EBUSY;
	r->restricted = true;
	for (unsigned i = 0; i < n; i++)
		switch (all[i].opcode) {
		case IORING_RESTRICTION_REGISTER_OP:
			r->register_ops |= 1ull << all[i].register_op;
			break;
		case IORING_RESTRICTION_SQE_OP:
			r->sqe_ops |= 1ull << all[i].sqe_op;
			break;
		case IORING_RESTRICTION_SQE_FLAGS_ALLOWED:
			r->sqe_flags |= all[i].sqe_flags;
			break;
		default:
			return -EINVAL;
		}
	return 0;
}

static struct fake_ring *ring_by_fd(unsigned fd)
{
	for (struct fake_ring *r = rings; r; r = r->next)
		if (r->user->ring_fd == (int)fd)
			return r;
	fake_die("descriptor %u is no io_uring's", fd);
}

int __wrap_io_uring_register(unsigned fd, unsigned op, const void *arg, unsigned n);
int __wrap_io_uring_register(unsigned fd, unsigned op, const void *arg, unsigned n)
{
	struct fake_ring *r;
	int code, ret = -EINVAL;

	if (fake_point("io_uring_register", ENOMEM, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_by_fd(fd);
	if (op == IORING_REGISTER_RESTRICTIONS) {
		ret = restrict_ring(r, arg, n);
	} else if (op == IORING_REGISTER_ENABLE_RINGS) {
		ret = r->disabled ? 0 : -EBADFD;
		r->disabled = false;
	} else if (op == IORING_REGISTER_SYNC_CANCEL && may_register(r, op)) {
		const struct io_uring_sync_cancel_reg *cancel = arg;

		ret = cancel_waiting(r, cancel->addr) ? 0 : -ENOENT;
		/* Its completion is not for a test to hold back. */
		for (unsigned i = 0; i < r->held.count; i++)
			if (r->held.items[i].user_data == cancel->addr) {
				become_ready(r, r->held.items[i]);
				r->held.items[i] = r->held.items[--r->held.count];
				break;
			}
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_register_ring_fd(struct io_uring *user);
int __wrap_io_uring_register_ring_fd(struct io_uring *user)
{
	int code, ret;

	if (fake_point("io_uring_register_ring_fd", EINVAL, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	if (!may_register(ring_of(user), IORING_REGISTER_RING_FDS))
		ret = -EACCES;
	else
		ret = fake_now.registers_ring_fd ? 1 : -EINVAL;
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

static void put_file(struct fake_ring *r, unsigned slot, int fd)
{
	struct fake_file *file = fake_file_of(fd);

	r->files[slot] = fd;
	if (file && file->kind == FAKE_CHAR) {
		r->file_devices[slot] = file->device;
		fake_hold_char(file->device);
	}
}

int __wrap_io_uring_register_files(struct io_uring *user, const int *fds, unsigned n);
int __wrap_io_uring_register_files(struct io_uring *user, const int *fds, unsigned n)
{
	struct fake_ring *r;
	int code, ret = 0;

	if (fake_point("io_uring_register_files", ENOMEM, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	if (!may_register(r, IORING_REGISTER_FILES)) {
		ret = -EACCES;
	} else if (r->has_files || !n || n > FAKE_FILES) {
		ret = -EBUSY;
	} else {
		for (unsigned i = 0; i < FAKE_FILES; i++)
			r->files[i] = -1;
		r->has_files = true;
		for (unsigned i = 0; i < n; i++)
			put_file(r, i, fds[i]);
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_register_files_update(struct io_uring *user, unsigned off, const int *fds,
					  unsigned n);
int __wrap_io_uring_register_files_update(struct io_uring *user, unsigned off, const int *fds,
					  unsigned n)
{
	struct fake_ring *r;
	int code, ret = (int)n;

	if (fake_point("io_uring_register_files_update", ENOMEM, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	if (!may_register(r, IORING_REGISTER_FILES_UPDATE))
		ret = -EACCES;
	else if (!r->has_files)
		ret = -ENXIO;
	else if (off + n > FAKE_FILES)
		ret = -EINVAL;
	for (unsigned i = 0; ret > 0 && i < n; i++) {
		if (r->files[off + i] >= 0 && fds[i] >= 0)
			fake_violation("a registered file is replaced");
		drop_file(r, off + i);
		put_file(r, off + i, fds[i]);
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_unregister_files(struct io_uring *user);
int __wrap_io_uring_unregister_files(struct io_uring *user)
{
	struct fake_ring *r;
	int ret;

	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	ret = r->has_files ? 0 : -ENXIO;
	drop_files(r);
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_register_buffers_sparse(struct io_uring *user, unsigned n);
int __wrap_io_uring_register_buffers_sparse(struct io_uring *user, unsigned n)
{
	struct fake_ring *r;
	int code, ret = 0;

	if (fake_point("io_uring_register_buffers_sparse", ENOMEM, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	if (!may_register(r, IORING_REGISTER_BUFFERS2)) {
		ret = -EACCES;
	} else if (r->slots) {
		ret = -EBUSY;
	} else if (!n || n > 16384) {
		ret = -EINVAL;
	} else {
		r->slots = __real_calloc(n, sizeof(*r->slots));
		r->nr_slots = n;
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int __wrap_io_uring_register_buffers_update_tag(struct io_uring *user, unsigned off,
						const struct iovec *vecs, const __u64 *tags,
						unsigned n);
int __wrap_io_uring_register_buffers_update_tag(struct io_uring *user, unsigned off,
						const struct iovec *vecs, const __u64 *tags,
						unsigned n)
{
	struct fake_ring *r;
	int code, ret = (int)n;

	(void)tags;
	if (fake_point("io_uring_register_buffers_update_tag", ENOMEM, &code))
		return -code;
	pthread_mutex_lock(&fake_lock);
	r = ring_of(user);
	if (!may_register(r, IORING_REGISTER_BUFFERS_UPDATE))
		ret = -EACCES;
	else if (off + n > r->nr_slots)
		ret = r->slots ? -EINVAL : -ENXIO;
	for (unsigned i = 0; ret > 0 && i < n; i++)
		r->slots[off + i] = (struct buffer_slot){
			.data = vecs[i].iov_base,
			.base = (uint64_t)(uintptr_t)vecs[i].iov_base,
			.length = vecs[i].iov_len,
			.to_fill = true,
			.to_send = true,
		};
	pthread_mutex_unlock(&fake_lock);
	return ret;
}
