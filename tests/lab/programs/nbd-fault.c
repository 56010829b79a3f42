/* SPDX-License-Identifier: MIT */
/*
 * nbd-fault: an NBD server that serves a file as it should, and misbehaves where
 * it is told.
 *
 *   nbd-fault [OPTIONS] SOCKET FILE [FAULT...]
 *   nbd-fault --list              the faults, one a line
 *
 *   --control FIFO   more faults, while it serves: a line of them replaces those
 *                    that are waiting, an empty line is none
 *   --simple         no structured replies
 *   --multi-conn     says that several connections see one and the same content
 *
 * Every message that it sends is of some kinds:
 *
 *   hello                        the first one of a connection
 *   option                       a reply to an option; of these, too:
 *   info, blocks                   the export's size and flags; its block sizes
 *   reply, chunk                 a simple reply; a chunk of a structured one; too:
 *   data, hole, end                such chunks
 *   read, write, flush, other      either, by the request that it answers
 *
 * A FAULT is one of
 *
 *   cut:KIND+BYTES      so many bytes of the message are sent, then the connection ends
 *   hang:KIND+BYTES     so many bytes are sent, and never anything more on it
 *   garbage:KIND+BYTES  so many bytes are sent, then random ones in place of the rest
 *   NAME                a name of the tables below: a field is changed in a message,
 *                       or a request is answered as it must not be
 *
 * with @N at its end where it is not the next such message (or request) that is
 * meant but the N-th from now, and with @all where it is each.  Once is all that it
 * happens without that: "fired FAULT" is then written to stdout, and what comes
 * after it, new connections too, is served as it should be.  Where a client cannot
 * know any more where a message ends, nothing more is said on that connection.
 *
 * A request that a client has given up by closing its connection is not done any
 * more, so that no old write can come after a newer one.
 */
#include "tests/lib/nbd-protocol.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REP_ACK       1u
#define REP_SERVER    2u
#define REP_INFO      3u
#define REP_ERR_UNSUP 0x80000001u
#define INFO_EXPORT   0u
#define INFO_BLOCKS   3u
#define EXPORT_FLAGS  0x006du /* flags, flush, FUA, trim, zeroes; not DF */
#define CAN_MULTI     0x0100u

#define CMD_FLAG_FUA 1u
#define CHUNK_DONE   1u
#define CHUNK_END    0u
#define CHUNK_DATA   1u
#define CHUNK_HOLE   2u
#define CHUNK_ERROR  0x8001u
#define DATA_MOST    (32u << 20)

/* ---- kinds of messages ---- */

enum kind {
	HELLO = 1 << 0,
	OPTION = 1 << 1,
	INFO = 1 << 2,
	BLOCKS = 1 << 3,
	REPLY = 1 << 4,
	CHUNK = 1 << 5,
	DATA = 1 << 6,
	HOLE = 1 << 7,
	END = 1 << 8,
	READ = 1 << 9,
	WRITE = 1 << 10,
	FLUSH = 1 << 11,
	OTHER = 1 << 12,
};

static const struct {
	const char *name;
	unsigned kind;
} kinds[] = {
	{ "hello", HELLO }, { "option", OPTION }, { "info", INFO },   { "blocks", BLOCKS },
	{ "reply", REPLY }, { "chunk", CHUNK },   { "data", DATA },   { "hole", HOLE },
	{ "end", END },     { "read", READ },     { "write", WRITE }, { "flush", FLUSH },
	{ "other", OTHER },
};

/* ---- faults that have names ---- */

/* A field of a message is overwritten. */
static const struct patch {
	const char *name;
	unsigned kind;
	unsigned at, size;
	uint64_t value;
	bool lost; /* where the message ends cannot be known any more */
} patches[] = {
	{ "hello-magic", HELLO, 0, 8, HELLO_MAGIC + 1, true },
	{ "hello-option-magic", HELLO, 8, 8, OPTION_MAGIC + 1, true },
	{ "hello-oldstyle", HELLO, 8, 8, 0x0000420281861253ull, true },
	{ "option-magic", OPTION, 0, 8, ANSWER_MAGIC + 1, true },
	{ "option-other", OPTION, 8, 4, 99, false },
	{ "option-type", OPTION, 12, 4, 0x7fff, false },
	{ "option-error", OPTION, 12, 4, 0x80007fff, false },
	{ "option-length", OPTION, 16, 4, 0xffffffff, true },
	{ "info-type", INFO, 20, 2, 0x7777, false },
	{ "info-short", INFO, 16, 4, 2, true },
	{ "info-long", INFO, 16, 4, 4096, true },
	{ "size-zero", INFO, 22, 8, 0, false },
	{ "size-one", INFO, 22, 8, 1, false },
	{ "size-huge", INFO, 22, 8, 0x8000000000000000ull, false },
	{ "size-negative", INFO, 22, 8, 0xfffffffffffffe00ull, false },
	{ "flags-none", INFO, 30, 2, 0, false },
	{ "flags-all", INFO, 30, 2, 0xffff, false },
	{ "blocks-zero", BLOCKS, 22, 4, 0, false },
	{ "blocks-odd", BLOCKS, 22, 4, 3, false },
	{ "blocks-huge", BLOCKS, 22, 4, 0x80000000, false },
	{ "blocks-preferred-zero", BLOCKS, 26, 4, 0, false },
	{ "blocks-preferred-odd", BLOCKS, 26, 4, 4097, false },
	{ "blocks-most-zero", BLOCKS, 30, 4, 0, false },
	{ "blocks-most-small", BLOCKS, 30, 4, 1, false },
	{ "reply-magic", REPLY, 0, 4, REPLY_MAGIC + 1, true },
	{ "reply-cookie", REPLY, 8, 8, 0xdeadbeefdeadbeefull, true },
	{ "chunk-magic", CHUNK, 0, 4, CHUNK_MAGIC + 1, true },
	{ "chunk-flags", CHUNK, 4, 2, 0xffff, false },
	{ "chunk-type", CHUNK, 6, 2, 0x77, false },
	{ "chunk-error-type", CHUNK, 6, 2, 0x8077, false },
	{ "chunk-cookie", CHUNK, 8, 8, 0xdeadbeefdeadbeefull, false },
	{ "chunk-length", CHUNK, 16, 4, 0xffffffff, true },
	{ "data-length", DATA, 16, 4, 64u << 20, true },
	{ "data-short", DATA, 16, 4, 4, true },
	{ "data-before", DATA, 20, 8, 0xfffffffffffff000ull, false },
	{ "data-after", DATA, 20, 8, 1ull << 62, false },
	{ "hole-before", HOLE, 20, 8, 0xfffffffffffff000ull, false },
	{ "hole-after", HOLE, 20, 8, 1ull << 62, false },
	{ "hole-long", HOLE, 28, 4, 0xffffffff, false },
	{ "hole-empty", HOLE, 28, 4, 0, false },
	{ "end-long", END, 16, 4, 8, true },
};

/* A request, or an option, is answered in another way. */
enum way {
	WAY_RIGHT,
	WAY_NO_INFO,
	WAY_TWO_INFOS,
	WAY_REFUSED,
	WAY_SILENT,
	WAY_TWICE,
	WAY_ERROR,
	WAY_ERROR_LONG,
	WAY_ERROR_ESCAPES,
	WAY_MISSING,
	WAY_OVERLAP,
	WAY_ACROSS,
	WAY_NO_END,
	WAY_TWO_ENDS,
	WAY_EMPTY,
	WAY_DATA_FOR_WRITE,
	WAY_SIMPLE_FOR_READ,
};

static const struct wayward {
	const char *name;
	unsigned kind;
	enum way way;
	uint32_t value;
} waywards[] = {
	{ "no-info", OPTION, WAY_NO_INFO, 0 },     /* the export is accepted and not described */
	{ "two-infos", OPTION, WAY_TWO_INFOS, 0 }, /* it is, as two different ones */
	{ "refused", OPTION, WAY_REFUSED, 0x80000002u }, /* by policy, in words with escapes */
	{ "shut-down", OPTION, WAY_REFUSED, 0x80000007u },
	{ "silent-read", READ, WAY_SILENT, 0 }, /* this one request is never answered */
	{ "silent-write", WRITE, WAY_SILENT, 0 },
	{ "silent-flush", FLUSH, WAY_SILENT, 0 },
	{ "twice-read", READ, WAY_TWICE, 0 }, /* the whole answer comes again */
	{ "twice-write", WRITE, WAY_TWICE, 0 },
	{ "twice-flush", FLUSH, WAY_TWICE, 0 },
	{ "errno-read", READ, WAY_ERROR, 12345 }, /* an error that has no such number */
	{ "errno-write", WRITE, WAY_ERROR, 12345 },
	{ "errno-flush", FLUSH, WAY_ERROR, 12345 },
	{ "errno-huge", READ, WAY_ERROR, 0x80000005u },
	{ "errno-zero", READ, WAY_ERROR, 0 },      /* an error that is none */
	{ "error-long", READ, WAY_ERROR_LONG, 5 }, /* its words are said to be longer than it */
	{ "error-escapes", READ, WAY_ERROR_ESCAPES, 5 },
	{ "missing-read", READ, WAY_MISSING,
	  0 }, /* the answer ends, half of the data is not there */
	{ "overlap-read", READ, WAY_OVERLAP, 0 }, /* one half of it comes twice instead */
	{ "across-read", READ, WAY_ACROSS, 0 },   /* a chunk begins in the range, and ends behind */
	{ "endless-read", READ, WAY_NO_END, 0 },  /* the last chunk is never said to be it */
	{ "two-ends-read", READ, WAY_TWO_ENDS, 0 }, /* and here two are */
	{ "empty-read", READ, WAY_EMPTY, 0 },       /* chunks without data in between */
	{ "data-for-write", WRITE, WAY_DATA_FOR_WRITE, 0 },
	{ "simple-for-read", READ, WAY_SIMPLE_FOR_READ, 0 }, /* though replies are structured */
};

/* ---- the faults that are waiting ---- */

enum act {
	ACT_CUT,
	ACT_HANG,
	ACT_GARBAGE,
	ACT_PATCH,
	ACT_WAY,
};

struct fault {
	char name[64];
	enum act act;
	unsigned kind;
	unsigned at; /* of a cut and the like */
	const struct patch *patch;
	const struct wayward *wayward;
	uint64_t left; /* such messages until it happens; 0: it is over */
	bool always;
};

#define FAULTS 16

/* Owner of all of it: lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault faults[FAULTS];
static unsigned nr_faults;

static struct {
	const char *control;
	bool simple, multi_conn;
	uint64_t size;
	int file;
} set;

static __attribute__((format(printf, 1, 2))) void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("nbd-fault: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

/* KIND+BYTES */
static bool parse_place(struct fault *f, const char *text)
{
	const char *plus = strchr(text, '+');
	char *end;

	if (!plus)
		return false;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strncmp(kinds[i].name, text, (size_t)(plus - text)) &&
		    strlen(kinds[i].name) == (size_t)(plus - text))
			f->kind = kinds[i].kind;
	f->at = (unsigned)strtoul(plus + 1, &end, 10);
	return f->kind && end != plus + 1 && !*end;
}

static bool parse_name(struct fault *f, const char *name)
{
	for (size_t i = 0; i < sizeof(patches) / sizeof(*patches); i++)
		if (!strcmp(patches[i].name, name)) {
			f->act = ACT_PATCH;
			f->kind = patches[i].kind;
			f->patch = &patches[i];
			return true;
		}
	for (size_t i = 0; i < sizeof(waywards) / sizeof(*waywards); i++)
		if (!strcmp(waywards[i].name, name)) {
			f->act = ACT_WAY;
			f->kind = waywards[i].kind;
			f->wayward = &waywards[i];
			return true;
		}
	return false;
}

static bool parse_fault(struct fault *f, const char *word)
{
	static const struct {
		const char *name;
		enum act act;
	} acts[] = { { "cut:", ACT_CUT }, { "hang:", ACT_HANG }, { "garbage:", ACT_GARBAGE } };
	char copy[64], *at, *end;

	*f = (struct fault){ .left = 1 };
	snprintf(f->name, sizeof(f->name), "%s", word);
	snprintf(copy, sizeof(copy), "%s", word);
	at = strchr(copy, '@');
	if (at) {
		*at++ = 0;
		f->always = !strcmp(at, "all");
		f->left = f->always ? 1 : strtoull(at, &end, 10);
		if (!f->always && (end == at || *end || !f->left))
			return false;
	}
	for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++)
		if (!strncmp(acts[i].name, copy, strlen(acts[i].name))) {
			f->act = acts[i].act;
			return parse_place(f, copy + strlen(acts[i].name));
		}
	return parse_name(f, copy);
}

/* A line of faults in place of those that wait; false where one is none. */
static bool arm(char *line)
{
	struct fault new[FAULTS];
	unsigned n = 0;
	char *word;

	while ((word = strsep(&line, " \n")))
		if (*word && (n == FAULTS || !parse_fault(&new[n++], word))) {
			fprintf(stderr, "nbd-fault: '%s': no such fault, or too many\n", word);
			return false;
		}
	pthread_mutex_lock(&lock);
	memcpy(faults, new, n * sizeof(*new));
	nr_faults = n;
	say("armed");
	pthread_mutex_unlock(&lock);
	return true;
}

/*
 * Counts a message (or with `way` a request) of these kinds; true if a fault is to
 * happen to it, which is copied: the first one, the others have counted it too.
 */
static bool due(unsigned of, bool way, struct fault *found)
{
	bool any = false;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < nr_faults; i++) {
		struct fault *f = &faults[i];

		if (!f->left || !(f->kind & of) || (f->act == ACT_WAY) != way)
			continue;
		if (f->left > 1) {
			f->left--;
			continue;
		}
		if (any)
			continue;
		any = true;
		*found = *f;
		if (!f->always)
			f->left = 0;
		say("fired %s", f->name);
	}
	pthread_mutex_unlock(&lock);
	return any;
}

/* ---- one connection ---- */

struct client {
	int fd;
	bool structured, no_zeroes;
	uint8_t *data; /* DATA_MOST bytes */
};

static bool receive(struct client *c, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(c->fd, (char *)to + done, size - done, 0);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool transmit(struct client *c, const void *from, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(c->fd, (const char *)from + done, size - done, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* Nothing more is said; false once the client has closed. */
static bool be_silent(struct client *c)
{
	while (recv(c->fd, c->data, DATA_MOST, 0) > 0)
		;
	return false;
}

static bool transmit_garbage(struct client *c, uint64_t state)
{
	uint64_t words[128];

	for (size_t i = 0; i < 128; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		words[i] = state ^ state >> 29;
	}
	return transmit(c, words, sizeof(words)) && be_silent(c);
}

static void put(uint8_t *to, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static bool damage(struct client *c, const struct fault *f, uint8_t *message, size_t size)
{
	size_t at = f->at < size ? f->at : size;

	switch (f->act) {
	case ACT_CUT:
		transmit(c, message, at);
		return false;
	case ACT_HANG:
		return transmit(c, message, at) && be_silent(c);
	case ACT_GARBAGE:
		return transmit(c, message, at) && transmit_garbage(c, f->at + f->kind);
	default:
		if (f->patch->at + f->patch->size <= size)
			put(message + f->patch->at, f->patch->value, f->patch->size);
		if (!transmit(c, message, size))
			return false;
		return !f->patch->lost || be_silent(c);
	}
}

/* Each message goes out here; false where the connection is over. */
static bool send_message(struct client *c, unsigned of, const void *head, size_t head_size,
			 const void *body, size_t body_size)
{
	size_t size = head_size + body_size;
	uint8_t *message = malloc(size + 1);
	struct fault f;
	bool ok;

	if (!message)
		return false;
	memcpy(message, head, head_size);
	if (body_size)
		memcpy(message + head_size, body, body_size);
	if (due(of, false, &f))
		ok = damage(c, &f, message, size);
	else
		ok = transmit(c, message, size);
	free(message);
	return ok;
}

/* ---- negotiation ---- */

static bool send_option(struct client *c, unsigned of, uint32_t option, uint32_t type,
			const void *body, size_t size)
{
	uint8_t head[20];

	put(head, ANSWER_MAGIC, 8);
	put(head + 8, option, 4);
	put(head + 12, type, 4);
	put(head + 16, size, 4);
	return send_message(c, OPTION | of, head, sizeof(head), body, size);
}

static uint16_t export_flags(void)
{
	return (uint16_t)(EXPORT_FLAGS | (set.multi_conn ? CAN_MULTI : 0));
}

static bool send_info(struct client *c, uint32_t option, uint64_t size)
{
	uint8_t body[12];

	put(body, INFO_EXPORT, 2);
	put(body + 2, size, 8);
	put(body + 10, export_flags(), 2);
	return send_option(c, INFO, option, REP_INFO, body, sizeof(body));
}

static bool answer_go(struct client *c, uint32_t option)
{
	static const char words[] = "\033]0;not today\007\033[31m\r\nno";
	struct fault f = { 0 };
	enum way way = due(OPTION, true, &f) ? f.wayward->way : WAY_RIGHT;
	uint8_t blocks[14];

	if (way == WAY_REFUSED)
		return send_option(c, 0, option, f.wayward->value, words, sizeof(words) - 1);
	put(blocks, INFO_BLOCKS, 2);
	put(blocks + 2, 1, 4);
	put(blocks + 6, 4096, 4);
	put(blocks + 10, DATA_MOST, 4);
	if (way != WAY_NO_INFO && !send_info(c, option, set.size))
		return false;
	if (way == WAY_TWO_INFOS && !send_info(c, option, set.size / 2))
		return false;
	return send_option(c, BLOCKS, option, REP_INFO, blocks, sizeof(blocks)) &&
	       send_option(c, 0, option, REP_ACK, NULL, 0);
}

static bool answer_export_name(struct client *c)
{
	uint8_t body[134] = { 0 };

	put(body, set.size, 8);
	put(body + 8, export_flags(), 2);
	return send_message(c, OPTION, body, c->no_zeroes ? 10 : sizeof(body), NULL, 0);
}

/* Until the client goes over to its requests. */
static bool negotiate(struct client *c)
{
	uint8_t hello[18], head[16];

	put(hello, HELLO_MAGIC, 8);
	put(hello + 8, OPTION_MAGIC, 8);
	put(hello + 16, 3, 2);
	if (!send_message(c, HELLO, hello, sizeof(hello), NULL, 0) || !receive(c, head, 4))
		return false;
	c->no_zeroes = head[3] & 2;
	while (receive(c, head, sizeof(head))) {
		static const uint8_t name[5] = { 0, 0, 0, 1, 'x' };
		uint32_t option, length;
		uint64_t magic;

		memcpy(&magic, head, 8);
		memcpy(&option, head + 8, 4);
		memcpy(&length, head + 12, 4);
		option = be32toh(option);
		length = be32toh(length);
		if (be64toh(magic) != OPTION_MAGIC || length > DATA_MOST ||
		    !receive(c, c->data, length))
			return false;
		switch (option) {
		case OPT_EXPORT_NAME:
			return answer_export_name(c);
		case OPT_ABORT:
			send_option(c, 0, option, REP_ACK, NULL, 0);
			return false;
		case OPT_LIST:
			if (!send_option(c, 0, option, REP_SERVER, name, sizeof(name)) ||
			    !send_option(c, 0, option, REP_ACK, NULL, 0))
				return false;
			break;
		case OPT_INFO:
		case OPT_GO:
			if (!answer_go(c, option))
				return false;
			if (option == OPT_GO)
				return true;
			break;
		case OPT_STRUCTURED_REPLY:
			c->structured = !set.simple;
			if (!send_option(c, 0, option, set.simple ? REP_ERR_UNSUP : REP_ACK, NULL,
					 0))
				return false;
			break;
		case OPT_LIST_META_CONTEXT:
		case OPT_SET_META_CONTEXT:
			if (!send_option(c, 0, option, REP_ACK, NULL, 0))
				return false;
			break;
		default:
			if (!send_option(c, 0, option, REP_ERR_UNSUP, NULL, 0))
				return false;
		}
	}
	return false;
}

/* ---- requests ---- */

struct request {
	unsigned kind; /* READ and on */
	uint16_t flags, type;
	uint64_t cookie; /* as it came */
	uint64_t offset;
	uint32_t length;
};

static bool send_reply(struct client *c, const struct request *r, uint32_t error, const void *data,
		       size_t size)
{
	uint8_t head[16];

	put(head, REPLY_MAGIC, 4);
	put(head + 4, error, 4);
	memcpy(head + 8, &r->cookie, 8);
	return send_message(c, REPLY | r->kind, head, sizeof(head), data, size);
}

static bool send_chunk(struct client *c, const struct request *r, unsigned of, bool last,
		       unsigned type, const void *head, size_t head_size, const void *data,
		       size_t size)
{
	uint8_t all[64];

	put(all, CHUNK_MAGIC, 4);
	put(all + 4, last ? CHUNK_DONE : 0, 2);
	put(all + 6, type, 2);
	memcpy(all + 8, &r->cookie, 8);
	put(all + 16, head_size + size, 4);
	memcpy(all + 20, head, head_size);
	return send_message(c, CHUNK | of | r->kind, all, 20 + head_size, data, size);
}

static bool send_end(struct client *c, const struct request *r)
{
	return send_chunk(c, r, END, true, CHUNK_END, "", 0, NULL, 0);
}

static bool send_data(struct client *c, const struct request *r, uint64_t offset, const void *data,
		      size_t size)
{
	uint8_t head[8];

	put(head, offset, 8);
	return send_chunk(c, r, DATA, false, CHUNK_DATA, head, sizeof(head), data, size);
}

static bool is_zero(const uint8_t *data, size_t size)
{
	return size && !data[0] && !memcmp(data, data + 1, size - 1);
}

/* A part of a read's answer. */
static bool send_part(struct client *c, const struct request *r, size_t at, size_t size)
{
	uint8_t head[12];

	if (!is_zero(c->data + at, size))
		return send_data(c, r, r->offset + at, c->data + at, size);
	put(head, r->offset + at, 8);
	put(head + 8, size, 4);
	return send_chunk(c, r, HOLE, false, CHUNK_HOLE, head, sizeof(head), NULL, 0);
}

static bool send_error(struct client *c, const struct request *r, uint32_t error, const char *words,
		       size_t length)
{
	uint8_t head[6];

	if (!c->structured)
		return send_reply(c, r, error, NULL, 0);
	put(head, error, 4);
	put(head + 4, length, 2);
	return send_chunk(c, r, 0, true, CHUNK_ERROR, head, sizeof(head), words, strlen(words));
}

/* The reply to a read, in two chunks and an end. */
static bool answer_read(struct client *c, const struct request *r, enum way way)
{
	size_t half = r->length / 2;

	if (way == WAY_SIMPLE_FOR_READ || !c->structured)
		return send_reply(c, r, 0, c->data, way == WAY_MISSING ? half : r->length) &&
		       (way != WAY_MISSING || be_silent(c));
	if (way == WAY_EMPTY)
		for (unsigned i = 0; i < 100; i++)
			if (!send_data(c, r, r->offset, NULL, 0))
				return false;
	if (way == WAY_ACROSS && !send_data(c, r, r->offset + half, c->data, r->length))
		return false;
	if (half && !send_part(c, r, 0, half))
		return false;
	if (way == WAY_OVERLAP && !send_part(c, r, 0, half))
		return false;
	if (way != WAY_MISSING && way != WAY_OVERLAP && !send_part(c, r, half, r->length - half))
		return false;
	if (way == WAY_TWO_ENDS && !send_end(c, r))
		return false;
	return way == WAY_NO_END || send_end(c, r);
}

static bool answer(struct client *c, const struct request *r, enum way way)
{
	if (way == WAY_DATA_FOR_WRITE && c->structured &&
	    !send_data(c, r, r->offset, c->data, r->length))
		return false;
	if (r->type == CMD_READ)
		return answer_read(c, r, way);
	return c->structured ? send_end(c, r) : send_reply(c, r, 0, NULL, 0);
}

/* Whether the client has closed: then it may have sent all this again elsewhere. */
static bool has_left(const struct client *c)
{
	struct pollfd fd = { .fd = c->fd, .events = POLLRDHUP };

	return poll(&fd, 1, 0) != 0 && fd.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* On the file.  Returns an errno of the protocol's, which are Linux's here. */
static uint32_t do_request(struct client *c, const struct request *r)
{
	static const uint8_t zeroes[1 << 16];
	ssize_t n;

	if (r->type != CMD_FLUSH && (r->offset > set.size || r->length > set.size - r->offset))
		return EINVAL;
	switch (r->type) {
	case CMD_READ:
		n = pread(set.file, c->data, r->length, (off_t)r->offset);
		return n == (ssize_t)r->length ? 0 : EIO;
	case CMD_WRITE:
		n = pwrite(set.file, c->data, r->length, (off_t)r->offset);
		if (n != (ssize_t)r->length)
			return EIO;
		return r->flags & CMD_FLAG_FUA && fdatasync(set.file) ? EIO : 0;
	case CMD_FLUSH:
		return fdatasync(set.file) ? EIO : 0;
	case CMD_TRIM:
		return 0;
	case CMD_ZEROES:
		for (uint32_t at = 0; at < r->length; at += (uint32_t)n) {
			uint32_t left = r->length - at;

			n = pwrite(set.file, zeroes, left < sizeof(zeroes) ? left : sizeof(zeroes),
				   (off_t)(r->offset + at));
			if (n <= 0)
				return EIO;
		}
		return 0;
	}
	return EINVAL;
}

static bool serve_request(struct client *c, const struct request *r)
{
	static const char escapes[] = "\033]0;broken\007\033[31m\r\nno";
	struct fault f = { 0 };
	enum way way = due(r->kind, true, &f) ? f.wayward->way : WAY_RIGHT;
	uint32_t error;
	bool left;

	pthread_mutex_lock(&lock);
	left = has_left(c);
	error = left ? EIO : do_request(c, r);
	pthread_mutex_unlock(&lock);
	if (left)
		return false;
	if (error)
		return send_error(c, r, error, "no", 2);
	switch (way) {
	case WAY_SILENT:
		return true;
	case WAY_ERROR:
		return send_error(c, r, f.wayward->value, "no", 2);
	case WAY_ERROR_LONG:
		return send_error(c, r, f.wayward->value, "no", 0xfff0);
	case WAY_ERROR_ESCAPES:
		return send_error(c, r, f.wayward->value, escapes, sizeof(escapes) - 1);
	case WAY_TWICE:
		return answer(c, r, way) && answer(c, r, way);
	default:
		return answer(c, r, way);
	}
}

static bool receive_request(struct client *c, struct request *r)
{
	uint8_t head[28];
	uint32_t magic;

	if (!receive(c, head, sizeof(head)))
		return false;
	memcpy(&magic, head, 4);
	memcpy(&r->flags, head + 4, 2);
	memcpy(&r->type, head + 6, 2);
	memcpy(&r->cookie, head + 8, 8);
	memcpy(&r->offset, head + 16, 8);
	memcpy(&r->length, head + 24, 4);
	r->flags = be16toh(r->flags);
	r->type = be16toh(r->type);
	r->offset = be64toh(r->offset);
	r->length = be32toh(r->length);
	r->kind = r->type == CMD_READ    ? READ
		  : r->type == CMD_WRITE ? WRITE
		  : r->type == CMD_FLUSH ? FLUSH
					 : OTHER;
	if (be32toh(magic) != REQUEST_MAGIC || r->type == CMD_DISCONNECT)
		return false;
	/* A client that asks for more than it was told it may is not helped. */
	if ((r->kind & (READ | WRITE)) && r->length > DATA_MOST)
		return false;
	return r->type != CMD_WRITE || receive(c, c->data, r->length);
}

static void *serve_client(void *arg)
{
	struct client *c = arg;
	struct request r;

	if (c->data && negotiate(c))
		while (receive_request(c, &r) && serve_request(c, &r))
			;
	close(c->fd);
	free(c->data);
	free(c);
	return NULL;
}

/* ---- the whole ---- */

static void accept_client(int listener)
{
	struct client *c = calloc(1, sizeof(*c));
	pthread_t thread;

	if (!c)
		die("no memory");
	c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	c->data = malloc(DATA_MOST);
	if (c->fd < 0) {
		free(c->data);
		free(c);
	} else if (pthread_create(&thread, NULL, serve_client, c)) {
		die("a thread cannot be started");
	} else {
		pthread_detach(thread);
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die("%s: too long a name for a socket", path);
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 64))
		die("%s: %s", path, strerror(errno));
	return fd;
}

/* Lines that come whole are armed. */
static void read_control(int fd)
{
	static char line[4096];
	static size_t length;
	char *end;
	ssize_t n = read(fd, line + length, sizeof(line) - 1 - length);

	if (n <= 0)
		die("%s: %s", set.control,
		    n ? strerror(errno) : "it has ended, or a line is too long");
	length += (size_t)n;
	line[length] = 0;
	while ((end = strchr(line, '\n'))) {
		size_t taken = (size_t)(end - line) + 1;

		*end = 0;
		if (!arm(line))
			say("refused");
		memmove(line, line + taken, length - taken + 1);
		length -= taken;
	}
}

static void list_faults(void)
{
	for (size_t i = 0; i < sizeof(patches) / sizeof(*patches); i++)
		say("%s", patches[i].name);
	for (size_t i = 0; i < sizeof(waywards) / sizeof(*waywards); i++)
		say("%s", waywards[i].name);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		say("cut:%s+BYTES hang:%s+BYTES garbage:%s+BYTES", kinds[i].name, kinds[i].name,
		    kinds[i].name);
}

static void open_file(const char *path)
{
	struct stat st;

	set.file = open(path, O_RDWR | O_CLOEXEC);
	if (set.file < 0 || fstat(set.file, &st))
		die("%s: %s", path, strerror(errno));
	set.size = (uint64_t)st.st_size;
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "control", required_argument, NULL, 'c' },
		{ "simple", no_argument, NULL, 's' },
		{ "multi-conn", no_argument, NULL, 'm' },
		{ "list", no_argument, NULL, 'l' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'c':
			set.control = optarg;
			break;
		case 's':
			set.simple = true;
			break;
		case 'm':
			set.multi_conn = true;
			break;
		case 'l':
			list_faults();
			exit(0);
		default:
			die("unknown option: see the head of nbd-fault.c");
		}
	if (argc - optind < 2)
		die("usage: nbd-fault [OPTIONS] SOCKET FILE [FAULT...]");
}

int main(int argc, char **argv)
{
	struct pollfd fds[2] = { { .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	char words[4096] = "";

	parse_options(argc, argv);
	for (int i = optind + 2; i < argc; i++)
		snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s ", argv[i]);
	if (!arm(words))
		return 2;
	signal(SIGPIPE, SIG_IGN);
	open_file(argv[optind + 1]);
	/* For writing too, so that it does not end with its writer. */
	if (set.control && (fds[1].fd = open(set.control, O_RDWR | O_CLOEXEC)) < 0)
		die("%s: %s", set.control, strerror(errno));
	fds[0].fd = listen_at(argv[optind]);
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (fds[0].revents & POLLIN)
			accept_client(fds[0].fd);
		if (fds[1].revents & POLLIN)
			read_control(fds[1].fd);
	}
}
