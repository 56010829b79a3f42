/* SPDX-License-Identifier: MIT */
/*
 * The server's messages of the NBD protocol's transmission phase (NBD protocol, "Simple reply
 * message").
 *
 * What comes goes into the stage, and is parsed there: a small read's data is copied to its place.
 * Of a large one that has not come whole, the rest is received straight into its place; while
 * large reads are in flight, the stage takes little at a time.
 *
 * A reply that finds no command in flight is late, or made up: the connection is given up.
 *
 * Read nbd_replies_came(), parse() and nbd_replies_where().
 */
#include "backends/nbd/reply.h"
#include "backends/nbd/command.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STAGE_BYTES (256u << 10)

#define REPLY_MAGIC 0x67446698u

struct simple_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));
_Static_assert(sizeof(struct simple_reply) == 16, "NBD protocol, \"Simple reply message\"");

struct nbd_replies {
	struct nbd_commands *commands;
	const char **fault;

	char *stage;
	size_t have;                    /* bytes in the stage, from its start */
	size_t lacks;                   /* bytes that the message at its start still lacks */
	struct nbd_command_entry *rest; /* whose data is received into its place; NULL: none */
	char *rest_at;
	size_t rest_bytes;
};

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

/* A read's data of which `have` bytes are at from: ends it, or receives the rest into its place. */
static size_t take_data(struct nbd_replies *r, struct nbd_command_entry *e, const char *from,
			size_t have)
{
	size_t length = e->command.length, lacks = have < length ? length - have : 0;

	/* A message that the stage has no room for cannot be waited for there. */
	if (lacks && lacks < NBD_DIRECT_BYTES &&
	    sizeof(struct simple_reply) + length <= STAGE_BYTES) {
		r->lacks = lacks;
		return SIZE_MAX;
	}
	if (!lacks)
		have = length;
	memcpy(e->command.data, from, have);
	if (lacks) {
		r->rest = e;
		r->rest_at = (char *)e->command.data + have;
		r->rest_bytes = lacks;
	} else {
		nbd_commands_end(r->commands, e, 0);
	}
	return have;
}

/* One message at the start of data; returns its bytes, or 0: it has not come whole. */
static size_t take_message(struct nbd_replies *r, const char *data, size_t have)
{
	struct nbd_command_entry *e;
	struct simple_reply reply;
	size_t taken;
	int error;

	if (have < sizeof(reply)) {
		r->lacks = sizeof(reply) - have;
		return 0;
	}
	memcpy(&reply, data, sizeof(reply));
	e = be32toh(reply.magic) == REPLY_MAGIC
		    ? nbd_commands_find(r->commands, be64toh(reply.cookie))
		    : NULL;
	if (!e) {
		*r->fault = "the server breaks the protocol";
		return 0;
	}
	error = errno_of(be32toh(reply.error));
	if (error || e->command.type != NBD_COMMAND_READ) {
		nbd_commands_end(r->commands, e, error);
		return sizeof(reply);
	}
	taken = take_data(r, e, data + sizeof(reply), have - sizeof(reply));
	return taken == SIZE_MAX ? 0 : sizeof(reply) + taken;
}

static void parse(struct nbd_replies *r)
{
	size_t at = 0, n;

	r->lacks = 0;
	while (at < r->have && !r->rest && !*r->fault &&
	       (n = take_message(r, r->stage + at, r->have - at)))
		at += n;
	r->have -= at;
	if (at)
		memmove(r->stage, r->stage + at, r->have);
}

static void take_rest(struct nbd_replies *r, size_t bytes)
{
	struct nbd_command_entry *e = r->rest;

	r->rest_at += bytes;
	r->rest_bytes -= bytes;
	if (r->rest_bytes)
		return;
	r->rest = NULL;
	nbd_commands_end(r->commands, e, 0);
}

void nbd_replies_came(struct nbd_replies *r, size_t bytes)
{
	if (r->rest) {
		take_rest(r, bytes);
	} else {
		r->have += bytes;
		parse(r);
	}
}

/*
 * Before large reads the stage takes little: what it takes is copied. A RECV is under way before
 * the read is sent that it is for, so the one before counts.
 */
static size_t stage_wants(const struct nbd_replies *r)
{
	const struct nbd_commands *c = r->commands;
	size_t room = STAGE_BYTES - r->have, wants;

	if (!c->nr_large && !c->last_large)
		return room;
	wants = (c->nr - c->nr_idle) * sizeof(struct simple_reply);
	if (wants < sizeof(struct simple_reply))
		wants = sizeof(struct simple_reply);
	if (wants < r->lacks)
		wants = r->lacks;
	return wants < room ? wants : room;
}

void *nbd_replies_where(const struct nbd_replies *r, size_t *length, bool *all)
{
	*all = r->rest;
	*length = r->rest ? r->rest_bytes : stage_wants(r);
	return r->rest ? r->rest_at : r->stage + r->have;
}

/* ---- its life ---- */

struct nbd_replies *nbd_replies_create(struct nbd_commands *commands, const char **fault)
{
	struct nbd_replies *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->commands = commands;
	r->fault = fault;
	r->stage =
		mmap(NULL, STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->stage != MAP_FAILED)
		return r;
	nbd_replies_destroy(r);
	return NULL;
}

void nbd_replies_destroy(struct nbd_replies *r)
{
	if (!r)
		return;
	if (r->stage != MAP_FAILED)
		munmap(r->stage, STAGE_BYTES);
	free(r);
}

void nbd_replies_reset(struct nbd_replies *r)
{
	r->have = r->lacks = 0;
	r->rest = NULL;
}
