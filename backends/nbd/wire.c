/* SPDX-License-Identifier: MIT */
/*
 * The requests of the NBD protocol's transmission phase, and its bytes on the queue's ring; what
 * comes back is for reply.c.
 *
 * Sending: commands of a round are queued, and go out as one SENDMSG, headers from an array,
 * payloads from where they are. The next one is built when that has ended: a socket that takes
 * nothing holds up sending alone.
 *
 * With TLS by the kernel (tls.h) all is the same but for two things: a SENDMSG may end with a part
 * of its bytes sent, and the rest goes next; and a record that is no data ends the connection.
 *
 * Receiving: a RECV is always under way, to the place that reply.c names.
 *
 * The kernel holds buffers of requests and places of the journal while an operation is under way.
 * Before a request may be sent on another connection, or end without an answer, both operations
 * have to be over (nbd_wire_close()): a SENDMSG would else send what the place holds for its next
 * request, a RECV overwrite it. An answered write's data was sent, although the SENDMSG may still be
 * under way with what came behind it. A server that answers before it has the data gets what is
 * there by then.
 *
 * Read nbd_wire_round(), send_queued() and received().
 */
#include "backends/nbd/wire.h"
#include "backends/nbd/nbd.h"
#include "backends/nbd/reply.h"
#include "backends/nbd/tls.h"
#include "common/container_of.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SEND_BYTES  (1u << 20) /* of a SENDMSG; a larger write goes alone */
#define SEND_PIECES 1000u      /* below UIO_MAXIOV */

#define REQUEST_MAGIC 0x25609513u

struct wire_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_request) == 28, "NBD protocol, \"Request message\"");

struct nbd_wire {
	struct nbd_connection *conn;
	void (*changed)(struct nbd_connection *conn);
	int fd;
	bool tls;
	char fault[80];

	struct nbd_commands commands;
	uint16_t *queued; /* indices, in order */
	unsigned nr_queued;
	bool sending;
	size_t send_bytes; /* of the message that are not sent yet */
	struct wire_request *headers;
	struct iovec *pieces;
	struct msghdr message;
	struct ring_op send_op;

	struct nbd_replies *replies;
	bool receiving;
	struct ring_op receive_op;
};

bool nbd_wire_fits(const struct nbd_connection *conn)
{
	return !conn->facts.tls || conn->kernel_tls;
}

static void break_wire(struct nbd_wire *w, const char *reason, int code)
{
	if (code)
		snprintf(w->fault, sizeof(w->fault), "%s: %s", reason, strerror(code));
	else
		snprintf(w->fault, sizeof(w->fault), "%s", reason);
	w->conn->fault = w->fault;
}

/* ---- sending ---- */

void nbd_wire_send(struct nbd_wire *w, const struct nbd_command *command)
{
	w->queued[w->nr_queued++] = (uint16_t)nbd_commands_add(&w->commands, command);
}

static void put_header(struct nbd_wire *w, struct wire_request *h, unsigned index, uint64_t now_ns)
{
	const struct nbd_command *c = &w->commands.entries[index].command;

	*h = (struct wire_request){
		.magic = htobe32(REQUEST_MAGIC),
		.flags = htobe16(c->flags),
		.type = htobe16((uint16_t)c->type),
		.cookie = htobe64(nbd_commands_cookie(&w->commands, index)),
		.offset = htobe64(c->offset),
		.length = htobe32(c->length),
	};
	*c->sent_ns = now_ns;
}

/* A piece that begins where the last one ends makes it longer. */
static inline void add_piece(struct nbd_wire *w, void *data, size_t length)
{
	struct msghdr *m = &w->message;
	struct iovec *last = m->msg_iovlen ? &w->pieces[m->msg_iovlen - 1] : NULL;

	w->send_bytes += length;
	if (last && (char *)last->iov_base + last->iov_len == data)
		last->iov_len += length;
	else
		w->pieces[m->msg_iovlen++] = (struct iovec){ data, length };
}

/* kTLS knows no MSG_WAITALL for sending (Linux 6.12 to 7.3, net/tls/tls_sw.c). */
static void send_message(struct nbd_wire *w)
{
	w->sending = true;
	queue_send(w->conn->owner->queue, &w->send_op, w->fd, &w->message, !w->tls);
}

static void send_queued(struct nbd_wire *w)
{
	uint64_t now_ns = queue_now_ns(w->conn->owner->queue);
	unsigned n = 0;

	w->message = (struct msghdr){ .msg_iov = w->pieces };
	w->send_bytes = 0;
	while (n < w->nr_queued) {
		const struct nbd_command *c = &w->commands.entries[w->queued[n]].command;
		size_t payload = c->type == NBD_COMMAND_WRITE ? c->length : 0;

		if (n && (w->send_bytes + payload > SEND_BYTES ||
			  w->message.msg_iovlen + 2 > SEND_PIECES))
			break;
		put_header(w, &w->headers[n], w->queued[n], now_ns);
		add_piece(w, &w->headers[n], sizeof(w->headers[n]));
		if (payload)
			add_piece(w, c->data, payload);
		n++;
	}
	w->nr_queued -= n;
	memmove(w->queued, w->queued + n, w->nr_queued * sizeof(*w->queued));
	send_message(w);
}

/* What is left is sent by nbd_wire_round(). */
static void drop_sent(struct nbd_wire *w, size_t bytes)
{
	struct msghdr *m = &w->message;

	w->send_bytes -= bytes;
	while (m->msg_iovlen && bytes >= m->msg_iov->iov_len) {
		bytes -= m->msg_iov->iov_len;
		m->msg_iov++;
		m->msg_iovlen--;
	}
	if (bytes) {
		m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + bytes;
		m->msg_iov->iov_len -= bytes;
	}
}

static void sent(struct ring_op *op, int result)
{
	struct nbd_wire *w = container_of(op, struct nbd_wire, send_op);

	w->sending = false;
	if (!w->conn->on_wire)
		return;
	if (result < 0)
		break_wire(w, "sending", -result);
	else if (!result || (!w->tls && (size_t)result != w->send_bytes))
		break_wire(w, "sending was cut off", 0);
	else
		drop_sent(w, (size_t)result);
	w->changed(w->conn);
}

/* ---- receiving ---- */

static void received(struct ring_op *op, int result)
{
	struct nbd_wire *w = container_of(op, struct nbd_wire, receive_op);

	w->receiving = false;
	if (!w->conn->on_wire)
		return;
	if (!result) {
		break_wire(w, "the server closed the connection", 0);
	} else if (result < 0 && w->tls) {
		nbd_tls_explain(w->fd, -result, w->fault, sizeof(w->fault));
		w->conn->fault = w->fault;
	} else if (result < 0) {
		break_wire(w, "receiving", -result);
	} else {
		nbd_replies_came(w->replies, (size_t)result);
	}
	w->changed(w->conn);
}

static void receive(struct nbd_wire *w)
{
	size_t length;
	bool all;
	void *to = nbd_replies_where(w->replies, &length, &all);

	w->receiving = true;
	queue_receive(w->conn->owner->queue, &w->receive_op, w->fd, to, length, all);
}

void nbd_wire_round(struct nbd_wire *w)
{
	if (!w->sending && w->send_bytes)
		send_message(w);
	else if (!w->sending && w->nr_queued)
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

	if (!w || nbd_commands_create(&w->commands, nr)) {
		free(w);
		return NULL;
	}
	w->conn = conn;
	w->changed = changed;
	w->send_op.done = sent;
	w->receive_op.done = received;
	w->replies = nbd_replies_create(&w->commands, &conn->fault);
	w->queued = calloc(nr, sizeof(*w->queued));
	w->headers = calloc(nr, sizeof(*w->headers));
	w->pieces = calloc(pieces, sizeof(*w->pieces));
	if (w->replies && w->queued && w->headers && w->pieces)
		return w;
	nbd_wire_destroy(w);
	return NULL;
}

void nbd_wire_destroy(struct nbd_wire *w)
{
	if (!w)
		return;
	nbd_wire_close(w);
	free(w->pieces);
	free(w->headers);
	free(w->queued);
	nbd_replies_destroy(w->replies);
	nbd_commands_destroy(&w->commands);
	free(w);
}

bool nbd_wire_open(struct nbd_wire *w, int fd, bool structured)
{
	if (w->sending || w->receiving)
		return false;
	w->fd = fd;
	w->tls = w->conn->kernel_tls;
	w->conn->on_wire = true;
	w->nr_queued = 0;
	w->send_bytes = 0;
	nbd_commands_reset(&w->commands);
	nbd_replies_reset(w->replies, structured);
	return true;
}

void nbd_wire_close(struct nbd_wire *w)
{
	if (!w || !w->conn->on_wire)
		return;
	w->conn->on_wire = false;
	if (w->sending)
		queue_cancel_now(w->conn->owner->queue, &w->send_op);
	if (w->receiving)
		queue_cancel_now(w->conn->owner->queue, &w->receive_op);
}
