/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/nbd-script.h"
#include "tests/fuzz/stage.h"
#include "tests/lib/nbd-protocol.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS      16
#define IN_MOST      (1u << 18)
#define PAUSE_MOST   (4000 * STAGE_NS_PER_MS) /* of an honest server, and one connection */
#define MESSAGE_MOST (SCRIPT_SIZE + 64)
/*
 * Then its end is known.  A request over writes that a stuck server may still carry out
 * waits for as long as that server keeps the connection, so none may keep it for ever.
 */
#define STUCK_NS (60000 * STAGE_NS_PER_MS)

enum stage_of {
	AT_FLAGS,
	AT_OPTIONS,
	AT_REQUESTS,
};

struct client {
	int fd; /* -1: a free place */
	enum stage_of at;
	bool structured, mute, over;
	uint64_t stuck_until; /* reads nothing until then, and keeps the connection */
	uint64_t paused_until, paused;
	uint8_t in[IN_MOST];
	size_t in_size;
	uint8_t *out;
	size_t out_size, out_room;
};

static struct {
	struct script_setup setup;
	size_t at;
	unsigned as_it_is; /* messages to send without a step */
	unsigned mishaps;
	unsigned reads; /* answered in chunks */
	int listener;
	uint64_t down_until;
	struct client *clients;
	uint8_t now[SCRIPT_SIZE], stable[SCRIPT_SIZE];
} server = { .listener = -1 };

/* Places of messages, and what a liar writes there. */
static const struct {
	uint8_t at, size;
	uint64_t value;
} lies[] = {
	{ 0, 8, 0 },
	{ 8, 8, 0x0000420281861253ull },
	{ 16, 2, 0 },
	{ 16, 2, 0xffff },
	/* An option's reply: its option, type and length; what it says of the export. */
	{ 8, 4, 99 },
	{ 12, 4, 0x7fff },
	{ 12, 4, 1 },
	{ 12, 4, 3 },
	{ 12, 4, 0x80000001 },
	{ 12, 4, 0x80000002 },
	{ 12, 4, 0x80000007 },
	{ 12, 4, 0x80000008 },
	{ 12, 4, 0x80007fff },
	{ 16, 4, 0xffffffff },
	{ 16, 4, 0 },
	{ 16, 4, 2 },
	{ 16, 4, 4096 },
	{ 20, 2, 0x7777 },
	{ 20, 2, 0 },
	{ 20, 2, 3 },
	{ 20, 2, 1 },
	{ 20, 2, 2 },
	{ 22, 8, 0 },
	{ 22, 8, 1 },
	{ 22, 8, 511 },
	{ 22, 8, 4096 },
	{ 22, 8, 1000001 },
	{ 22, 8, 1ull << 40 },
	{ 22, 8, 0x7fffffffffffffffull },
	{ 22, 8, 0x7ffffffffffff000ull },
	{ 22, 8, 0x8000000000000000ull },
	{ 22, 8, 0xfffffffffffffe00ull },
	{ 30, 2, 0 },
	{ 30, 2, 0xffff },
	{ 30, 2, 3 },
	{ 30, 2, 1 },
	{ 30, 2, 0x6f },
	{ 30, 2, 0x65 },
	{ 22, 4, 0 },
	{ 22, 4, 3 },
	{ 22, 4, 512 },
	{ 22, 4, 4096 },
	{ 22, 4, 65536 },
	{ 22, 4, 0x80000000 },
	{ 26, 4, 0 },
	{ 26, 4, 4097 },
	{ 26, 4, 0x80000000 },
	{ 26, 4, 1 },
	{ 30, 4, 0 },
	{ 30, 4, 1 },
	{ 30, 4, 4096 },
	{ 30, 4, 4097 },
	{ 30, 4, 0xffffffff },
	/* A reply and a chunk: error or type, cookie, length; a chunk's range. */
	{ 4, 4, 5 },
	{ 4, 4, 12345 },
	{ 4, 4, 0xffffffff },
	{ 4, 4, 108 },
	{ 4, 4, 28 },
	{ 4, 2, 0xffff },
	{ 4, 2, 0 },
	{ 4, 2, 1 },
	{ 6, 2, 0 },
	{ 6, 2, 1 },
	{ 6, 2, 2 },
	{ 6, 2, 5 },
	{ 6, 2, 0x77 },
	{ 6, 2, 0x8001 },
	{ 6, 2, 0x8002 },
	{ 6, 2, 0x8077 },
	{ 8, 8, 0 },
	{ 8, 8, 1 },
	{ 8, 8, 2 },
	{ 8, 8, 3 },
	{ 8, 8, 0xdeadbeef },
	{ 16, 4, 4 },
	{ 16, 4, 8 },
	{ 16, 4, 64u << 20 },
	{ 20, 8, 0 },
	{ 20, 8, 0xfffffffffffff000ull },
	{ 20, 8, 1ull << 62 },
	{ 28, 4, 0 },
	{ 28, 4, 0xffffffff },
	{ 28, 4, 512 },
	{ 28, 4, 4096 },
	{ 28, 4, 8192 },
	{ 28, 4, 65536 },
	{ 4, 2, 1 },
	{ 16, 4, 520 },
	{ 16, 4, 4104 },
	{ 16, 4, 8200 },
};

static void put(uint8_t *to, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static uint64_t get(const uint8_t *from, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value = value << 8 | from[i];
	return value;
}

static __attribute__((format(printf, 2, 3))) void tell(const struct client *c, const char *fmt, ...)
{
	va_list args;

	if (!server.setup.verbose)
		return;
	fprintf(stderr, "%10.3f server: ", (double)stage.now_ns / 1e9);
	if (c)
		fprintf(stderr, "client %d: ", (int)(c - server.clients));
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

/* ---- the script ---- */

static bool ended(void)
{
	return server.at >= server.setup.size;
}

static unsigned next_byte(void)
{
	return ended() ? 0 : server.setup.data[server.at++];
}

static size_t next_length(size_t size)
{
	size_t length = next_byte() << 8;

	length |= next_byte();
	return size ? length % size : 0;
}

/* ---- what is sent ---- */

static void queue_bytes(struct client *c, const void *data, size_t size)
{
	if (!size)
		return;
	if (c->out_size + size > c->out_room) {
		c->out_room = (c->out_size + size) * 2;
		c->out = realloc(c->out, c->out_room);
		if (!c->out)
			abort();
	}
	memcpy(c->out + c->out_size, data, size);
	c->out_size += size;
}

static void queue_script_bytes(struct client *c, unsigned size)
{
	uint8_t bytes[255];

	for (unsigned i = 0; i < size; i++)
		bytes[i] = (uint8_t)next_byte();
	queue_bytes(c, bytes, size);
}

static void pause_client(struct client *c, uint64_t ns)
{
	if (server.setup.honest && c->paused + ns > PAUSE_MOST)
		return;
	c->paused += ns;
	c->paused_until = stage.now_ns + ns;
	server.mishaps++;
}

static void drop_client(struct client *c)
{
	tell(c, "is closed");
	close(c->fd);
	free(c->out);
	c->fd = -1;
	c->out = NULL;
}

/* As when its machine loses power: of the blocks, those that `which` has bits for are lost. */
static void die(unsigned tenths, unsigned which)
{
	server.mishaps++;
	tell(NULL, "dies, for %u00 ms, and loses blocks 0x%02x", tenths, which);
	for (unsigned i = 0; i < SCRIPT_BLOCKS; i++)
		if (!server.setup.durable && which >> i % 8 & 1)
			memcpy(server.now + i * SCRIPT_BLOCK, server.stable + i * SCRIPT_BLOCK,
			       SCRIPT_BLOCK);
	memcpy(server.stable, server.now, SCRIPT_SIZE);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &server.clients[i];

		c->over = c->mute = true;
		c->stuck_until = 0;
		c->paused_until = 0;
		c->out_size = 0;
	}
	close(server.listener);
	server.listener = -1;
	unlink(server.setup.socket);
	server.down_until = stage.now_ns + tenths * 100 * STAGE_NS_PER_MS;
}

static void patch(uint8_t *message, size_t size, unsigned count)
{
	size_t at = next_byte();

	for (unsigned i = 0; i < count; i++)
		message[(at + i) % size] ^= (uint8_t)next_byte();
}

static void tell_lie(uint8_t *message, size_t size)
{
	unsigned i = next_byte() % (sizeof(lies) / sizeof(*lies));

	if (lies[i].at + (size_t)lies[i].size <= size)
		put(message + lies[i].at, lies[i].value, lies[i].size);
}

/* A liar's steps. */
static void send_bent(struct client *c, unsigned step, uint8_t *message, size_t size)
{
	switch (step & 15) {
	case ACT_PATCH:
		patch(message, size, 1 + (step >> 4));
		break;
	case ACT_REPLACE:
		queue_script_bytes(c, next_byte());
		return;
	case ACT_APPEND:
		queue_bytes(c, message, size);
		queue_script_bytes(c, next_byte());
		return;
	case ACT_TWICE:
		queue_bytes(c, message, size);
		break;
	case ACT_DROP:
		return;
	case ACT_FIELD:
		tell_lie(message, size);
		break;
	}
	queue_bytes(c, message, size);
}

/* Every message goes out by here, and takes its step. */
static void send_message(struct client *c, uint8_t *message, size_t size)
{
	unsigned step;

	if (c->mute || c->over)
		return;
	if (server.as_it_is || ended()) {
		server.as_it_is -= server.as_it_is > 0;
		queue_bytes(c, message, size);
		return;
	}
	step = next_byte();
	if ((step & 15) >= ACT_CUT)
		tell(c, "act %u (0x%02x) on a message of %zu bytes", step & 15, step, size);
	switch (step & 15) {
	case ACT_CUT:
		queue_bytes(c, message, next_length(size));
		c->over = c->mute = true;
		server.mishaps++;
		break;
	case ACT_HANG:
		queue_bytes(c, message, next_length(size));
		c->mute = true;
		c->stuck_until = step >> 4 & 1 ? stage.now_ns + STUCK_NS : 0;
		server.mishaps++;
		break;
	case ACT_DIE:
		die(step >> 4, next_byte());
		break;
	case ACT_PAUSE:
		queue_bytes(c, message, size);
		pause_client(c, next_byte() * 10 * STAGE_NS_PER_MS);
		break;
	case ACT_PATCH:
	case ACT_REPLACE:
	case ACT_APPEND:
	case ACT_TWICE:
	case ACT_DROP:
	case ACT_FIELD:
		if (!server.setup.honest) {
			send_bent(c, step, message, size);
			break;
		}
		queue_bytes(c, message, size);
		break;
	default:
		server.as_it_is = step >> 4;
		queue_bytes(c, message, size);
	}
}

/* ---- negotiation ---- */

static void send_option(struct client *c, uint64_t option, uint32_t type, const void *body,
			size_t size)
{
	uint8_t message[64];

	put(message, ANSWER_MAGIC, 8);
	put(message + 8, option, 4);
	put(message + 12, type, 4);
	put(message + 16, size, 4);
	if (size)
		memcpy(message + 20, body, size);
	send_message(c, message, 20 + size);
}

static uint16_t export_flags(void)
{
	return (uint16_t)(0x25 | (server.setup.read_only ? 2 : 0) | (server.setup.no_fua ? 0 : 8) |
			  (server.setup.no_zeroes ? 0 : 0x40) |
			  (server.setup.multi_conn ? 0x100 : 0));
}

static void answer_go(struct client *c, uint64_t option)
{
	uint8_t export_info[12], blocks[14];

	put(export_info, 0, 2);
	put(export_info + 2, SCRIPT_SIZE, 8);
	put(export_info + 10, export_flags(), 2);
	send_option(c, option, 3, export_info, sizeof(export_info));
	put(blocks, 3, 2);
	put(blocks + 2, 512, 4);
	put(blocks + 6, 4096, 4);
	put(blocks + 10, 32u << 20, 4);
	send_option(c, option, 3, blocks, sizeof(blocks));
	send_option(c, option, 1, NULL, 0);
	if (option == OPT_GO)
		c->at = AT_REQUESTS;
}

static void answer_option(struct client *c, uint64_t option)
{
	static const uint8_t name[] = { 0, 0, 0, 3, 'o', 'n', 'e' };
	uint8_t old[134] = { 0 };

	switch (option) {
	case OPT_EXPORT_NAME:
		put(old, SCRIPT_SIZE, 8);
		put(old + 8, export_flags(), 2);
		send_message(c, old, 10);
		c->at = AT_REQUESTS;
		break;
	case OPT_ABORT:
		send_option(c, option, 1, NULL, 0);
		c->over = true;
		break;
	case OPT_LIST:
		send_option(c, option, 2, name, sizeof(name));
		send_option(c, option, 1, NULL, 0);
		break;
	case OPT_INFO:
	case OPT_GO:
		answer_go(c, option);
		break;
	case OPT_STRUCTURED_REPLY:
		c->structured = server.setup.structured;
		send_option(c, option, c->structured ? 1 : 0x80000001u, NULL, 0);
		break;
	default:
		send_option(c, option, 0x80000001u, NULL, 0);
	}
}

/* ---- requests ---- */

struct wish {
	uint64_t flags, type, offset, length;
	const uint8_t *cookie;
};

static void send_chunk(struct client *c, const struct wish *w, unsigned flags, unsigned type,
		       const void *head, size_t head_size, const void *data, size_t size)
{
	static uint8_t message[MESSAGE_MOST];

	put(message, CHUNK_MAGIC, 4);
	put(message + 4, flags, 2);
	put(message + 6, type, 2);
	memcpy(message + 8, w->cookie, 8);
	put(message + 16, head_size + size, 4);
	if (head_size)
		memcpy(message + 20, head, head_size);
	if (size)
		memcpy(message + 20 + head_size, data, size);
	send_message(c, message, 20 + head_size + size);
}

static void send_reply(struct client *c, const struct wish *w, uint32_t error, const void *data,
		       size_t size)
{
	static uint8_t message[MESSAGE_MOST];

	put(message, REPLY_MAGIC, 4);
	put(message + 4, error, 4);
	memcpy(message + 8, w->cookie, 8);
	if (size)
		memcpy(message + 16, data, size);
	send_message(c, message, 16 + size);
}

static bool is_zero(const uint8_t *data, size_t size)
{
	return !data[0] && !memcmp(data, data + 1, size - 1);
}

/* Answers to reads by turns: how many parts, the last one first, and whether a part ends it. */
static const struct shape {
	unsigned parts;
	bool backwards, ends;
} shapes[] = {
	{ 2, false, false }, { 4, true, false }, { 1, false, true },
	{ 3, false, true },  { 5, true, true },
};

static void answer_read(struct client *c, const struct wish *w)
{
	const struct shape *shape = &shapes[server.reads % (sizeof(shapes) / sizeof(*shapes))];
	bool ends = false;

	if (!c->structured) {
		send_reply(c, w, 0, server.now + w->offset, w->length);
		return;
	}
	server.reads++;
	for (unsigned i = 0; i < shape->parts; i++) {
		unsigned part = shape->backwards ? shape->parts - 1 - i : i;
		size_t from = w->length * part / shape->parts;
		size_t size = w->length * (part + 1) / shape->parts - from;
		uint64_t at = w->offset + from;
		uint8_t head[12];

		if (!size)
			continue;
		ends = shape->ends && i == shape->parts - 1;
		put(head, at, 8);
		put(head + 8, size, 4);
		if (is_zero(server.now + at, size))
			send_chunk(c, w, ends, 2, head, 12, NULL, 0);
		else
			send_chunk(c, w, ends, 1, head, 8, server.now + at, size);
	}
	if (!ends)
		send_chunk(c, w, 1, 0, NULL, 0, NULL, 0);
}

static void answer_error(struct client *c, const struct wish *w, uint32_t error)
{
	uint8_t head[6];

	if (!c->structured) {
		send_reply(c, w, error, NULL, 0);
		return;
	}
	put(head, error, 4);
	put(head + 4, 2, 2);
	send_chunk(c, w, 1, 0x8001, head, sizeof(head), "no", 2);
}

static void change(uint64_t offset, const void *data, size_t size, bool fua)
{
	if (data)
		memcpy(server.now + offset, data, size);
	else
		memset(server.now + offset, 0, size);
	if (fua)
		memcpy(server.stable + offset, server.now + offset, size);
}

static void do_wish(struct client *c, const struct wish *w, const uint8_t *data)
{
	bool fua = w->flags & 1;

	tell(c, "request %u at %llu+%llu flags %u", (unsigned)w->type,
	     (unsigned long long)w->offset, (unsigned long long)w->length, (unsigned)w->flags);
	if (w->type != CMD_FLUSH &&
	    (w->offset > SCRIPT_SIZE || w->length > SCRIPT_SIZE - w->offset)) {
		answer_error(c, w, EINVAL);
		return;
	}
	switch (w->type) {
	case CMD_READ:
		if (w->length)
			answer_read(c, w);
		else
			answer_error(c, w, EINVAL);
		return;
	case CMD_WRITE:
	case CMD_ZEROES:
		if (server.setup.read_only) {
			answer_error(c, w, EPERM);
			return;
		}
		change(w->offset, w->type == CMD_WRITE ? data : NULL, w->length, fua);
		break;
	case CMD_TRIM:
		break;
	case CMD_FLUSH:
		memcpy(server.stable, server.now, SCRIPT_SIZE);
		break;
	default:
		answer_error(c, w, EINVAL);
		return;
	}
	if (c->structured)
		send_chunk(c, w, 1, 0, NULL, 0, NULL, 0);
	else
		send_reply(c, w, 0, NULL, 0);
}

/* ---- what comes in ---- */

/* Whom it has lied to may well be of another mind about where they are. */
static size_t not_understood(struct client *c, const char *what, uint64_t length)
{
	if (server.setup.honest)
		stage_broken("%s of %llu bytes", what, (unsigned long long)length);
	c->over = true;
	return 0;
}

/* Handles a message of the client's.  Returns its length; 0: it is not whole yet. */
static size_t take_flags(struct client *c)
{
	if (c->in_size < 4)
		return 0;
	c->at = AT_OPTIONS;
	return 4;
}

static size_t take_option(struct client *c)
{
	uint64_t length;

	if (c->in_size < 16)
		return 0;
	length = get(c->in + 12, 4);
	if (get(c->in, 8) != OPTION_MAGIC || length > 8192)
		return not_understood(c, "an option that is none, or one", length);
	if (c->in_size < 16 + length)
		return 0;
	answer_option(c, get(c->in + 8, 4));
	return 16 + length;
}

static size_t take_request(struct client *c)
{
	struct wish w;
	size_t size = 28;

	if (c->in_size < 28)
		return 0;
	w = (struct wish){ .flags = get(c->in + 4, 2),
			   .type = get(c->in + 6, 2),
			   .offset = get(c->in + 16, 8),
			   .length = get(c->in + 24, 4),
			   .cookie = c->in + 8 };
	if (get(c->in, 4) != REQUEST_MAGIC)
		return not_understood(c, "a request that is none", w.length);
	if (w.type == CMD_DISCONNECT) {
		c->over = true;
		return 28;
	}
	if (w.type == CMD_WRITE)
		size += w.length;
	if (size > IN_MOST)
		return not_understood(c, "a write", w.length);
	if (c->in_size < size)
		return 0;
	do_wish(c, &w, c->in + 28);
	return size;
}

static size_t take_one(struct client *c)
{
	switch (c->at) {
	case AT_FLAGS:
		return take_flags(c);
	case AT_OPTIONS:
		return take_option(c);
	case AT_REQUESTS:
		return take_request(c);
	}
	return 0;
}

static bool is_paused(const struct client *c)
{
	return c->paused_until > stage.now_ns;
}

static bool is_stuck(const struct client *c)
{
	return c->stuck_until > stage.now_ns;
}

static bool take_all(struct client *c)
{
	bool any = false;
	size_t size;

	while (!c->over && !c->mute && !is_paused(c) && (size = take_one(c))) {
		c->in_size -= size;
		memmove(c->in, c->in + size, c->in_size);
		any = true;
	}
	return any;
}

/* Returns whether the client has closed. */
static bool read_client(struct client *c, bool *any)
{
	ssize_t n;

	for (;;) {
		if (c->mute)
			c->in_size = 0;
		if (c->in_size == IN_MOST)
			return false;
		n = recv(c->fd, c->in + c->in_size, IN_MOST - c->in_size, MSG_DONTWAIT);
		if (n <= 0)
			return n == 0 || (errno != EAGAIN && errno != EINTR);
		c->in_size += (size_t)n;
		*any = true;
	}
}

static bool flush_client(struct client *c)
{
	ssize_t n;

	if (!c->out_size)
		return false;
	n = send(c->fd, c->out, c->out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0) /* nobody reads it */
		n = (ssize_t)c->out_size;
	c->out_size -= (size_t)n;
	memmove(c->out, c->out + n, c->out_size);
	return true;
}

static bool step_client(struct client *c)
{
	bool any = false, closed;

	if (is_paused(c) || (is_stuck(c) && !c->out_size))
		return false;
	any |= flush_client(c);
	closed = read_client(c, &any);
	/* Requests that have come are done, also for a client that has left: an old write. */
	any |= take_all(c);
	any |= flush_client(c);
	if (is_paused(c) || !(closed || c->over) || (c->out_size && !closed))
		return any;
	drop_client(c);
	return true;
}

/* ---- the whole ---- */

static void start_listening(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, server.setup.socket);
	unlink(address.sun_path);
	server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (server.listener < 0 ||
	    bind(server.listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(server.listener, CLIENTS)) {
		perror(address.sun_path);
		exit(1);
	}
	server.down_until = 0;
}

static bool accept_client(void)
{
	static const uint8_t hello[] = "NBDMAGICIHAVEOPT\0\3";
	uint8_t message[18];
	struct client *c = NULL;

	for (unsigned i = 0; i < CLIENTS && !c; i++)
		if (server.clients[i].fd < 0)
			c = &server.clients[i];
	for (unsigned i = 0; i < CLIENTS && !c; i++)
		if (is_stuck(&server.clients[i])) {
			c = &server.clients[i];
			drop_client(c);
		}
	if (!c)
		return false;
	c->fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
	if (c->fd < 0)
		return false;
	tell(c, "connects");
	c->at = AT_FLAGS;
	c->structured = c->mute = c->over = false;
	c->paused = c->paused_until = c->stuck_until = 0;
	c->in_size = c->out_size = c->out_room = 0;
	memcpy(message, hello, sizeof(message));
	send_message(c, message, sizeof(message));
	return true;
}

bool script_step(void)
{
	bool any = false;

	if (server.listener < 0 && stage.now_ns >= server.down_until) {
		start_listening();
		any = true;
	}
	while (server.listener >= 0 && accept_client())
		any = true;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (server.clients[i].fd >= 0)
			any |= step_client(&server.clients[i]);
	return any;
}

uint64_t script_next_ns(void)
{
	uint64_t next = server.listener < 0 ? server.down_until : UINT64_MAX;

	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct client *c = &server.clients[i];

		if (c->fd >= 0 && is_paused(c) && c->paused_until < next)
			next = c->paused_until;
		if (c->fd >= 0 && is_stuck(c) && c->stuck_until < next)
			next = c->stuck_until;
	}
	return next;
}

void script_start(const struct script_setup *setup)
{
	if (!server.clients)
		server.clients = malloc(CLIENTS * sizeof(*server.clients));
	if (!server.clients)
		abort();
	server.setup = *setup;
	server.at = server.as_it_is = server.mishaps = server.reads = 0;
	memset(server.now, 0, SCRIPT_SIZE);
	memset(server.stable, 0, SCRIPT_SIZE);
	for (unsigned i = 0; i < CLIENTS; i++) {
		server.clients[i].fd = -1;
		server.clients[i].out = NULL;
	}
	start_listening();
}

void script_end(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (server.clients[i].fd >= 0)
			drop_client(&server.clients[i]);
	if (server.listener >= 0)
		close(server.listener);
	server.listener = -1;
	unlink(server.setup.socket);
}

unsigned script_mishaps(void)
{
	return server.mishaps;
}

const uint8_t *script_stable(void)
{
	return server.stable;
}
