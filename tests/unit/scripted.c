/* SPDX-License-Identifier: MIT */
#include "backends/nbd/nbd.h"
#include "tests/lib/nbd-protocol.h"
#include "tests/unit/scripted.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <endian.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELD_MAX 64
/* Of an answer, for all that is not its data. */
#define ANSWER_MORE (64u << 10)

struct message {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));

struct answer {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

atomic_bool scripted_without_wire, scripted_kernel_tls;
const char *scripted_io_path = "user-copy";

static pthread_mutex_t content_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t content[SCRIPTED_SIZE];

/* flush, FUA, trim, write zeroes, multi-conn. */
#define EXPORT_FLAGS (1u | 4 | 8 | 32 | 64 | 256)

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

/* NBD protocol, "Old style negotiation". */
static bool greet_old(int fd)
{
	uint8_t hello[152] = "NBDMAGIC";
	uint64_t magic = htobe64(0x00420281861253ull), size = htobe64(SCRIPTED_SIZE);
	uint16_t flags = htobe16(EXPORT_FLAGS);

	memcpy(hello + 8, &magic, 8);
	memcpy(hello + 16, &size, 8);
	memcpy(hello + 26, &flags, 2);
	return send(fd, hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello);
}

static bool send_option(int fd, uint32_t option, uint32_t type, const uint8_t *body, uint32_t size)
{
	uint8_t message[64];

	put(message, ANSWER_MAGIC, 8);
	put(message + 8, option, 4);
	put(message + 12, type, 4);
	put(message + 16, size, 4);
	memcpy(message + 20, body, size);
	return send(fd, message, 20 + size, MSG_NOSIGNAL) == 20 + (ssize_t)size;
}

/* NBD protocol, "Fixed newstyle negotiation". */
static bool greet_new(int fd)
{
	uint8_t hello[18], head[16], body[4096], info[12] = { 0 };
	uint32_t option, length;

	put(hello, HELLO_MAGIC, 8);
	put(hello + 8, OPTION_MAGIC, 8);
	put(hello + 16, 3, 2);
	put(info + 2, SCRIPTED_SIZE, 8);
	put(info + 10, EXPORT_FLAGS, 2);
	if (send(fd, hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello) ||
	    recv(fd, head, 4, MSG_WAITALL) != 4)
		return false;
	while (recv(fd, head, sizeof(head), MSG_WAITALL) == sizeof(head)) {
		memcpy(&option, head + 8, 4);
		memcpy(&length, head + 12, 4);
		option = be32toh(option);
		length = be32toh(length);
		/* recv() of nothing would wait for something. */
		if (length > sizeof(body) ||
		    (length && recv(fd, body, length, MSG_WAITALL) != (ssize_t)length))
			return false;
		if (option == OPT_GO)
			return send_option(fd, option, 3, info, sizeof(info)) &&
			       send_option(fd, option, 1, info, 0);
		/* Nothing else is known. */
		if (!send_option(fd, option, option == OPT_STRUCTURED_REPLY ? 1 : 0x80000001u, info,
				 0))
			return false;
	}
	return false;
}

static bool send_all(int fd, const void *data, size_t size)
{
	ssize_t n;

	for (size_t done = 0; done < size; done += (size_t)n) {
		n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

/* The error that the command ends with; 0: none. */
static uint32_t error_of(struct scripted *s, const struct message *m)
{
	unsigned command = be16toh(m->type) % SCRIPTED_COMMANDS;
	atomic_uint *fails = &s->fails[command];
	unsigned left = atomic_load(fails);

	while (left)
		if (atomic_compare_exchange_weak(fails, &left, left - 1))
			return atomic_load(&s->error[command]);
	return 0;
}

static void add(struct scripted_answer *a, const void *bytes, size_t size)
{
	memcpy(a->bytes + a->size, bytes, size);
	a->size += size;
}

static void add_content(struct scripted_answer *a, uint64_t offset, uint32_t length)
{
	pthread_mutex_lock(&content_lock);
	add(a, content + offset, length);
	pthread_mutex_unlock(&content_lock);
}

void scripted_simple(struct scripted_answer *a, uint32_t error)
{
	struct answer head = { .magic = htobe32(REPLY_MAGIC), .error = htobe32(error) };

	memcpy(&head.cookie, a->cookie, 8);
	add(a, &head, sizeof(head));
}

void scripted_chunk(struct scripted_answer *a, unsigned flags, unsigned type, const void *payload,
		    uint32_t length)
{
	uint8_t head[20];

	put(head, CHUNK_MAGIC, 4);
	put(head + 4, flags, 2);
	put(head + 6, type, 2);
	memcpy(head + 8, a->cookie, 8);
	put(head + 16, length, 4);
	add(a, head, sizeof(head));
	if (payload)
		add(a, payload, length);
}

void scripted_data(struct scripted_answer *a, unsigned flags, uint32_t at, uint32_t length)
{
	uint8_t offset[8];

	put(offset, a->offset + at, 8);
	scripted_chunk(a, flags, 1, NULL, 8 + length);
	add(a, offset, sizeof(offset));
	add_content(a, a->offset + at, length);
}

void scripted_hole(struct scripted_answer *a, unsigned flags, uint32_t at, uint32_t length)
{
	uint8_t payload[12];

	put(payload, a->offset + at, 8);
	put(payload + 8, length, 4);
	scripted_chunk(a, flags, 2, payload, sizeof(payload));
}

void scripted_error(struct scripted_answer *a, unsigned flags, uint32_t error)
{
	uint8_t payload[8] = { [6] = 'n', [7] = 'o' };

	put(payload, error, 4);
	put(payload + 4, 2, 2);
	scripted_chunk(a, flags, 0x8001, payload, sizeof(payload));
}

static void answer_structured(struct scripted *s, struct scripted_answer *a, uint32_t error)
{
	void (*answer)(struct scripted_answer *) = atomic_load(&s->answer);

	if (error)
		scripted_error(a, SCRIPTED_DONE, error);
	else if (answer)
		answer(a);
	else if (a->command == SCRIPTED_READ)
		scripted_data(a, SCRIPTED_DONE, 0, a->length);
	else
		scripted_simple(a, 0);
}

static bool reply(struct scripted *s, int fd, const struct message *m)
{
	struct scripted_answer a = { .cookie = &m->cookie,
				     .command = be16toh(m->type),
				     .offset = be64toh(m->offset),
				     .length = be32toh(m->length) };
	uint32_t error = error_of(s, m);
	bool reads = !error && a.command == SCRIPTED_READ, sent;
	unsigned cut = reads ? atomic_exchange(&s->cut, 0) : 0;
	int command = be16toh(m->type);

	a.bytes = malloc(ANSWER_MORE + 2 * (size_t)(reads ? a.length : 0));
	if (s->structured) {
		answer_structured(s, &a, error);
	} else {
		scripted_simple(&a, error);
		if (reads)
			add_content(&a, a.offset, a.length);
	}
	sent = !s->again.length || send_all(fd, s->again.bytes, s->again.length);
	s->again.length = 0;
	sent = sent && send_all(fd, a.bytes, cut && cut - 1 < a.size ? cut - 1 : a.size) && !cut;
	if (sent && atomic_compare_exchange_strong(&s->twice, &command, -1)) {
		if (!atomic_load(&s->late)) {
			sent = send_all(fd, a.bytes, a.size);
		} else {
			/* Not the data of a read: the next command is none. */
			s->again.length = sizeof(struct answer);
			memcpy(s->again.bytes, a.bytes, sizeof(struct answer));
		}
	}
	free(a.bytes);
	return sent;
}

static bool take_data(int fd, const struct message *m)
{
	uint32_t length = be32toh(m->length);
	uint8_t *data = malloc(length);
	bool came = recv(fd, data, length, MSG_WAITALL) == (ssize_t)length;

	if (came) {
		pthread_mutex_lock(&content_lock);
		memcpy(content + be64toh(m->offset), data, length);
		pthread_mutex_unlock(&content_lock);
	}
	free(data);
	return came;
}

/* Whether something is to be read within 10 ms. */
static bool has_input(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 10) == 1;
}

static bool has_ended(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void serve(struct scripted *s, int fd)
{
	struct message held[HELD_MAX], m;
	unsigned nr_held = 0;

	while (!atomic_load(&s->stop)) {
		for (unsigned i = 0; i < nr_held;) {
			if (be16toh(held[i].type) == atomic_load(&s->hold)) {
				i++;
				continue;
			}
			if (!reply(s, fd, &held[i]))
				return;
			held[i] = held[--nr_held];
		}
		if (nr_held && has_ended(fd))
			return;
		if (!has_input(fd) || (nr_held && atomic_load(&s->serial)))
			continue;
		if (recv(fd, &m, sizeof(m), MSG_WAITALL) != sizeof(m))
			return;
		atomic_fetch_add(&s->requests[be16toh(m.type) % SCRIPTED_COMMANDS], 1);
		if (be16toh(m.type) == SCRIPTED_DISCONNECT)
			return;
		if (be16toh(m.type) == SCRIPTED_WRITE && !take_data(fd, &m))
			return;
		if (be16toh(m.type) == atomic_load(&s->hold) && nr_held < HELD_MAX)
			held[nr_held++] = m;
		else if (!reply(s, fd, &m))
			return;
	}
}

static bool waits_to_greet(struct scripted *s)
{
	return atomic_load(&s->mute) || (atomic_load(&s->single) && atomic_load(&s->open));
}

static void *connection_main(void *arg)
{
	struct scripted_connection *c = arg;
	struct scripted *s = c->server;

	while (!atomic_load(&s->stop) && waits_to_greet(s)) {
		if (has_input(c->fd) && has_ended(c->fd))
			goto close;
	}
	if (atomic_load(&s->stop))
		goto close;
	atomic_fetch_add(&s->open, 1);
	atomic_fetch_add(&s->greeted, 1);
	if (s->structured ? greet_new(c->fd) : greet_old(c->fd))
		serve(s, c->fd);
	atomic_fetch_sub(&s->open, 1);
	atomic_fetch_add(&s->ended, 1);
close:
	close(c->fd);
	return NULL;
}

static void *listen_main(void *arg)
{
	struct scripted *s = arg;

	while (!atomic_load(&s->stop)) {
		struct scripted_connection *c = &s->connections[s->nr];
		int fd;

		if (!has_input(s->listener))
			continue;
		fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		atomic_fetch_add(&s->accepted, 1);
		if (atomic_load(&s->rejects) || s->nr == SCRIPTED_CONNECTIONS) {
			close(fd);
			continue;
		}
		*c = (struct scripted_connection){ .server = s, .fd = fd };
		if (pthread_create(&c->thread, NULL, connection_main, c))
			close(fd);
		else
			s->nr++;
	}
	return NULL;
}

/* Weak: a conformance test of another backend alone is linked without the nbd backend. */
__attribute__((weak)) bool __real_nbd_wire_fits(const struct nbd_connection *conn);
bool __wrap_nbd_wire_fits(const struct nbd_connection *conn);
bool __wrap_nbd_wire_fits(const struct nbd_connection *conn)
{
	int few = 4096;

	if (atomic_load(&scripted_kernel_tls)) {
		((struct nbd_connection *)(uintptr_t)conn)->kernel_tls = true;
		setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few));
	}
	return !atomic_load(&scripted_without_wire) && __real_nbd_wire_fits(conn);
}

void scripted_start(struct scripted *s, unsigned n, uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(0x7f000000 | n) };
	socklen_t length = sizeof(at);
	int on = 1, few = 4096;
	bool narrow = s->narrow, structured = s->structured;

	memset(s, 0, sizeof(*s));
	s->narrow = narrow;
	s->structured = structured;
	atomic_store(&s->hold, -1);
	atomic_store(&s->twice, -1);
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->listener >= 0);
	setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* Connections inherit them. */
	if (narrow) {
		setsockopt(s->listener, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few));
		setsockopt(s->listener, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few));
	}
	assert_int_equal(bind(s->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(s->listener, 64), 0);
	assert_int_equal(getsockname(s->listener, (struct sockaddr *)&at, &length), 0);
	s->port = ntohs(at.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, listen_main, s), 0);
}

void scripted_end(struct scripted *s)
{
	atomic_store(&s->stop, true);
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < s->nr; i++)
		pthread_join(s->connections[i].thread, NULL);
	close(s->listener);
}

void scripted_wait(const atomic_uint *count, unsigned least, const char *what)
{
	for (unsigned ms = 0; atomic_load(count) < least; ms++) {
		if (ms > 30000)
			fail_msg("%s: %u, and never %u", what, atomic_load(count), least);
		poll(NULL, 0, 1);
	}
}

void scripted_serve(const struct scripted *server, struct served *s, const char *options)
{
	char words[300];

	snprintf(words, sizeof(words),
		 "nbd://127.0.0.1:%u/ queues=1 depth=16 max-io=64K io-path=%s %s %s", server->port,
		 scripted_io_path, server->structured ? "-ostructured=on" : "", options);
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
}

int scripted_transfer(unsigned op, uint64_t at, uint32_t length, uint8_t *data)
{
	return fake_request(0, 0, op, 0, at, length, data);
}

void scripted_fill(uint64_t at, uint32_t length, unsigned seed)
{
	uint8_t *data = fake_data(length, seed);

	assert_int_equal(scripted_transfer(UBLK_OP_WRITE, at, length, data), 0);
	fake_data_free(data);
}

void scripted_holds(uint64_t at, uint32_t length, unsigned seed)
{
	uint8_t *wanted = fake_data(length, seed), *data = fake_data(length, 0);

	assert_int_equal(scripted_transfer(UBLK_OP_READ, at, length, data), 0);
	assert_memory_equal(data, wanted, length);
	fake_data_free(data);
	fake_data_free(wanted);
}

void scripted_reads_at_once(struct scripted *server, uint32_t length)
{
	struct fake_request *r[SCRIPTED_READS];
	uint8_t *data[SCRIPTED_READS], *wanted;

	for (unsigned i = 0; i < SCRIPTED_READS; i++)
		scripted_fill(i << 16, length, i + 1);
	atomic_store(&server->hold, SCRIPTED_READ);
	for (unsigned i = 0; i < SCRIPTED_READS; i++) {
		data[i] = fake_data(length, 0);
		r[i] = fake_request_start(0, 0, UBLK_OP_READ, 0, i << 16, length, data[i]);
	}
	scripted_wait(&server->requests[SCRIPTED_READ], SCRIPTED_READS, "reads");
	atomic_store(&server->hold, -1);
	for (unsigned i = 0; i < SCRIPTED_READS; i++) {
		assert_int_equal(fake_request_wait(r[i]), 0);
		wanted = fake_data(length, i + 1);
		assert_memory_equal(data[i], wanted, length);
		fake_data_free(wanted);
		fake_data_free(data[i]);
	}
}
