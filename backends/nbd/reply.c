/* SPDX-License-Identifier: MIT */
/*
 * The server's messages of the NBD protocol's transmission phase (NBD protocol, "Simple reply
 * message" and "Structured reply chunk message").
 *
 * What comes goes into the stage, and is parsed there. A read whose data is there in one piece ends
 * with that. Else its parts are put into the command's room: copied, or, where much data has not
 * come whole, the rest of it received straight into its place; while large reads are in flight, the
 * stage takes little at a time. Either way the data is handed on once, and only when all of it is
 * there: what comes on a connection that is lost before leaves no trace.
 *
 * A reply that finds no command in flight is late, or made up: the connection is given up.
 *
 * A structured reply is one or more chunks, for a read in any order: data, holes, errors. The
 * chunk with the flag DONE ends the command: with the first error, or, for a read, if each byte has
 * come exactly once. Chunks of several commands may alternate.
 *
 * Read nbd_replies_came(), parse(), take_chunk() and nbd_replies_where().
 */
#include "backends/nbd/reply.h"
#include "backends/nbd/command.h"
#include "backends/nbd/cover.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STAGE_BYTES (256u << 10)

#define REPLY_MAGIC 0x67446698u
#define CHUNK_MAGIC 0x668e33efu

/* NBD protocol, "Structured reply flags" and "Structured reply types". */
#define CHUNK_DONE         1u
#define CHUNK_NONE         0u
#define CHUNK_OFFSET_DATA  1u
#define CHUNK_OFFSET_HOLE  2u
#define CHUNK_IS_ERROR     0x8000u /* of all types of errors, also of unknown ones */
#define CHUNK_ERROR        0x8001u
#define CHUNK_ERROR_OFFSET 0x8002u
#define ERROR_TEXT_BYTES   4096u
#define ERROR_TAIL_BYTES   4096u /* behind the text of an error of unknown type */

struct simple_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));
_Static_assert(sizeof(struct simple_reply) == 16, "NBD protocol, \"Simple reply message\"");

struct chunk {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie;
	uint32_t length; /* of what follows */
} __attribute__((packed));
_Static_assert(sizeof(struct chunk) == 20, "NBD protocol, \"Structured reply chunk message\"");

struct data_chunk {
	struct chunk chunk;
	uint64_t offset;
} __attribute__((packed));

struct hole_chunk {
	struct chunk chunk;
	uint64_t offset;
	uint32_t length;
} __attribute__((packed));

/* Followed by the text, and that by the offset of CHUNK_ERROR_OFFSET. */
struct error_chunk {
	struct chunk chunk;
	uint32_t error;
	uint16_t text_length;
} __attribute__((packed));

/* What has come of a structured reply; zeroed: nothing. */
struct answer {
	struct nbd_cover cover; /* of a read */
	bool garbled;           /* parts overlap, or there are too many to tell */
	int error;              /* the first one; 0: none */
};

struct nbd_replies {
	struct nbd_commands *commands;
	const char **fault;
	bool structured; /* replies to reads are structured ones, and those to others may be */
	struct answer *answers; /* by the command's index; of simple replies there is none */

	char *stage;
	size_t have;                    /* bytes in the stage, from its start */
	size_t lacks;                   /* bytes that the message at its start still lacks */
	struct nbd_command_entry *rest; /* whose data is received into its place; NULL: none */
	char *rest_at;
	size_t rest_bytes;
	bool rest_ends; /* it completes the reply */
};

static struct answer *answer_of(const struct nbd_replies *r, const struct nbd_command_entry *e)
{
	return &r->answers[e - r->commands->entries];
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

static size_t break_off(struct nbd_replies *r)
{
	*r->fault = "the server breaks the protocol";
	return 0;
}

/* Whether less than so many bytes of the first message in the stage have come. */
static bool lacks(struct nbd_replies *r, size_t bytes, size_t have)
{
	if (have >= bytes)
		return false;
	r->lacks = bytes - have;
	return true;
}

/* The reply is complete. */
static void end_reply(struct nbd_replies *r, struct nbd_command_entry *e, int error)
{
	const struct nbd_command *c = &e->command;
	struct answer *a = answer_of(r, e);

	if (r->structured) {
		if (a->error)
			error = a->error;
		if (!error && c->type == NBD_COMMAND_READ &&
		    (a->garbled || !nbd_cover_is_whole(&a->cover, c->length))) {
			break_off(r);
			return;
		}
		a->cover.nr = 0;
		a->garbled = false;
		a->error = 0;
	}
	nbd_commands_end(r->commands, e, error);
}

/* Whether to wait in the stage for the rest of a message with so much data behind its header. */
static bool lacks_little(struct nbd_replies *r, size_t header, size_t length, size_t have)
{
	/* A message that the stage has no room for cannot be waited for there. */
	if (header + length > STAGE_BYTES || have + NBD_DIRECT_BYTES <= header + length)
		return false;
	return lacks(r, header + length, have);
}

/* Takes data, of which `have` bytes are at from; ends: it completes the reply. */
static inline size_t put_data(struct nbd_replies *r, struct nbd_command_entry *e, size_t at,
			      size_t length, bool ends, const char *from, size_t have)
{
	const struct nbd_command *c = &e->command;

	if (have > length)
		have = length;
	if (ends && have == c->length)
		*c->came = from;
	else
		memcpy((char *)c->data + at, from, have);
	if (have < length) {
		r->rest = e;
		r->rest_at = (char *)c->data + at + have;
		r->rest_bytes = length - have;
		r->rest_ends = ends;
	} else if (ends) {
		end_reply(r, e, 0);
	}
	return have;
}

static size_t take_simple(struct nbd_replies *r, struct nbd_command_entry *e,
			  const struct simple_reply *reply, const char *data, size_t have)
{
	const struct nbd_command *c = &e->command;
	int error = reply->error ? errno_of(be32toh(reply->error)) : 0;

	if (r->structured && c->type == NBD_COMMAND_READ)
		return break_off(r);
	if (error || c->type != NBD_COMMAND_READ) {
		end_reply(r, e, error);
		return sizeof(*reply);
	}
	if (lacks_little(r, sizeof(*reply), c->length, have))
		return 0;
	return sizeof(*reply) +
	       put_data(r, e, 0, c->length, true, data + sizeof(*reply), have - sizeof(*reply));
}

/* ---- structured replies ---- */

static bool is_within(const struct nbd_command *c, uint64_t offset, uint64_t length)
{
	return offset >= c->offset && offset - c->offset <= c->length &&
	       length <= c->length - (offset - c->offset);
}

/* Returns whether that part is new. */
static bool add_part(struct nbd_replies *r, const struct nbd_command_entry *e, size_t at,
		     size_t length)
{
	struct answer *a = answer_of(r, e);

	if (nbd_cover_add(&a->cover, (uint32_t)at, (uint32_t)length))
		return true;
	a->garbled = true;
	return false;
}

static size_t take_data(struct nbd_replies *r, struct nbd_command_entry *e, bool ends,
			const char *data, size_t have)
{
	const struct nbd_command *c = &e->command;
	struct data_chunk d;
	size_t length, at;

	if (lacks(r, sizeof(d), have))
		return 0;
	memcpy(&d, data, sizeof(d));
	length = be32toh(d.chunk.length);
	if (length < sizeof(d) - sizeof(d.chunk))
		return break_off(r);
	length -= sizeof(d) - sizeof(d.chunk);
	if (c->type != NBD_COMMAND_READ || !is_within(c, be64toh(d.offset), length))
		return break_off(r);
	if (lacks_little(r, sizeof(d), length, have))
		return 0;
	at = be64toh(d.offset) - c->offset;
	add_part(r, e, at, length);
	return sizeof(d) + put_data(r, e, at, length, ends, data + sizeof(d), have - sizeof(d));
}

static size_t take_hole(struct nbd_replies *r, struct nbd_command_entry *e, bool ends,
			const char *data, size_t have)
{
	const struct nbd_command *c = &e->command;
	struct hole_chunk h;
	size_t length, at;

	if (lacks(r, sizeof(h), have))
		return 0;
	memcpy(&h, data, sizeof(h));
	length = be32toh(h.length);
	if (be32toh(h.chunk.length) != sizeof(h) - sizeof(h.chunk) || c->type != NBD_COMMAND_READ ||
	    !is_within(c, be64toh(h.offset), length))
		return break_off(r);
	at = be64toh(h.offset) - c->offset;
	/* Once: a server must not keep us busy with the same hole again and again. */
	if (add_part(r, e, at, length)) {
		if (ends && length == c->length)
			*c->came = NULL;
		else
			memset((char *)c->data + at, 0, length);
	}
	if (ends)
		end_reply(r, e, 0);
	return sizeof(h);
}

/* Whether an error's length goes with its type and the length of its text. */
static bool is_error_sound(uint16_t type, size_t length, size_t text_length)
{
	size_t tail;

	if (text_length > ERROR_TEXT_BYTES || length < text_length)
		return false;
	tail = length - text_length;
	if (type == CHUNK_ERROR)
		return tail == 0;
	if (type == CHUNK_ERROR_OFFSET)
		return tail == sizeof(uint64_t);
	return tail <= ERROR_TAIL_BYTES;
}

static size_t take_error(struct nbd_replies *r, struct nbd_command_entry *e, bool ends,
			 const char *data, size_t have)
{
	struct answer *a = answer_of(r, e);
	struct error_chunk x;
	size_t length, text_length;
	uint64_t offset;
	uint16_t type;

	if (lacks(r, sizeof(x), have))
		return 0;
	memcpy(&x, data, sizeof(x));
	type = be16toh(x.chunk.type);
	length = be32toh(x.chunk.length);
	text_length = be16toh(x.text_length);
	if (length < sizeof(x) - sizeof(x.chunk))
		return break_off(r);
	length -= sizeof(x) - sizeof(x.chunk);
	if (!is_error_sound(type, length, text_length))
		return break_off(r);
	if (lacks(r, sizeof(x) + length, have))
		return 0;
	if (type == CHUNK_ERROR_OFFSET) {
		memcpy(&offset, data + sizeof(x) + text_length, sizeof(offset));
		if (!is_within(&e->command, be64toh(offset), 1))
			return break_off(r);
	}
	/* An error that is none: the command has failed all the same. */
	if (!a->error)
		a->error = x.error ? errno_of(be32toh(x.error)) : EINVAL;
	if (ends)
		end_reply(r, e, 0);
	return sizeof(x) + length;
}

static size_t take_chunk(struct nbd_replies *r, struct nbd_command_entry *e, const char *data,
			 size_t have)
{
	struct chunk chunk;
	uint16_t type;
	bool ends;

	if (lacks(r, sizeof(chunk), have))
		return 0;
	memcpy(&chunk, data, sizeof(chunk));
	type = be16toh(chunk.type);
	ends = be16toh(chunk.flags) & CHUNK_DONE;
	if (type == CHUNK_OFFSET_DATA)
		return take_data(r, e, ends, data, have);
	if (type == CHUNK_OFFSET_HOLE)
		return take_hole(r, e, ends, data, have);
	if (type & CHUNK_IS_ERROR)
		return take_error(r, e, ends, data, have);
	if (type != CHUNK_NONE || chunk.length || !ends)
		return break_off(r);
	end_reply(r, e, 0);
	return sizeof(chunk);
}

/* ---- messages ---- */

/* One message at the start of data; returns its bytes, or 0: it has not come whole. */
static size_t take_message(struct nbd_replies *r, const char *data, size_t have)
{
	struct simple_reply reply;
	struct nbd_command_entry *e;
	uint32_t magic;

	if (lacks(r, sizeof(reply), have))
		return 0;
	/* The cookie has the same place in both kinds. */
	memcpy(&reply, data, sizeof(reply));
	e = nbd_commands_find(r->commands, be64toh(reply.cookie));
	magic = be32toh(reply.magic);
	if (e && magic == REPLY_MAGIC)
		return take_simple(r, e, &reply, data, have);
	if (e && magic == CHUNK_MAGIC && r->structured)
		return take_chunk(r, e, data, have);
	return break_off(r);
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
	if (r->rest_ends)
		end_reply(r, e, 0);
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
	size_t header = r->structured ? sizeof(struct data_chunk) : sizeof(struct simple_reply);
	const struct nbd_commands *c = r->commands;
	size_t room = STAGE_BYTES - r->have, wants;

	if (!c->nr_large && !c->last_large)
		return room;
	wants = (c->nr - c->nr_idle) * header;
	if (wants < header)
		wants = header;
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
	r->answers = calloc(commands->nr, sizeof(*r->answers));
	r->stage =
		mmap(NULL, STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->answers && r->stage != MAP_FAILED)
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
	free(r->answers);
	free(r);
}

void nbd_replies_reset(struct nbd_replies *r, bool structured)
{
	r->structured = structured;
	r->have = r->lacks = 0;
	r->rest = NULL;
	memset(r->answers, 0, r->commands->nr * sizeof(*r->answers));
}
