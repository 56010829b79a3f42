/* SPDX-License-Identifier: MIT */
/*
 * A server's list of exports, as `ublkctl nbd-list` asks for it: a libFuzzer target.
 *
 *   fuzz-list [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-list --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * An input is what the server sends, whatever it is asked, until it closes the
 * connection: so nothing waits, and an input needs no time-out.  Each part of the
 * input is a byte (enum kind; the high half: how an option's length lies) and what
 * that kind takes.
 *
 * Whatever the server sends: no sanitizer's report; and either the list is refused with
 * one line, or each export has a name, and a list of abilities that ends.
 */
#include "backends/nbd/list.h"
#include "engine/host_local.h"
#include "common/log.h"
#include "engine/spec.h"
#include "tests/fuzz/seeds.h"

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NBD protocol, "Newstyle negotiation" and "Option types". */
#define OPTION_MAGIC 0x3e889045565a9ull
enum option {
	OPTION_LIST = 3,
	OPTION_INFO = 6,
	OPTION_STRUCTURED = 8,
};
enum reply {
	REPLY_ACK = 1,
	REPLY_SERVER = 2,
	REPLY_INFO = 3,
};

enum kind {
	KIND_GREETING, /* of a newstyle server; 1 byte: its flags */
	KIND_REPLY,    /* 1 byte: option; 1 byte: reply, the highest bit: an error; 1 byte: length
			* of the payload, which follows */
	KIND_SERVER,   /* a reply to LIST; 1 byte: length of the name; 1 byte: of all behind it */
	KIND_BYTES,    /* 1 byte: how many follow, which are sent as they are */
	KINDS
};

#define SENT_MAX (64u << 10) /* a socket takes it at once, whether somebody reads or not */

static uint8_t sent[SENT_MAX];
static size_t nr_sent;
static int server = -1;

static void broken(const char *what)
{
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

/* ---- the server ---- */

static void put(const void *data, size_t size)
{
	if (size > SENT_MAX - nr_sent)
		size = SENT_MAX - nr_sent;
	memcpy(sent + nr_sent, data, size);
	nr_sent += size;
}

static void put_number(uint64_t number, unsigned bytes)
{
	uint8_t data[8];

	for (unsigned i = 0; i < bytes; i++)
		data[i] = (uint8_t)(number >> 8 * (bytes - 1 - i));
	put(data, bytes);
}

/* Lengths that lie. */
static uint32_t lie(unsigned how, uint32_t length)
{
	static const uint32_t lies[] = { 0, 1, 3, 4, 5, 8192, 8196, 8197, 0x7fffffff, 0xffffffff };

	if (!how)
		return length;
	return how <= sizeof(lies) / sizeof(*lies) ? lies[how - 1] : length + how - 13;
}

struct input {
	const uint8_t *data;
	size_t size;
};

static unsigned next(struct input *in)
{
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

static void put_next(struct input *in, size_t size)
{
	if (size > in->size)
		size = in->size;
	put(in->data, size);
	in->data += size;
	in->size -= size;
}

static void put_part(struct input *in)
{
	unsigned first = next(in), how = first >> 4, option, reply, length;

	switch ((enum kind)(first % KINDS)) {
	case KIND_GREETING:
		put("NBDMAGICIHAVEOPT", 16);
		put_number(next(in), 2);
		break;
	case KIND_REPLY:
		option = next(in);
		reply = next(in);
		length = next(in);
		put_number(OPTION_MAGIC, 8);
		put_number(option, 4);
		put_number((reply & 0x80) << 24 | (reply & 0x7f), 4);
		put_number(lie(how, length), 4);
		put_next(in, length);
		break;
	case KIND_SERVER:
		option = next(in);
		length = next(in);
		put_number(OPTION_MAGIC, 8);
		put_number(OPTION_LIST, 4);
		put_number(REPLY_SERVER, 4);
		put_number(4 + length, 4);
		put_number(lie(how, option), 4);
		put_next(in, length);
		break;
	default:
		put_next(in, next(in));
	}
}

/* The host of the backend: the connection is to a server that has said all already. */
static int connect_server(const struct instance *instance, const char *name)
{
	int pair[2];

	(void)instance;
	(void)name;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		broken("no connection");
	if (send(pair[1], sent, nr_sent, MSG_NOSIGNAL) != (ssize_t)nr_sent)
		broken("a server that cannot send");
	shutdown(pair[1], SHUT_WR);
	if (server >= 0)
		close(server);
	server = pair[1]; /* what it is asked goes there, and is not read */
	return pair[0];
}

/*
 * libnbd 1.14 takes 4 from the length of a reply to LIST that names an export, and does
 * not look whether that is less than 4: it writes a zero byte 4 GiB behind its handle.
 * That is libnbd's to mend (docs/security.md), and would end each run at once.
 */
static bool crashes_libnbd(void)
{
	static const uint8_t start[] = {
		0x00, 0x03,        0xe8, 0x89, 0x04, 0x55,         0x65, 0xa9, 0, 0,
		0,    OPTION_LIST, 0,    0,    0,    REPLY_SERVER, 0,    0,    0
	};
	const uint8_t *at = sent, *end = sent + nr_sent;

	while ((at = memmem(at, (size_t)(end - at), start, sizeof(start)))) {
		at += sizeof(start);
		if (at < end && *at < 4)
			return true;
	}
	return false;
}

/* ---- the list ---- */

static void found(void *context, const struct backend_found *f)
{
	size_t bytes = 0;

	(void)context;
	if (!f->name)
		broken("an export without a name");
	bytes += strlen(f->name) + (f->description ? strlen(f->description) : 0);
	for (const char *const *a = f->abilities; *a; a++)
		bytes += strlen(*a);
	if (f->refused && (!*f->refused || strchr(f->refused, '\n')))
		broken("a refusal that is not one line");
	if (bytes > SENT_MAX)
		broken("a name that the server has not sent");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct backend_host host = host_here;
	struct spec spec;
	struct instance instance;
	struct error err = { 0 };

	nr_sent = 0;
	while (in.size)
		put_part(&in);
	if (crashes_libnbd())
		return 0;
	if (spec_open(&spec, "nbd+unix:///?socket=/server", &err))
		broken(err.text);
	spec_to_instance(&spec, &instance);
	host.connect_unix = connect_server;
	instance.host = &host;
	if (spec.backend->list(&instance, found, NULL, &err) &&
	    (!err.code || !*err.text || strchr(err.text, '\n')))
		broken("a refusal that is not one line");
	spec_close(&spec);
	return 0;
}

/* ---- its start ---- */

#define GREETING        "\x00\x03"
#define STRUCTURED      "\x01\x08\x01\x00"
#define SERVER          "\x02\x01\x01x"
#define SERVER_WITH     "\x02\x01\x04xtext"
#define LIST_DONE       "\x01\x03\x01\x00"
#define INFO            "\x01\x06\x03\x0c\0\0\0\0\0\0\0\x10\0\0\0\x01"
#define INFO_BLOCKS     "\x01\x06\x03\x0e\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"
#define INFO_DONE       "\x01\x06\x01\x00"
#define INFO_REFUSED    "\x01\x06\x86\x02no"
#define LIST_REFUSED    "\x01\x03\x82\x02no"
#define NAME_OF_8192    "\x72\x01\x01x"
#define OLD_STYLE       "\x03\x10NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"
#define WITHOUT_ZERO(s) (s), sizeof(s) - 1

static void write_seeds(const char *where)
{
	static const struct {
		const char *data;
		size_t size;
	} seeds[] = {
		{ WITHOUT_ZERO(GREETING STRUCTURED LIST_DONE) },
		{ WITHOUT_ZERO(GREETING STRUCTURED SERVER LIST_DONE INFO INFO_BLOCKS INFO_DONE) },
		{ WITHOUT_ZERO(GREETING STRUCTURED SERVER SERVER_WITH LIST_DONE INFO_REFUSED INFO
				       INFO_DONE) },
		{ WITHOUT_ZERO(GREETING STRUCTURED LIST_REFUSED) },
		{ WITHOUT_ZERO(GREETING STRUCTURED SERVER NAME_OF_8192 LIST_DONE) },
		{ WITHOUT_ZERO(GREETING "\x01\x08\x81\x00" SERVER LIST_DONE INFO INFO_DONE) },
		{ WITHOUT_ZERO(OLD_STYLE) },
	};

	for (size_t i = 0; i < sizeof(seeds) / sizeof(*seeds); i++)
		seeds_write(where, seeds[i].data, seeds[i].size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);

	if (seeds) {
		write_seeds(seeds);
		exit(0);
	}
	log_setup("fuzz", LOG_LEVEL_ERROR);
	return 0;
}
