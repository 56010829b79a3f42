/* SPDX-License-Identifier: MIT */
/*
 * The NBD protocol's transmission phase with simple replies (NBD protocol, "Simple reply message").
 *
 * Sending: commands of a round are queued, and go out as one SENDMSG, headers from an array,
 * payloads from where they are. The next one is built when that has ended: a socket that takes
 * nothing holds up sending alone.
 *
 * Receiving: a RECV is always under way, into the stage, and what has come is parsed: a small
 * read's data is copied to its place. Of a large one that has not come whole, the rest is received
 * straight into its place; while large reads are in flight, the stage takes little at a time.
 *
 * A cookie is an entry's index and how often the entry was used: a reply that is late, comes twice
 * or is made up finds no command in flight, and the connection is given up.
 *
 * The kernel holds buffers of requests while an operation is under way. Before a request may be
 * sent on another connection, both operations have to be over (nbd_wire_close()): a SENDMSG would
 * else send what the buffer holds for its next request, a RECV overwrite it.
 *
 * Read nbd_wire_round(), send_queued(), received() and parse().
 */
#include "backends/nbd/wire.h"
#include "backends/nbd/nbd.h"
#include "common/container_of.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define STAGE_BYTES  (256u << 10)
#define DIRECT_BYTES (16u << 10) /* a rest that is received into its place */
#define SEND_BYTES   (1u << 20)  /* of a SENDMSG; a larger write goes alone */
#define SEND_PIECES  1000u       /* below UIO_MAXIOV */

#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC   0x67446698u

struct wire_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_request) == 28, "NBD protocol, \"Request message\"");

struct wire_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_reply) == 16, "NBD protocol, \"Simple reply message\"");

struct wire_entry {
	struct nbd_command command;
	uint64_t uses;
	bool in_flight;
	bool is_sent; /* given to the kernel: only then there can be a reply */
};

struct nbd_wire {
	struct nbd_connection *conn;
	void (*changed)(struct nbd_connection *conn);
	int fd;
	bool is_open;
	char fault[80];

	unsigned nr;
	struct wire_entry *entries;
	uint16_t *idle; /* indices of entries that are not in flight */
	unsigned nr_idle;
	unsigned nr_large; /* reads in flight whose rest may be received into its place */
	bool last_large;   /* the last read was such a one */

	uint16_t *queued; /* indices, in order */
	unsigned nr_queued;
	bool sending;
	size_t send_bytes;
	struct wire_request *headers;
	struct iovec *pieces;
	struct msghdr message;
	struct ring_op send_op;

	bool receiving;
	struct ring_op receive_op;
	char *stage;
	size_t have;             /* bytes in the stage, from its start */
	size_t lacks;            /* bytes that the message at its start still lacks */
	struct wire_entry *rest; /* whose data is received into its place; NULL: none */
	char *rest_at;
	size_t rest_bytes;
};

bool nbd_wire_fits(const struct nbd_facts *facts)
{
	return !facts->tls && !facts->structured;
}

/* ---- the end of a command, and of the connection ---- */

static void break_wire(struct nbd_wire *w, const char *reason, int code)
{
	if (code)
		snprintf(w->fault, sizeof(w->fault), "%s: %s", reason, strerror(code));
	else
		snprintf(w->fault, sizeof(w->fault), "%s", reason);
	w->conn->fault = w->fault;
}

static bool is_broken(const struct nbd_wire *w)
{
	return w->conn->fault;
}

static bool is_large(const struct nbd_command *c)
{
	return c->type == NBD_COMMAND_READ && c->length >= DIRECT_BYTES;
}

static void finish(struct nbd_wire *w, struct wire_entry *e, int error)
{
	w->nr_large -= is_large(&e->command);
	e->in_flight = false;
	w->idle[w->nr_idle++] = (uint16_t)(e - w->entries);
	e->command.done(e->command.context, &error);
}

/* NBD protocol, "Error values": what is not known is EINVAL. */
static int errno_of(uint32_t error)
{
	switch (error) {
	case 0:
		return 0;
	case 1:
		return EPERM;
	case 5:
		return EIO;
	case 12:
		return ENOMEM;
	case 28:
		return ENOSPC;
	case 75:
		return EOVERFLOW;
	case 95:
		return ENOTSUP;
	case 108:
		return ESHUTDOWN;
	default:
		return EINVAL;
	}
}

/* ---- sending ---- */

void nbd_wire_send(struct nbd_wire *w, const struct nbd_command *command)
{
	unsigned index = w->idle[--w->nr_idle];
	struct wire_entry *e = &w->entries[index];

	e->command = *command;
	e->uses++;
	e->in_flight = true;
	e->is_sent = false;
	w->nr_large += is_large(command);
	if (command->type == NBD_COMMAND_READ)
		w->last_large = is_large(command);
	w->queued[w->nr_queued++] = (uint16_t)index;
}

static void put_header(struct nbd_wire *w, struct wire_request *h, unsigned index)
{
	struct wire_entry *e = &w->entries[index];
	const struct nbd_command *c = &e->command;

	*h = (struct wire_request){
		.magic = htobe32(REQUEST_MAGIC),
		.flags = htobe16(c->flags),
		.type = htobe16((uint16_t)c->type),
		.cookie = htobe64(e->uses << 16 | index),
		.offset = htobe64(c->offset),
		.length = htobe32(c->length),
	};
	e->is_sent = true;
	*c->sent_ns = queue_now_ns(w->conn->owner->queue);
}

/* A piece that begins where the last one ends makes it longer. */
static void add_piece(struct nbd_wire *w, void *data, size_t length)
{
	struct msghdr *m = &w->message;
	struct iovec *last = m->msg_iovlen ? &w->pieces[m->msg_iovlen - 1] : NULL;

	w->send_bytes += length;
	if (last && (char *)last->iov_base + last->iov_len == data)
		last->iov_len += length;
	else
		w->pieces[m->msg_iovlen++] = (struct iovec){ data, length };
}

static void send_queued(struct nbd_wire *w)
{
	unsigned n = 0;

	w->message = (struct msghdr){ .msg_iov = w->pieces };
	w->send_bytes = 0;
	while (n < w->nr_queued) {
		const struct nbd_command *c = &w->entries[w->queued[n]].command;
		size_t payload = c->type == NBD_COMMAND_WRITE ? c->length : 0;

		if (n && (w->send_bytes + payload > SEND_BYTES ||
			  w->message.msg_iovlen + 2 > SEND_PIECES))
			break;
		put_header(w, &w->headers[n], w->queued[n]);
		add_piece(w, &w->headers[n], sizeof(w->headers[n]));
		if (payload)
			add_piece(w, c->data, payload);
		n++;
	}
	w->nr_queued -= n;
	memmove(w->queued, w->queued + n, w->nr_queued * sizeof(*w->queued));
	w->sending = true;
	queue_send(w->conn->owner->queue, &w->send_op, w->fd, &w->message);
}

static void sent(struct ring_op *op, int result)
{
	struct nbd_wire *w = container_of(op, struct nbd_wire, send_op);

	w->sending = false;
	if (!w->is_open)
		return;
	if (result < 0)
		break_wire(w, "sending", -result);
	else if ((size_t)result != w->send_bytes)
		break_wire(w, "sending was cut off", 0);
	w->changed(w->conn);
}

/* ---- receiving ---- */

static struct wire_entry *entry_of(struct nbd_wire *w, uint64_t cookie)
{
	struct wire_entry *e = &w->entries[cookie & UINT16_MAX];

	if ((cookie & UINT16_MAX) >= w->nr || !e->in_flight || !e->is_sent ||
	    e->uses != cookie >> 16)
		return NULL;
	return e;
}

/* A read's data of which `have` bytes are at from: ends it, or receives the rest into its place. */
static size_t take_data(struct nbd_wire *w, struct wire_entry *e, const char *from, size_t have)
{
	size_t length = e->command.length, lacks = have < length ? length - have : 0;

	/* A message that the stage has no room for cannot be waited for there. */
	if (lacks && lacks < DIRECT_BYTES && sizeof(struct wire_reply) + length <= STAGE_BYTES) {
		w->lacks = lacks;
		return SIZE_MAX;
	}
	if (!lacks)
		have = length;
	memcpy(e->command.data, from, have);
	if (lacks) {
		w->rest = e;
		w->rest_at = (char *)e->command.data + have;
		w->rest_bytes = lacks;
	} else {
		finish(w, e, 0);
	}
	return have;
}

/* One message at the start of data; returns its bytes, or 0: it has not come whole. */
static size_t take_message(struct nbd_wire *w, const char *data, size_t have)
{
	struct wire_entry *e;
	struct wire_reply reply;
	size_t taken;
	int error;

	if (have < sizeof(reply)) {
		w->lacks = sizeof(reply) - have;
		return 0;
	}
	memcpy(&reply, data, sizeof(reply));
	e = be32toh(reply.magic) == REPLY_MAGIC ? entry_of(w, be64toh(reply.cookie)) : NULL;
	if (!e) {
		break_wire(w, "the server breaks the protocol", 0);
		return 0;
	}
	error = errno_of(be32toh(reply.error));
	if (error || e->command.type != NBD_COMMAND_READ) {
		finish(w, e, error);
		return sizeof(reply);
	}
	taken = take_data(w, e, data + sizeof(reply), have - sizeof(reply));
	return taken == SIZE_MAX ? 0 : sizeof(reply) + taken;
}

static void parse(struct nbd_wire *w)
{
	size_t at = 0, n;

	w->lacks = 0;
	while (at < w->have && !w->rest && !is_broken(w) &&
	       (n = take_message(w, w->stage + at, w->have - at)))
		at += n;
	w->have -= at;
	if (at)
		memmove(w->stage, w->stage + at, w->have);
}

static void take_rest(struct nbd_wire *w, size_t bytes)
{
	struct wire_entry *e = w->rest;

	w->rest_at += bytes;
	w->rest_bytes -= bytes;
	if (w->rest_bytes)
		return;
	w->rest = NULL;
	finish(w, e, 0);
}

static void received(struct ring_op *op, int result)
{
	struct nbd_wire *w = container_of(op, struct nbd_wire, receive_op);

	w->receiving = false;
	if (!w->is_open)
		return;
	if (!result) {
		break_wire(w, "the server closed the connection", 0);
	} else if (result < 0) {
		break_wire(w, "receiving", -result);
	} else if (w->rest) {
		take_rest(w, (size_t)result);
	} else {
		w->have += (size_t)result;
		parse(w);
	}
	w->changed(w->conn);
}

/*
 * Before large reads the stage takes little: what it takes is copied. A RECV is under way before
 * the read is sent that it is for, so the one before counts.
 */
static size_t stage_wants(const struct nbd_wire *w)
{
	size_t room = STAGE_BYTES - w->have, wants;

	if (!w->nr_large && !w->last_large)
		return room;
	wants = (w->nr - w->nr_idle) * sizeof(struct wire_reply);
	if (wants < sizeof(struct wire_reply))
		wants = sizeof(struct wire_reply);
	if (wants < w->lacks)
		wants = w->lacks;
	return wants < room ? wants : room;
}

static void receive(struct nbd_wire *w)
{
	w->receiving = true;
	if (w->rest)
		queue_receive(w->conn->owner->queue, &w->receive_op, w->fd, w->rest_at,
			      w->rest_bytes, true);
	else
		queue_receive(w->conn->owner->queue, &w->receive_op, w->fd, w->stage + w->have,
			      stage_wants(w), false);
}

void nbd_wire_round(struct nbd_wire *w)
{
	if (w->nr_queued && !w->sending)
		send_queued(w);
	if (!w->receiving)
		receive(w);
}

/* ---- its life ---- */

struct nbd_wire *nbd_wire_create(struct nbd_connection *conn, unsigned nr,
				 void (*changed)(struct nbd_connection *conn))
{
	unsigned pieces = 2 * nr < SEND_PIECES ? 2 * nr : SEND_PIECES;
	struct nbd_wire *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->conn = conn;
	w->changed = changed;
	w->nr = nr;
	w->send_op.done = sent;
	w->receive_op.done = received;
	w->entries = calloc(nr, sizeof(*w->entries));
	w->idle = calloc(nr, sizeof(*w->idle));
	w->queued = calloc(nr, sizeof(*w->queued));
	w->headers = calloc(nr, sizeof(*w->headers));
	w->pieces = calloc(pieces, sizeof(*w->pieces));
	w->stage =
		mmap(NULL, STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->entries && w->idle && w->queued && w->headers && w->pieces && w->stage != MAP_FAILED)
		return w;
	nbd_wire_destroy(w);
	return NULL;
}

void nbd_wire_destroy(struct nbd_wire *w)
{
	if (!w)
		return;
	nbd_wire_close(w);
	if (w->stage != MAP_FAILED)
		munmap(w->stage, STAGE_BYTES);
	free(w->pieces);
	free(w->headers);
	free(w->queued);
	free(w->idle);
	free(w->entries);
	free(w);
}

bool nbd_wire_open(struct nbd_wire *w, int fd)
{
	if (w->sending || w->receiving)
		return false;
	w->fd = fd;
	w->is_open = true;
	w->nr_queued = w->nr_large = w->nr_idle = 0;
	w->have = w->lacks = 0;
	w->rest = NULL;
	/* uses goes on: a reply to a command of the former socket finds none. */
	for (unsigned i = 0; i < w->nr; i++) {
		w->entries[i].in_flight = false;
		w->idle[w->nr_idle++] = (uint16_t)i;
	}
	return true;
}

bool nbd_wire_is_open(const struct nbd_wire *w)
{
	return w && w->is_open;
}

void nbd_wire_close(struct nbd_wire *w)
{
	if (!w || !w->is_open)
		return;
	w->is_open = false;
	if (w->sending)
		queue_cancel_now(w->conn->owner->queue, &w->send_op);
	if (w->receiving)
		queue_cancel_now(w->conn->owner->queue, &w->receive_op);
}
