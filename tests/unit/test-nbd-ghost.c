/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend's old connections, before a server of the test's own that does as it is
 * told: it holds writes back, breaks connections, and carries out later what it has held.
 */
/* tests: tsan */
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SIZE        (1u << 20)
#define BLOCK       4096u
#define ELSEWHERE   (SIZE / 2)
#define CONNS       16u
#define LOGGED      512u
#define PATIENCE_MS 30000u

/* ---- the server (NBD protocol: fixed newstyle, simple replies) ---- */

#define IHAVEOPT      0x49484156454F5054ull
#define REPLY_MAGIC   0x0003e889045565a9ull
#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_MAGIC  0x67446698u
#define FLAG_FUA      1u

enum {
	CMD_READ,
	CMD_WRITE,
	CMD_DISC,
	CMD_FLUSH,
	CMD_TRIM
};

struct request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t length;
} __attribute__((packed));

struct logged {
	unsigned conn;
	uint16_t type, flags;
	uint64_t offset;
	uint8_t byte;
};

static struct conn {
	int fd; /* -1: closed */
	bool eof;
	unsigned nr_held;
	struct {
		uint64_t offset;
		uint8_t byte;
	} held[8];
	pthread_t thread;
} conns[CONNS];

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows, and conns */
static unsigned nr_conns, nr_logged;
static struct logged list[LOGGED];
static uint8_t image[SIZE];
static bool holding; /* writes are held from now on */
static int listener;
static pthread_t acceptor;
static char socket_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

static bool take(int fd, void *out, size_t size)
{
	return recv(fd, out, size, MSG_WAITALL) == (ssize_t)size;
}

static void give(int fd, const void *data, size_t size)
{
	send(fd, data, size, MSG_NOSIGNAL);
}

static void give_option(int fd, uint32_t option, uint32_t type, const void *data, uint32_t size)
{
	struct {
		uint64_t magic;
		uint32_t option, type, size;
	} __attribute__((packed))
	reply = { htobe64(REPLY_MAGIC), htobe32(option), htobe32(type), htobe32(size) };

	give(fd, &reply, sizeof(reply));
	give(fd, data, size);
}

static bool negotiate(int fd)
{
	static const char hello[] = "NBDMAGICIHAVEOPT\0\3";
	/* Flags: has flags, flush, FUA, trim, several connections. */
	struct {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} __attribute__((packed)) info = { 0, htobe64(SIZE), htobe16(1 | 4 | 8 | 32 | 256) };
	struct {
		uint64_t magic;
		uint32_t option, size;
	} __attribute__((packed)) head;
	char data[4096];
	uint32_t flags;

	give(fd, hello, sizeof(hello) - 1);
	if (!take(fd, &flags, sizeof(flags)))
		return false;
	while (take(fd, &head, sizeof(head))) {
		uint32_t size = be32toh(head.size), option = be32toh(head.option);

		if (size > sizeof(data) || (size && !take(fd, data, size)))
			return false;
		if (option != 7) { /* NBD_OPT_GO */
			give_option(fd, option, option == 2 ? 1 : 0x80000001u, NULL, 0);
			continue;
		}
		give_option(fd, option, 3, &info, sizeof(info));
		give_option(fd, option, 1, NULL, 0);
		return true;
	}
	return false;
}

static void answer(int fd, uint64_t handle)
{
	struct {
		uint32_t magic, error;
		uint64_t handle;
	} __attribute__((packed)) reply = { htobe32(SIMPLE_MAGIC), 0, handle };

	give(fd, &reply, sizeof(reply));
}

/* Gate held. */
static void carry_out(struct conn *c, const struct request *r, uint8_t byte)
{
	uint64_t offset = be64toh(r->offset);
	uint32_t length = be32toh(r->length);
	uint16_t type = be16toh(r->type);

	assert_true(nr_logged < LOGGED);
	list[nr_logged++] =
		(struct logged){ (unsigned)(c - conns), type, be16toh(r->flags), offset, byte };
	if (type == CMD_WRITE && holding) {
		assert_true(c->nr_held < 8);
		c->held[c->nr_held].offset = offset;
		c->held[c->nr_held++].byte = byte;
		return;
	}
	if (type == CMD_WRITE)
		memset(image + offset, byte, length);
	answer(c->fd, r->handle);
	if (type == CMD_READ)
		give(c->fd, image + offset, length);
}

static uint8_t byte_at(uint64_t offset)
{
	uint8_t byte;

	pthread_mutex_lock(&gate);
	byte = image[offset];
	pthread_mutex_unlock(&gate);
	return byte;
}

/* A connection's; what it holds outlives the end of the client's stream. */
static void *serve(void *context)
{
	static __thread uint8_t data[1 << 16];
	struct conn *c = context;
	struct request r;

	if (negotiate(c->fd)) {
		while (take(c->fd, &r, sizeof(r)) && be16toh(r.type) != CMD_DISC) {
			uint32_t length = be32toh(r.length);

			if (be16toh(r.type) == CMD_WRITE &&
			    (length > sizeof(data) || !take(c->fd, data, length)))
				break;
			pthread_mutex_lock(&gate);
			carry_out(c, &r, data[0]);
			pthread_mutex_unlock(&gate);
		}
	}
	pthread_mutex_lock(&gate);
	c->eof = true;
	if (!c->nr_held && c->fd >= 0) {
		close(c->fd);
		c->fd = -1;
	}
	pthread_mutex_unlock(&gate);
	return NULL;
}

static void *accept_all(void *context)
{
	int fd;

	(void)context;
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&gate);
		assert_true(nr_conns < CONNS);
		conns[nr_conns].fd = fd;
		pthread_create(&conns[nr_conns].thread, NULL, serve, &conns[nr_conns]);
		nr_conns++;
		pthread_mutex_unlock(&gate);
	}
	return NULL;
}

static void server_start(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(socket_path, sizeof(socket_path), "%s", temp_path("socket"));
	memcpy(at.sun_path, socket_path, sizeof(at.sun_path));
	unlink(socket_path);
	memset(conns, 0, sizeof(conns));
	memset(image, 0, sizeof(image));
	nr_conns = nr_logged = 0;
	holding = false;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (const struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 16), 0);
	assert_int_equal(pthread_create(&acceptor, NULL, accept_all, NULL), 0);
}

static void server_end(void)
{
	shutdown(listener, SHUT_RDWR);
	pthread_join(acceptor, NULL);
	close(listener);
	for (unsigned i = 0; i < nr_conns; i++) {
		pthread_mutex_lock(&gate);
		if (conns[i].fd >= 0)
			shutdown(conns[i].fd, SHUT_RDWR);
		pthread_mutex_unlock(&gate);
		pthread_join(conns[i].thread, NULL);
		if (conns[i].fd >= 0)
			close(conns[i].fd);
	}
}

static void hold(bool on)
{
	pthread_mutex_lock(&gate);
	holding = on;
	pthread_mutex_unlock(&gate);
}

static unsigned count_of(const unsigned *number)
{
	unsigned n;

	pthread_mutex_lock(&gate);
	n = *number;
	pthread_mutex_unlock(&gate);
	return n;
}

static void wait_count(const unsigned *number, unsigned least)
{
	for (unsigned ms = 0; count_of(number) < least; ms++) {
		if (ms > PATIENCE_MS)
			fail_msg("the server waits in vain for %u", least);
		poll(NULL, 0, 1);
	}
}

/* Bytes that no client understands: it gives the connection up, and the server has it still. */
static void break_connection(unsigned conn)
{
	char garbage[16] = "no such answer!";

	wait_count(&nr_conns, conn + 1);
	pthread_mutex_lock(&gate);
	give(conns[conn].fd, garbage, sizeof(garbage));
	pthread_mutex_unlock(&gate);
}

/* A connection that was given up: its held writes are carried out, and it ends. */
static void land(unsigned conn)
{
	struct conn *c = &conns[conn];

	pthread_mutex_lock(&gate);
	for (unsigned i = 0; i < c->nr_held; i++)
		memset(image + c->held[i].offset, c->held[i].byte, BLOCK);
	c->nr_held = 0;
	if (c->eof) {
		close(c->fd);
		c->fd = -1;
	}
	pthread_mutex_unlock(&gate);
}

/* Requests on a block since the n-th of all, on one connection or all (CONNS). */
static unsigned requests_at(uint64_t offset, unsigned conn)
{
	unsigned n = 0;

	pthread_mutex_lock(&gate);
	for (unsigned i = 0; i < nr_logged; i++)
		n += list[i].offset == offset && list[i].type != CMD_FLUSH &&
		     (conn == CONNS || list[i].conn == conn);
	pthread_mutex_unlock(&gate);
	return n;
}

/* The last write of that byte on a connection; NULL: none. */
static const struct logged *write_of(uint8_t byte, unsigned conn)
{
	const struct logged *found = NULL;

	pthread_mutex_lock(&gate);
	for (unsigned i = 0; i < nr_logged; i++)
		if (list[i].type == CMD_WRITE && list[i].byte == byte && list[i].conn == conn)
			found = &list[i];
	pthread_mutex_unlock(&gate);
	return found;
}

/* ---- the device ---- */

static void begin(struct served *s, const char *options)
{
	char words[400];

	server_start();
	snprintf(words, sizeof(words),
		 "nbd+unix:///?socket=%s queues=1 depth=16 max-io=64K -oconnections=1 %s",
		 socket_path, options);
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	server_end();
}

static uint64_t gauge(const struct served *s, const char *name)
{
	const char *const *names = s->spec.backend->gauges;
	unsigned i = 0;

	while (strcmp(names[i], name) != 0)
		i++;
	return __atomic_load_n(&s->standalone.serving.instance.gauges[i], __ATOMIC_RELAXED);
}

static void wait_for(const struct served *s, const char *name, uint64_t value)
{
	for (unsigned ms = 0; gauge(s, name) != value; ms++) {
		if (ms > PATIENCE_MS)
			fail_msg("%s is %llu, and never %llu", name,
				 (unsigned long long)gauge(s, name), (unsigned long long)value);
		poll(NULL, 0, 1);
	}
}

/* A request on one block that may take a while. */
struct pending {
	struct fake_request *request;
	uint8_t *data;
};

static struct pending start(uint8_t op, uint32_t flags, uint64_t offset, uint8_t byte)
{
	struct pending p = { .data = fake_data(BLOCK, byte) };

	p.request = fake_request_start(0, 0, op, flags, offset, BLOCK, p.data);
	return p;
}

static int end(struct pending *p)
{
	int ret = fake_request_wait(p->request);

	fake_data_free(p->data);
	return ret;
}

static int write_block(uint64_t offset, uint32_t flags, uint8_t byte)
{
	struct pending p = start(UBLK_OP_WRITE, flags, offset, byte);

	return end(&p);
}

static void reads_as(uint64_t offset, uint8_t byte)
{
	struct pending p = start(UBLK_OP_READ, 0, offset, (uint8_t)~byte);

	assert_int_equal(fake_request_wait(p.request), 0);
	assert_int_equal(p.data[0], byte);
	fake_data_free(p.data);
}

/* Whatever could be sent of what came before it has been sent then. */
static void works_elsewhere(void)
{
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write_block(ELSEWHERE, 0, (uint8_t)(i + 1)), 0);
		reads_as(ELSEWHERE, (uint8_t)(i + 1));
		assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	}
}

/* A write that the connection's server holds when that is given up. */
static struct pending lose_write(struct served *s, unsigned conn, uint32_t flags, uint64_t offset,
				 uint8_t byte)
{
	uint64_t reconnects = gauge(s, "reconnects");
	struct pending p;

	hold(true);
	p = start(UBLK_OP_WRITE, flags, offset, byte);
	wait_count(&conns[conn].nr_held, 1);
	hold(false);
	break_connection(conn);
	if (gauge(s, "ghost-writes") < 2)
		wait_for(s, "reconnects", reconnects + 1);
	return p;
}

/* ---- tests ---- */

static void test_nothing_overlaps_an_old_connection(void **state)
{
	struct pending old, overlapping[3];
	struct served s;

	(void)state;
	begin(&s, "");
	old = lose_write(&s, 0, UBLK_REQ_FUA, 0, 0xaa);
	assert_int_equal(gauge(&s, "ghost-writes"), 1);
	overlapping[0] = start(UBLK_OP_READ, 0, 0, 0);
	overlapping[1] = start(UBLK_OP_DISCARD, 0, 0, 0);
	overlapping[2] = start(UBLK_OP_WRITE, 0, 0, 0xbb);
	works_elsewhere();
	/* Longer than any time that once was taken for a fence would be too long for a test. */
	assert_int_equal(requests_at(0, CONNS), 1);
	assert_false(fake_request_ended(old.request));
	for (unsigned i = 0; i < 3; i++)
		assert_false(fake_request_ended(overlapping[i].request));
	land(0);
	assert_int_equal(end(&old), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(end(&overlapping[i]), 0);
	assert_int_equal(gauge(&s, "ghost-writes"), 0);
	assert_int_equal(requests_at(0, 1), 4);
	/* As it was asked for. */
	assert_non_null(write_of(0xaa, 1));
	assert_int_equal(write_of(0xaa, 1)->flags, FLAG_FUA);
	assert_int_equal(write_block(0, 0, 0xcc), 0);
	reads_as(0, 0xcc);
	assert_int_equal(byte_at(0), 0xcc);
	finish(&s);
}

/* Reads leave nothing behind that a server could carry out. */
static void test_reads_leave_no_old_connection(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	works_elsewhere();
	break_connection(0);
	wait_for(&s, "reconnects", 1);
	assert_int_equal(gauge(&s, "ghost-writes"), 0);
	works_elsewhere();
	finish(&s);
}

static void test_old_connections_end_one_by_one(void **state)
{
	struct pending old[3];
	struct served s;

	(void)state;
	begin(&s, "");
	old[0] = lose_write(&s, 0, 0, 0, 0xa0);
	old[1] = lose_write(&s, 1, 0, 2 * BLOCK, 0xa1);
	assert_int_equal(gauge(&s, "ghost-writes"), 2);
	works_elsewhere();
	assert_int_equal(requests_at(0, 2) + requests_at(2 * BLOCK, 2), 0);
	land(1);
	assert_int_equal(end(&old[1]), 0);
	works_elsewhere();
	assert_false(fake_request_ended(old[0].request));
	assert_int_equal(requests_at(0, 2), 0);
	land(0);
	assert_int_equal(end(&old[0]), 0);
	reads_as(0, 0xa0);
	reads_as(2 * BLOCK, 0xa1);
	finish(&s);
}

/* Each of them takes a descriptor here and at the server. */
static void test_a_link_has_so_many_old_connections(void **state)
{
	struct pending old[3];
	struct served s;

	(void)state;
	begin(&s, "");
	for (unsigned i = 0; i < 3; i++)
		old[i] = lose_write(&s, i, 0, i * 2 * BLOCK, (uint8_t)(0xa0 + i));
	wait_for(&s, "ghost-writes", 3);
	poll(NULL, 0, 500); /* several tries' time */
	assert_int_equal(count_of(&nr_conns), 3);
	land(1);
	wait_for(&s, "reconnects", 3);
	assert_int_equal(end(&old[1]), 0);
	works_elsewhere();
	land(0);
	land(2);
	assert_int_equal(end(&old[0]), 0);
	assert_int_equal(end(&old[2]), 0);
	finish(&s);
}

static void test_waiting_ends_where_that_is_asked_for(void **state)
{
	struct pending old;
	struct served s;

	(void)state;
	begin(&s, "-oghost-wait=300ms");
	old = lose_write(&s, 0, 0, 0, 0xaa);
	assert_int_equal(end(&old), 0);
	assert_int_equal(requests_at(0, 1), 1);
	assert_int_equal(gauge(&s, "ghost-writes"), 0);
	reads_as(0, 0xaa);
	finish(&s);
}

static void test_a_failed_write_still_blocks_its_range(void **state)
{
	struct pending old;
	struct served s;

	(void)state;
	begin(&s, "-oreconnect-deadline=200ms");
	old = lose_write(&s, 0, 0, 0, 0xaa);
	assert_int_equal(end(&old), -EIO);
	assert_int_equal(write_block(0, 0, 0xbb), -EIO);
	assert_int_equal(requests_at(0, CONNS), 1);
	works_elsewhere();
	land(0);
	wait_for(&s, "ghost-writes", 0);
	assert_int_equal(write_block(0, 0, 0xcc), 0);
	reads_as(0, 0xcc);
	finish(&s);
}

/* Writes that were acknowledged and not flushed are sent again as they were. */
static void test_a_replay_keeps_fua(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(write_block(0, UBLK_REQ_FUA, 0x11), 0);
	assert_int_equal(write_block(BLOCK, 0, 0x22), 0);
	break_connection(0);
	wait_for(&s, "reconnects", 1);
	assert_int_equal(gauge(&s, "replayed"), 2);
	assert_non_null(write_of(0x11, 1));
	assert_non_null(write_of(0x22, 1));
	assert_int_equal(write_of(0x11, 1)->flags, FLAG_FUA);
	assert_int_equal(write_of(0x22, 1)->flags, 0);
	finish(&s);
}

/* A replay's own write, held, must not land on one that was acknowledged after it. */
static void test_a_replay_waits_for_the_one_before(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(write_block(0, 0, 0x11), 0);
	assert_int_equal(write_block(0, 0, 0x22), 0);
	assert_int_equal(write_block(ELSEWHERE, 0, 0x33), 0);
	hold(true);
	break_connection(0);
	wait_count(&conns[1].nr_held, 1);
	hold(false);
	break_connection(1);
	wait_count(&nr_conns, 3);
	for (unsigned ms = 0; !write_of(0x11, 2) && ms < PATIENCE_MS; ms++)
		poll(NULL, 0, 1);
	assert_non_null(write_of(0x11, 2)); /* the same again does no harm */
	poll(NULL, 0, 300);
	assert_null(write_of(0x22, 2));
	land(1);
	reads_as(0, 0x22);
	reads_as(ELSEWHERE, 0x33);
	assert_non_null(write_of(0x22, 2));
	finish(&s);
}

/* Of two writes of one block the later one is what stays, whatever order a server has. */
static void test_a_replay_sends_what_overlaps_one_by_one(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(write_block(0, 0, 0x11), 0);
	assert_int_equal(write_block(0, 0, 0x22), 0);
	hold(true);
	break_connection(0);
	wait_count(&conns[1].nr_held, 1);
	poll(NULL, 0, 300);
	assert_non_null(write_of(0x11, 1));
	assert_null(write_of(0x22, 1));
	hold(false);
	break_connection(1);
	land(1);
	wait_for(&s, "reconnects", 1);
	reads_as(0, 0x22);
	finish(&s);
}

/* A replay need not wait for what was never acknowledged. */
static void test_a_replay_does_not_wait_for_requests(void **state)
{
	struct pending old;
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(write_block(0, 0, 0x11), 0);
	old = lose_write(&s, 0, 0, 0, 0xaa);
	assert_non_null(write_of(0x11, 1));
	works_elsewhere();
	land(0);
	assert_int_equal(end(&old), 0);
	reads_as(0, 0xaa);
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_overlaps_an_old_connection),
		cmocka_unit_test(test_reads_leave_no_old_connection),
		cmocka_unit_test(test_old_connections_end_one_by_one),
		cmocka_unit_test(test_a_link_has_so_many_old_connections),
		cmocka_unit_test(test_waiting_ends_where_that_is_asked_for),
		cmocka_unit_test(test_a_failed_write_still_blocks_its_range),
		cmocka_unit_test(test_a_replay_keeps_fua),
		cmocka_unit_test(test_a_replay_waits_for_the_one_before),
		cmocka_unit_test(test_a_replay_sends_what_overlaps_one_by_one),
		cmocka_unit_test(test_a_replay_does_not_wait_for_requests),
	};
	int failed;

	bound_time(200);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
