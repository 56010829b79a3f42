/* SPDX-License-Identifier: MIT */
/*
 * The ublk driver: the commands of /dev/ublk-control and /dev/ublkcN with their
 * rules, and a block layer of the test's own above it.  From ublk_drv.c of Linux
 * 6.12 and 7.2.
 *
 * A request goes: waiting (no tag is free) -> dispatched (a tag's command waits
 * for its ring's owner to enter the kernel) -> serving (the owner has it) -> ended
 * by a commit, or dispatched again with what is left of it.
 */
#include "common/clock.h"
#include "tests/unit/fake-internal.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/capability.h>

#define PAGE        4096u
#define PENDING     1 /* a command that is not through yet */
#define REQUEUE_MAX 10000u
#define ALWAYS_ON                                                                    \
	(UBLK_FEAT_COMP_IN_TASK | UBLK_FEAT_IOCTL_ENCODE | UBLK_FEAT_PER_IO_DAEMON | \
	 UBLK_FEAT_BUF_REG_OFF_DAEMON | UBLK_FEAT_SAFE_STOP)

struct fake_request {
	struct fake_request *next;
	struct fake_device *device; /* NULL: it has ended */
	unsigned op;
	uint32_t flags;
	uint64_t offset;
	uint32_t length, done;
	uint8_t *data;
	unsigned sent;
	int result;
};

enum tag_state {
	TAG_IDLE,       /* no command of the server's */
	TAG_FETCHED,    /* a command waits for a request */
	TAG_DISPATCHED, /* and has one */
	TAG_SERVING,    /* the server has the request */
};

struct tag {
	enum tag_state state;
	struct fake_ring *ring;
	uint64_t user_data;
	uint64_t addr;
	uint64_t auto_buf;
	bool registered;
	struct fake_request *request;
};

struct attribute {
	char name[32];
	char value[32];
};

struct fake_queue {
	struct tag *tags;
	pthread_t owner;
	bool owned;
	int desc_fd;
	struct ublk_io_desc *descs;
	struct fake_request *first, **last; /* waiting */
};

struct fake_device {
	struct fake_device *next;
	struct ublk_dev_info info;
	struct ublk_dev_params params;
	bool live, stopping, aborted, deleted, ownerless;
	unsigned char_refs;
	bool char_open;
	bool scans, unprivileged;
	size_t desc_bytes;
	struct fake_queue *queues;
	struct attribute attributes[8];
};

struct command {
	struct command *next;
	struct fake_ring *ring; /* NULL: another process's, or its ring is gone */
	uint64_t user_data;
	uint32_t op;
	struct ublk_ctrl_cmd payload;
	bool claimed; /* a deletion that has begun */
};

static struct fake_device *devices;
static struct command *commands;
static unsigned outstanding, requeues, registrations, registration_every;
static uint32_t hung_op, refused_op;
static bool hung_cancels;
static int refusal;
static uint32_t last_op;
static struct ublk_ctrl_cmd last_payload;

/* Commands that were never answered: what they point to must stay for ever. */
static struct command *abandoned;

void fake_driver_reset(void)
{
	struct command **last = &abandoned;

	while (*last)
		last = &(*last)->next;
	*last = commands;
	commands = NULL;
	devices = NULL;
	outstanding = requeues = registrations = registration_every = 0;
	hung_op = refused_op = 0;
}

/* ---- small things ---- */

static bool has(const struct fake_device *d, uint64_t feature)
{
	return d->info.flags & feature;
}

static bool copies(const struct fake_device *d)
{
	return !has(d, UBLK_FEAT_USER_COPY | UBLK_FEAT_ZERO_COPY | UBLK_FEAT_AUTO_BUF_REG);
}

struct fake_device *fake_find_device(unsigned id)
{
	for (struct fake_device *d = devices; d; d = d->next)
		if (d->info.dev_id == id && !d->deleted)
			return d;
	return NULL;
}

bool fake_device_is_live(const struct fake_device *d)
{
	return d->live;
}

static void advance(void);

unsigned fake_devices(void)
{
	unsigned n = 0;

	pthread_mutex_lock(&fake_lock);
	for (struct fake_device *d = devices; d; d = d->next)
		n++;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

bool fake_device(unsigned id, struct ublk_dev_info *info, struct ublk_dev_params *params)
{
	struct fake_device *d;

	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	if (d && info)
		*info = d->info;
	if (d && params)
		*params = d->params;
	pthread_mutex_unlock(&fake_lock);
	return d;
}

bool fake_is_live(unsigned id)
{
	struct fake_device *d;
	bool live;

	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	live = d && d->live;
	pthread_mutex_unlock(&fake_lock);
	return live;
}

bool fake_scans_partitions(unsigned id)
{
	struct fake_device *d;
	bool scans;

	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	scans = d && d->scans;
	pthread_mutex_unlock(&fake_lock);
	return scans;
}

const char *fake_attribute(unsigned id, const char *name)
{
	struct fake_device *d;
	const char *value = NULL;

	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	for (unsigned i = 0; d && i < sizeof(d->attributes) / sizeof(*d->attributes); i++)
		if (!strcmp(d->attributes[i].name, name))
			value = d->attributes[i].value;
	pthread_mutex_unlock(&fake_lock);
	return value;
}

void fake_set_attribute(struct fake_device *d, const char *name, const void *value, size_t length)
{
	struct attribute *a = d->attributes;

	while (*a->name && strcmp(a->name, name))
		if (++a == d->attributes + sizeof(d->attributes) / sizeof(*d->attributes))
			fake_die("too many attributes");
	snprintf(a->name, sizeof(a->name), "%s", name);
	snprintf(a->value, sizeof(a->value), "%.*s", (int)length, (const char *)value);
}

unsigned fake_in_service(unsigned id)
{
	struct fake_device *d;
	unsigned n = 0;

	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	for (unsigned q = 0; d && q < d->info.nr_hw_queues; q++)
		for (unsigned t = 0; t < d->info.queue_depth; t++)
			n += d->queues[q].tags[t].state == TAG_SERVING;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

unsigned fake_requeues(void)
{
	unsigned n;

	pthread_mutex_lock(&fake_lock);
	n = requeues;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

void fake_registration_fails(unsigned every)
{
	pthread_mutex_lock(&fake_lock);
	registration_every = every;
	registrations = 0;
	pthread_mutex_unlock(&fake_lock);
}

unsigned fake_driver_left(void)
{
	unsigned left = outstanding;

	for (struct fake_device *d = devices; d; d = d->next) {
		fprintf(stderr, "fake kernel: device %u is left (%u references, %s)\n",
			d->info.dev_id, d->char_refs, d->live ? "live" : "not live");
		left++;
	}
	if (outstanding)
		fprintf(stderr, "fake kernel: %u requests have not ended\n", outstanding);
	for (const struct command *c = commands; c; c = c->next)
		if (c->ring) {
			fprintf(stderr, "fake kernel: a command %#x is not answered\n", c->op);
			left++;
		}
	return left;
}

/* ---- requests ---- */

static void end_request(struct fake_request *r, int result)
{
	r->device = NULL;
	r->result = result;
	outstanding--;
	pthread_cond_broadcast(&fake_changed);
}

static void wait_in(struct fake_queue *q, struct fake_request *r)
{
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
}

static void dispatch(struct fake_device *d, struct fake_queue *q)
{
	for (unsigned i = 0; q->first && i < d->info.queue_depth; i++) {
		struct tag *tag = &q->tags[i];

		if (tag->state != TAG_FETCHED)
			continue;
		tag->request = q->first;
		q->first = q->first->next;
		if (!q->first)
			q->last = &q->first;
		tag->state = TAG_DISPATCHED;
		fake_ring_flag(tag->ring);
	}
	pthread_cond_broadcast(&fake_changed);
}

static bool carries_data(const struct fake_request *r)
{
	return r->op == UBLK_OP_READ || r->op == UBLK_OP_WRITE;
}

static int register_buffer(struct fake_device *d, struct tag *tag)
{
	struct fake_request *r = tag->request;
	struct ublk_auto_buf buf;
	int ret;

	(void)d;
	memcpy(&buf, &tag->auto_buf, sizeof(buf));
	if (registration_every && ++registrations % registration_every == 0)
		return -ENOMEM;
	ret = fake_ring_register(tag->ring, buf.index, r->data + r->done, r->length - r->done,
				 r->op == UBLK_OP_READ);
	tag->registered = !ret;
	return ret;
}

/* The server's task takes a request: all that ublk_dispatch_req() does. */
static void hand_over(struct fake_device *d, struct fake_queue *q, unsigned index)
{
	struct tag *tag = &q->tags[index];
	struct fake_request *r = tag->request;
	struct ublk_io_desc *desc = &q->descs[index];
	uint32_t left = r->length - r->done, flags = r->op | r->flags;

	if (has(d, UBLK_FEAT_AUTO_BUF_REG) && carries_data(r) && register_buffer(d, tag)) {
		struct ublk_auto_buf buf;

		memcpy(&buf, &tag->auto_buf, sizeof(buf));
		if (!(buf.flags & UBLK_AUTO_BUF_FALLBACK)) {
			tag->state = TAG_FETCHED;
			tag->request = NULL;
			end_request(r, -EIO);
			dispatch(d, q);
			return;
		}
		flags |= UBLK_REQ_NEED_REG_BUF;
	}
	*desc = (struct ublk_io_desc){
		.op_flags = flags,
		.nr_sectors = left >> UBLK_SECTOR_SHIFT,
		.start_sector = (r->offset + r->done) >> UBLK_SECTOR_SHIFT,
		.addr = tag->addr,
	};
	if (copies(d) && r->op == UBLK_OP_WRITE)
		memcpy((void *)(uintptr_t)tag->addr, r->data + r->done, left);
	tag->state = TAG_SERVING;
	fake_ring_complete(tag->ring, tag->user_data, UBLK_RES_OK);
}

void fake_deliver_requests(struct fake_ring *ring)
{
	for (struct fake_device *d = devices; d; d = d->next)
		for (unsigned q = 0; q < d->info.nr_hw_queues; q++)
			for (unsigned t = 0; t < d->info.queue_depth; t++) {
				struct tag *tag = &d->queues[q].tags[t];

				if (tag->ring == ring && tag->state == TAG_DISPATCHED)
					hand_over(d, &d->queues[q], t);
			}
}

/* A commit of a request: how __ublk_complete_rq() sees its result. */
static void finish(struct fake_device *d, struct fake_queue *q, struct tag *tag, int result)
{
	struct fake_request *r = tag->request;
	uint32_t left = r->length - r->done;
	uint32_t block = 1u << d->params.basic.logical_bs_shift;

	tag->request = NULL;
	if (result == -EAGAIN)
		fake_violation("a request is committed with EAGAIN");
	if (result < 0) {
		if (result < -4095)
			fake_violation("a request is committed with %d, no errno", result);
		end_request(r, result);
		return;
	}
	if (!carries_data(r)) {
		end_request(r, 0);
		return;
	}
	if (!result) {
		fake_violation("nothing is committed of a %s: %s",
			       r->op == UBLK_OP_READ ? "read" : "write",
			       r->op == UBLK_OP_READ ? "an error, not a short result"
						     : "it would come back for ever");
		end_request(r, -EIO);
		return;
	}
	if ((uint32_t)result > left) {
		fake_violation("%d bytes are committed of a request of %u", result, left);
		result = (int)left;
	}
	if ((uint32_t)result % block)
		fake_violation("%d bytes are committed, not whole blocks", result);
	if (copies(d) && r->op == UBLK_OP_READ)
		memcpy(r->data + r->done, (const void *)(uintptr_t)tag->addr, (size_t)result);
	r->done += (uint32_t)result;
	if (r->done >= r->length) {
		end_request(r, 0);
		return;
	}
	requeues++;
	if (++r->sent > REQUEUE_MAX) {
		fake_violation("a request is sent again for ever");
		end_request(r, -EIO);
		return;
	}
	/* The rest comes first, on the same tag. */
	r->next = q->first;
	q->first = r;
	if (!r->next)
		q->last = &r->next;
}

struct fake_request *fake_request_start(unsigned id, unsigned queue, unsigned op, uint32_t flags,
					uint64_t offset, uint32_t length, void *data)
{
	struct fake_request *r = __real_calloc(1, sizeof(*r));
	struct fake_device *d;

	*r = (struct fake_request){
		.op = op,
		.flags = flags,
		.offset = offset,
		.length = length,
		.data = data,
	};
	pthread_mutex_lock(&fake_lock);
	d = fake_find_device(id);
	outstanding++;
	if (!d || !d->live || d->stopping || queue >= d->info.nr_hw_queues) {
		end_request(r, -EIO);
	} else {
		r->device = d;
		wait_in(&d->queues[queue], r);
		dispatch(d, &d->queues[queue]);
	}
	pthread_mutex_unlock(&fake_lock);
	return r;
}

bool fake_request_ended(const struct fake_request *r)
{
	bool ended;

	pthread_mutex_lock(&fake_lock);
	ended = !r->device;
	pthread_mutex_unlock(&fake_lock);
	return ended;
}

int fake_request_wait(struct fake_request *r)
{
	uint64_t end = clock_ms() + FAKE_PATIENCE * 1000;
	int result;

	pthread_mutex_lock(&fake_lock);
	while (r->device) {
		fake_wait(FAKE_POLL_MS);
		if (clock_ms() > end)
			fake_die("a request (op %u, %u bytes at %llu) has not ended in %u s", r->op,
				 r->length, (unsigned long long)r->offset, FAKE_PATIENCE);
	}
	result = r->result;
	pthread_mutex_unlock(&fake_lock);
	free(r);
	return result;
}

int fake_request(unsigned id, unsigned queue, unsigned op, uint32_t flags, uint64_t offset,
		 uint32_t length, void *data)
{
	return fake_request_wait(fake_request_start(id, queue, op, flags, offset, length, data));
}

void *fake_data(uint32_t length, uint8_t byte)
{
	void *data = __real_aligned_alloc(PAGE, (length + PAGE - 1) / PAGE * PAGE);

	memset(data, byte, length);
	return data;
}

void fake_data_free(void *data)
{
	free(data);
}

static atomic_bool hold_copies;
static atomic_uint copies_held;

void fake_hold_copies(bool on)
{
	atomic_store(&hold_copies, on);
}

unsigned fake_copies_held(void)
{
	return atomic_load(&copies_held);
}

ssize_t fake_user_copy(struct fake_device *d, void *memory, size_t length, uint64_t offset,
		       bool is_pread)
{
	uint64_t position = offset - UBLK_USER_COPY_BASE;
	unsigned queue = (unsigned)(position >> 41), index = position >> 25 & 0xffff;
	uint32_t at = position & (UBLK_IO_MAX - 1), left;
	struct fake_request *r;
	uint8_t *data = NULL;
	int code = EINVAL;

	pthread_mutex_lock(&fake_lock);
	if (has(d, UBLK_FEAT_USER_COPY) && offset >= UBLK_USER_COPY_BASE &&
	    queue < d->info.nr_hw_queues && index < d->info.queue_depth &&
	    d->queues[queue].tags[index].state == TAG_SERVING) {
		r = d->queues[queue].tags[index].request;
		left = r->length - r->done;
		if (!carries_data(r) || at > left) {
			fake_violation("user copy beyond a request, or of one without data");
		} else if (is_pread != (r->op == UBLK_OP_WRITE)) {
			fake_violation("user copy against a request's direction");
			code = EACCES;
		} else {
			data = r->data + r->done + at;
			length = length < left - at ? length : left - at;
		}
	} else {
		fake_violation("user copy of a tag (%u of queue %u) that is not in service", index,
			       queue);
	}
	pthread_mutex_unlock(&fake_lock);
	if (!data) {
		errno = code;
		return -1;
	}
	atomic_fetch_add(&copies_held, 1);
	while (atomic_load(&hold_copies))
		sleep_us(100);
	atomic_fetch_sub(&copies_held, 1);
	/* Without the lock, as the driver does: the request cannot end meanwhile. */
	if (is_pread)
		memcpy(memory, data, length);
	else
		memcpy(data, memory, length);
	return (ssize_t)length;
}

/* ---- the server comes and goes ---- */

struct fake_device *fake_open_char(unsigned id, int *code)
{
	struct fake_device *d = fake_find_device(id);

	if (!d) {
		*code = ENOENT;
		return NULL;
	}
	if (d->char_open) {
		*code = EBUSY;
		return NULL;
	}
	d->char_open = true;
	fake_hold_char(d);
	return d;
}

void fake_hold_char(struct fake_device *d)
{
	d->char_refs++;
}

static void fail_queue(struct fake_device *d, struct fake_queue *q)
{
	for (unsigned t = 0; t < d->info.queue_depth; t++) {
		struct tag *tag = &q->tags[t];

		if (tag->request)
			end_request(tag->request, -EIO);
		*tag = (struct tag){ 0 };
	}
	while (q->first) {
		struct fake_request *r = q->first;

		q->first = r->next;
		end_request(r, -EIO);
	}
	q->last = &q->first;
	q->owned = false;
}

static void free_device(struct fake_device *d)
{
	struct fake_device **link = &devices;

	while (*link != d)
		link = &(*link)->next;
	*link = d->next;
	for (unsigned q = 0; q < d->info.nr_hw_queues; q++) {
		fail_queue(d, &d->queues[q]);
		__real_munmap(d->queues[q].descs, d->desc_bytes);
		__real_close(d->queues[q].desc_fd);
		free(d->queues[q].tags);
	}
	free(d->queues);
	free(d);
}

void fake_drop_char(struct fake_device *d)
{
	if (!d->char_refs)
		fake_die("a reference to /dev/ublkc%u too many is dropped", d->info.dev_id);
	if (--d->char_refs)
		return;
	/* The last one: nobody serves any more. */
	for (unsigned q = 0; q < d->info.nr_hw_queues; q++)
		fail_queue(d, &d->queues[q]);
	d->char_open = d->live = d->aborted = false;
	d->info.state = UBLK_DEV_DEAD;
	d->info.server_pid = -1;
	if (d->deleted && d->ownerless)
		free_device(d);
	advance();
}

void *fake_map_char(struct fake_device *d, size_t length, int prot, off_t offset)
{
	uint64_t stride = UBLK_DESC_STRIDE(PAGE), queue = (uint64_t)offset / stride;
	void *mapped = MAP_FAILED;

	if (prot & PROT_WRITE) {
		errno = EPERM;
	} else if ((uint64_t)offset % stride || queue >= d->info.nr_hw_queues ||
		   length != d->desc_bytes) {
		errno = EINVAL;
	} else {
		mapped = __real_mmap(NULL, length, prot, MAP_SHARED, d->queues[queue].desc_fd, 0);
		if (mapped != MAP_FAILED)
			fake_hold_char(d);
	}
	return mapped;
}

void fake_forget_ring(struct fake_ring *ring)
{
	for (struct command *c = commands; c; c = c->next)
		if (c->ring == ring)
			c->ring = NULL;
	for (struct fake_device *d = devices; d; d = d->next)
		for (unsigned q = 0; q < d->info.nr_hw_queues; q++)
			for (unsigned t = 0; t < d->info.queue_depth; t++) {
				struct tag *tag = &d->queues[q].tags[t];

				if (tag->ring != ring)
					continue;
				tag->ring = NULL;
				if (tag->state == TAG_DISPATCHED) {
					end_request(tag->request, -EIO);
					tag->request = NULL;
				}
				if (tag->state != TAG_SERVING)
					tag->state = TAG_IDLE;
			}
	advance();
}

/* ---- commands of /dev/ublkcN ---- */

static bool thread_is_admin(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return !syscall(SYS_capget, &header, data) && data[0].effective >> CAP_SYS_ADMIN & 1;
}

static int check_address(const struct fake_device *d, const struct ublk_io_cmd *cmd,
			 const struct io_uring_sqe *sqe)
{
	struct ublk_auto_buf buf;

	if (copies(d))
		return cmd->addr ? 0 : -EINVAL;
	if (cmd->addr)
		return -EINVAL;
	if (!has(d, UBLK_FEAT_AUTO_BUF_REG))
		return 0;
	memcpy(&buf, &sqe->addr, sizeof(buf));
	return buf.reserved0 || buf.reserved1 || buf.flags & ~UBLK_AUTO_BUF_FALLBACK ? -EINVAL : 0;
}

static void take_command(struct fake_ring *ring, struct tag *tag, const struct ublk_io_cmd *cmd,
			 const struct io_uring_sqe *sqe)
{
	tag->state = TAG_FETCHED;
	tag->ring = ring;
	tag->user_data = sqe->user_data;
	tag->addr = cmd->addr;
	tag->auto_buf = sqe->addr;
}

static int fetch(struct fake_ring *ring, struct fake_device *d, const struct ublk_io_cmd *cmd,
		 const struct io_uring_sqe *sqe)
{
	struct fake_queue *q = &d->queues[cmd->q_id];
	struct tag *tag = &q->tags[cmd->tag];
	int code;

	if (fake_point("FETCH", EINVAL, &code))
		return -code;
	if (d->deleted || d->stopping || d->aborted)
		return UBLK_RES_ABORT;
	if (d->live)
		return -EBUSY;
	if (tag->state != TAG_IDLE) {
		fake_violation("tag %u of queue %u is fetched twice", cmd->tag, cmd->q_id);
		return -EINVAL;
	}
	if (q->owned && !pthread_equal(q->owner, pthread_self())) {
		fake_violation("queue %u is fetched by two threads", cmd->q_id);
		return -EINVAL;
	}
	code = check_address(d, cmd, sqe);
	if (code)
		return code;
	q->owned = true;
	q->owner = pthread_self();
	if (!thread_is_admin())
		d->unprivileged = true;
	take_command(ring, tag, cmd, sqe);
	advance();
	return PENDING;
}

static int commit(struct fake_ring *ring, struct fake_device *d, const struct ublk_io_cmd *cmd,
		  const struct io_uring_sqe *sqe)
{
	struct fake_queue *q = &d->queues[cmd->q_id];
	struct tag *tag = &q->tags[cmd->tag];
	int code;

	if (fake_point("COMMIT", EINVAL, &code))
		return -code;
	if (!pthread_equal(q->owner, pthread_self())) {
		fake_violation("queue %u is committed by another thread", cmd->q_id);
		return -EINVAL;
	}
	if (tag->state != TAG_SERVING) {
		fake_violation("tag %u of queue %u is committed and not in service", cmd->tag,
			       cmd->q_id);
		return -EBUSY;
	}
	code = check_address(d, cmd, sqe);
	if (code) {
		fake_violation("a commit's address is against the rules of its path");
		return code;
	}
	if (tag->registered) {
		struct ublk_auto_buf buf;

		memcpy(&buf, &tag->auto_buf, sizeof(buf));
		fake_ring_unregister(tag->ring, buf.index);
		tag->registered = false;
	}
	/* The commit's own address is where a read's data is. */
	tag->addr = cmd->addr;
	finish(d, q, tag, cmd->result);
	take_command(ring, tag, cmd, sqe);
	dispatch(d, q);
	advance();
	return PENDING;
}

void fake_io_command(struct fake_ring *ring, struct fake_device *d, const struct io_uring_sqe *sqe)
{
	struct ublk_io_cmd cmd;
	int ret = -EINVAL;

	memcpy(&cmd, sqe->cmd, sizeof(cmd));
	if (cmd.q_id >= d->info.nr_hw_queues || cmd.tag >= d->info.queue_depth)
		fake_violation("there is no tag %u of queue %u", cmd.tag, cmd.q_id);
	else if (sqe->cmd_op == UBLK_IO_FETCH)
		ret = fetch(ring, d, &cmd, sqe);
	else if (sqe->cmd_op == UBLK_IO_COMMIT_AND_FETCH)
		ret = commit(ring, d, &cmd, sqe);
	else
		ret = -EOPNOTSUPP;
	if (ret != PENDING)
		fake_ring_complete(ring, sqe->user_data, ret);
}

/* ---- commands of /dev/ublk-control ---- */

static void *buffer_of(const struct ublk_ctrl_cmd *p)
{
	return (void *)(uintptr_t)p->addr;
}

static int add_queues(struct fake_device *d)
{
	size_t bytes = d->info.queue_depth * sizeof(struct ublk_io_desc);

	d->desc_bytes = (bytes + PAGE - 1) / PAGE * PAGE;
	d->queues = __real_calloc(d->info.nr_hw_queues, sizeof(*d->queues));
	for (unsigned i = 0; i < d->info.nr_hw_queues; i++) {
		struct fake_queue *q = &d->queues[i];

		q->tags = __real_calloc(d->info.queue_depth, sizeof(*q->tags));
		q->last = &q->first;
		q->desc_fd = __real_memfd_create("fake-descriptors", MFD_CLOEXEC);
		if (q->desc_fd < 0 || __real_ftruncate(q->desc_fd, (off_t)d->desc_bytes))
			fake_die("no memory for descriptors");
		q->descs = __real_mmap(NULL, d->desc_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				       q->desc_fd, 0);
		if (q->descs == MAP_FAILED)
			fake_die("no memory for descriptors");
	}
	return 0;
}

static int add(const struct ublk_ctrl_cmd *p)
{
	struct ublk_dev_info info;
	struct fake_device *d;
	unsigned n = 0, id = 0;

	if (!p->addr || p->len < sizeof(info) || p->queue_id != UBLK_QUEUE_NONE)
		return -EINVAL;
	memcpy(&info, buffer_of(p), sizeof(info));
	if (info.dev_id != p->dev_id)
		return -EINVAL;
	if (!info.queue_depth || info.queue_depth > UBLK_DEPTH_MAX || !info.nr_hw_queues ||
	    info.nr_hw_queues > UBLK_QUEUES_MAX)
		return -EINVAL;
	for (d = devices; d; d = d->next) {
		n++;
		if (d->info.dev_id == info.dev_id)
			return -EEXIST;
	}
	if (n >= fake_now.devices)
		return -EACCES;
	info.flags &= fake_now.features & ~fake_now.withheld;
	info.flags |= ALWAYS_ON & fake_now.features;
	if (info.flags & UBLK_FEAT_QUIESCE && !(info.flags & UBLK_FEAT_RECOVERY))
		return -EINVAL;
	while (info.dev_id == UBLK_ID_AUTO && fake_find_device(id))
		id++;
	if (info.dev_id == UBLK_ID_AUTO)
		info.dev_id = id;
	if (info.nr_hw_queues > fake_now.cpus)
		info.nr_hw_queues = (uint16_t)fake_now.cpus;
	info.max_io_buf_bytes -= info.max_io_buf_bytes % PAGE;
	info.state = UBLK_DEV_DEAD;
	info.server_pid = -1;
	d = __real_calloc(1, sizeof(*d));
	d->info = info;
	add_queues(d);
	d->next = devices;
	devices = d;
	memcpy(buffer_of(p), &info, sizeof(info));
	return 0;
}

/* Without a server every fetched tag is told to stop. */
static void abort_tags(struct fake_device *d)
{
	d->aborted = true;
	for (unsigned q = 0; q < d->info.nr_hw_queues; q++)
		for (unsigned t = 0; t < d->info.queue_depth; t++) {
			struct tag *tag = &d->queues[q].tags[t];

			if (tag->state != TAG_FETCHED)
				continue;
			tag->state = TAG_IDLE;
			fake_ring_complete(tag->ring, tag->user_data, UBLK_RES_ABORT);
		}
}

static bool idle(const struct fake_device *d)
{
	for (unsigned q = 0; q < d->info.nr_hw_queues; q++) {
		if (d->queues[q].first)
			return false;
		for (unsigned t = 0; t < d->info.queue_depth; t++)
			if (d->queues[q].tags[t].request)
				return false;
	}
	return true;
}

/* del_gendisk() waits for what is in service; then the tags are aborted. */
static int stop_device(struct fake_device *d)
{
	d->stopping = true;
	if (d->live && !idle(d))
		return PENDING;
	d->live = d->stopping = false;
	d->info.state = UBLK_DEV_DEAD;
	abort_tags(d);
	return 0;
}

static int remove_device(struct command *c, struct fake_device *d, bool waits)
{
	if (!c->claimed) {
		if (stop_device(d) == PENDING)
			return PENDING;
		d->deleted = true;
		d->ownerless = !waits;
		c->claimed = true;
	}
	if (!d->char_refs) {
		free_device(d);
		return 0;
	}
	return waits ? PENDING : 0;
}

static int start_device(struct fake_device *d, const struct ublk_ctrl_cmd *p)
{
	if (d->live)
		return -EEXIST;
	if (p->data != (uint64_t)getpid() || !(d->params.types & UBLK_PARAMS_BASIC))
		return -EINVAL;
	if (d->stopping || d->aborted)
		return -EINTR;
	for (unsigned q = 0; q < d->info.nr_hw_queues; q++)
		for (unsigned t = 0; t < d->info.queue_depth; t++)
			if (d->queues[q].tags[t].state != TAG_FETCHED)
				return PENDING;
	d->live = true;
	d->info.state = UBLK_DEV_LIVE;
	d->info.server_pid = (int32_t)p->data;
	d->scans = !d->unprivileged && !has(d, UBLK_FEAT_NO_PART_SCAN);
	return 0;
}

/* ublk_validate_params() */
static bool takes(const struct fake_device *d, const struct ublk_dev_params *p)
{
	const struct ublk_basic_params *b = &p->basic;

	if (!(p->types & UBLK_PARAMS_BASIC) || b->logical_bs_shift < 9 ||
	    b->logical_bs_shift > 12 || b->physical_bs_shift < b->logical_bs_shift)
		return false;
	if (b->max_sectors > d->info.max_io_buf_bytes >> UBLK_SECTOR_SHIFT || b->max_sectors < 8)
		return false;
	if (b->attrs & UBLK_DEVATTR_FUA && !(b->attrs & UBLK_DEVATTR_VOLATILE_CACHE))
		return false;
	if (p->types & UBLK_PARAMS_DISCARD &&
	    (p->discard.max_discard_segments != 1 || !p->discard.granularity))
		return false;
	if (p->types & UBLK_PARAMS_DMA &&
	    (p->dma.alignment >= PAGE || p->dma.alignment & (p->dma.alignment + 1)))
		return false;
	return !(p->types & UBLK_PARAMS_SEGMENT) ||
	       (p->seg.max_segment_size >= PAGE && p->seg.seg_boundary_mask + 1 >= PAGE);
}

static int set_params(struct fake_device *d, const struct ublk_ctrl_cmd *p)
{
	struct ublk_dev_params params = { 0 };

	if (!p->addr || p->len < 8)
		return -EINVAL;
	memcpy(&params, buffer_of(p), p->len < sizeof(params) ? p->len : sizeof(params));
	if (params.len > p->len || !params.types)
		return -EINVAL;
	if (d->live)
		return -EACCES;
	params.types &= fake_now.params;
	if (!takes(d, &params))
		return -EINVAL;
	d->params = params;
	return 0;
}

static int get_params(const struct fake_device *d, const struct ublk_ctrl_cmd *p)
{
	struct ublk_dev_params params = d->params;
	uint32_t len;

	if (!p->addr || p->len < 8)
		return -EINVAL;
	memcpy(&len, buffer_of(p), sizeof(len));
	if (!len || len > p->len)
		return -EINVAL;
	params.len = len;
	params.types |= UBLK_PARAMS_DEVT;
	params.devt = (struct ublk_devt_params){ 240, d->info.dev_id, 259, d->info.dev_id };
	memcpy(buffer_of(p), &params, len < sizeof(params) ? len : sizeof(params));
	return 0;
}

static int get_affinity(const struct fake_device *d, const struct ublk_ctrl_cmd *p)
{
	uint8_t *mask = buffer_of(p);

	if (!p->addr || p->len % 8 || p->len * 8u < fake_now.cpus ||
	    p->data >= d->info.nr_hw_queues)
		return -EINVAL;
	memset(mask, 0, p->len);
	mask[p->data / 8] |= (uint8_t)(1u << p->data % 8);
	return 0;
}

static int get_info(const struct fake_device *d, const struct ublk_ctrl_cmd *p)
{
	if (!p->addr || p->len < sizeof(d->info))
		return -EINVAL;
	memcpy(buffer_of(p), &d->info, sizeof(d->info));
	return 0;
}

static int get_features(const struct ublk_ctrl_cmd *p)
{
	if (!fake_now.tells_features)
		return fake_find_device(p->dev_id) ? -EOPNOTSUPP : -ENODEV;
	if (!p->addr || p->len != sizeof(fake_now.features))
		return -EINVAL;
	memcpy(buffer_of(p), &fake_now.features, sizeof(fake_now.features));
	return 0;
}

static struct fake_device *device_by_id(uint32_t id, bool deleted_too)
{
	for (struct fake_device *d = devices; d; d = d->next)
		if (d->info.dev_id == id && (deleted_too || !d->deleted))
			return d;
	return NULL;
}

static int run(struct command *c)
{
	const struct ublk_ctrl_cmd *p = &c->payload;
	struct fake_device *d;

	switch (c->op) {
	case UBLK_CTRL_GET_FEATURES:
		return get_features(p);
	case UBLK_CTRL_ADD_DEV:
		return add(p);
	}
	d = device_by_id(p->dev_id, c->claimed);
	if (!d)
		return -ENODEV;
	switch (c->op) {
	case UBLK_CTRL_DEL_DEV:
		return remove_device(c, d, true);
	case UBLK_CTRL_DEL_DEV_ASYNC:
		return fake_now.features & 0x100 ? remove_device(c, d, false) : -EOPNOTSUPP;
	case UBLK_CTRL_START_DEV:
		return start_device(d, p);
	case UBLK_CTRL_STOP_DEV:
		return stop_device(d);
	case UBLK_CTRL_SET_PARAMS:
		return set_params(d, p);
	case UBLK_CTRL_GET_PARAMS:
		return get_params(d, p);
	case UBLK_CTRL_GET_DEV_INFO:
		return get_info(d, p);
	case UBLK_CTRL_GET_QUEUE_AFFINITY:
		return get_affinity(d, p);
	case UBLK_CTRL_START_USER_RECOVERY:
	case UBLK_CTRL_END_USER_RECOVERY:
		return has(d, UBLK_FEAT_RECOVERY) ? -EBUSY : -EINVAL;
	case UBLK_CTRL_UPDATE_SIZE:
		if (!(fake_now.features & UBLK_FEAT_UPDATE_SIZE))
			return -EOPNOTSUPP;
		if (!d->live) {
			fake_violation("UPDATE_SIZE of a stopped device: 6.16 and 6.17 crash");
			return -ENODEV;
		}
		d->params.basic.dev_sectors = p->data;
		return 0;
	case UBLK_CTRL_QUIESCE_DEV:
		return fake_now.features & UBLK_FEAT_QUIESCE ? -EINVAL : -EOPNOTSUPP;
	case UBLK_CTRL_TRY_STOP_DEV:
		return fake_now.features & UBLK_FEAT_SAFE_STOP ? stop_device(d) : -EOPNOTSUPP;
	}
	return -EOPNOTSUPP;
}

static void end_command(struct command **link, int result)
{
	struct command *c = *link;

	*link = c->next;
	if (c->ring)
		fake_ring_complete(c->ring, c->user_data, result);
	free(c);
	pthread_cond_broadcast(&fake_changed);
}

/* Something has changed: what waits may be through now. */
static void advance(void)
{
	static bool within;
	bool again = true;

	if (within)
		return;
	within = true;
	while (again) {
		again = false;
		for (struct command **link = &commands; *link;) {
			int ret = (*link)->op == hung_op ? PENDING : run(*link);

			if (ret == PENDING) {
				link = &(*link)->next;
				continue;
			}
			end_command(link, ret);
			again = true;
		}
	}
	within = false;
	pthread_cond_broadcast(&fake_changed);
}

static const struct {
	uint32_t op;
	const char *name;
	int usual; /* errno */
} command_names[] = {
	{ UBLK_CTRL_GET_QUEUE_AFFINITY, "GET_QUEUE_AFFINITY", ENOMEM },
	{ UBLK_CTRL_GET_DEV_INFO, "GET_DEV_INFO", EFAULT },
	{ UBLK_CTRL_ADD_DEV, "ADD_DEV", ENOMEM },
	{ UBLK_CTRL_DEL_DEV, "DEL_DEV", EINTR },
	{ UBLK_CTRL_START_DEV, "START_DEV", EINTR },
	{ UBLK_CTRL_STOP_DEV, "STOP_DEV", EINTR },
	{ UBLK_CTRL_SET_PARAMS, "SET_PARAMS", EINVAL },
	{ UBLK_CTRL_GET_PARAMS, "GET_PARAMS", EFAULT },
	{ UBLK_CTRL_GET_FEATURES, "GET_FEATURES", EPERM },
	{ UBLK_CTRL_DEL_DEV_ASYNC, "DEL_DEV_ASYNC", EINTR },
	{ 0, "command", EPERM },
};

void fake_control_command(struct fake_ring *ring, const struct io_uring_sqe *sqe)
{
	struct command **link = &commands, *c;
	unsigned i = 0;
	int code;

	last_op = sqe->cmd_op;
	memcpy(&last_payload, sqe->cmd, sizeof(last_payload));
	while (command_names[i].op && command_names[i].op != sqe->cmd_op)
		i++;
	if (!(fake_ring_flags(ring) & IORING_SETUP_SQE128) || sqe->off >> 32) {
		fake_violation("a control command in an SQE that the driver refuses");
		fake_ring_complete(ring, sqe->user_data, -EINVAL);
		return;
	}
	if (fake_point(command_names[i].name, command_names[i].usual, &code)) {
		fake_ring_complete(ring, sqe->user_data, -code);
		return;
	}
	if (refused_op == sqe->cmd_op) {
		refused_op = 0;
		fake_ring_complete(ring, sqe->user_data, -refusal);
		return;
	}
	c = __real_calloc(1, sizeof(*c));
	c->ring = ring;
	c->user_data = sqe->user_data;
	c->op = sqe->cmd_op;
	memcpy(&c->payload, sqe->cmd, sizeof(c->payload));
	while (*link)
		link = &(*link)->next;
	*link = c;
	advance();
}

int fake_cancel_command(struct fake_ring *ring, uint64_t user_data)
{
	for (struct command **link = &commands; *link; link = &(*link)->next) {
		if ((*link)->ring != ring || (*link)->user_data != user_data)
			continue;
		if ((*link)->op == hung_op && !hung_cancels)
			return -EALREADY;
		end_command(link, -EINTR);
		return 0;
	}
	return -ENOENT;
}

bool fake_ring_has_commands(const struct fake_ring *ring, bool hung_too)
{
	for (const struct command *c = commands; c; c = c->next)
		if (c->ring == ring && (hung_too || c->op != hung_op))
			return true;
	return false;
}

uint32_t fake_last_command(struct ublk_ctrl_cmd *payload)
{
	uint32_t op;

	pthread_mutex_lock(&fake_lock);
	op = last_op;
	*payload = last_payload;
	pthread_mutex_unlock(&fake_lock);
	return op;
}

void fake_hang(uint32_t op, bool cancel)
{
	pthread_mutex_lock(&fake_lock);
	hung_op = op;
	hung_cancels = cancel;
	advance();
	pthread_mutex_unlock(&fake_lock);
}

void fake_refuse(uint32_t op, int code)
{
	pthread_mutex_lock(&fake_lock);
	refused_op = op;
	refusal = code;
	pthread_mutex_unlock(&fake_lock);
}

void fake_quiesce(unsigned id)
{
	pthread_mutex_lock(&fake_lock);
	fake_find_device(id)->info.state = UBLK_DEV_QUIESCED;
	pthread_mutex_unlock(&fake_lock);
}

void fake_other_stops(unsigned id, bool delete_too)
{
	static const uint32_t ops[] = { UBLK_CTRL_STOP_DEV, UBLK_CTRL_DEL_DEV };

	pthread_mutex_lock(&fake_lock);
	for (unsigned i = 0; i < (delete_too ? 2 : 1); i++) {
		struct command **link = &commands, *c = __real_calloc(1, sizeof(*c));

		c->op = ops[i];
		c->payload.dev_id = id;
		while (*link)
			link = &(*link)->next;
		*link = c;
	}
	advance();
	pthread_mutex_unlock(&fake_lock);
}
