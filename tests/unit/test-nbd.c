/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend when connections break, before a real server: what was written,
 * flushed or only acknowledged, is what is read afterwards.
 */
/* tests: tsan */
#include "engine/host_local.h"
#include "tests/unit/remote.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define SIZE  (1u << 20)
#define BLOCK 4096u

static char socket_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

/*
 * A server that forgets all when it ends.  With several threads a connection nbdkit 1.32
 * may abort where that breaks in the midst of answers.
 */
static void start_memory(const char *size)
{
	const char *const words[] = { "--threads", "1", "memory", size, NULL };

	assert_non_null(remote_start(socket_path, words));
}

/* A server whose content outlives it, with one more word for it. */
static void start_file(const char *word)
{
	char path[512];
	const char *const words[] = { "file", path, word, NULL };

	snprintf(path, sizeof(path), "%s", temp_path("disk.img"));
	assert_non_null(remote_start(socket_path, words));
}

/* A device of two queues with a connection each. */
static void begin(struct served *s, const char *options)
{
	char words[400];

	snprintf(words, sizeof(words),
		 "nbd+unix:///?socket=%s queues=2 depth=16 max-io=64K -oconnections=2 %s",
		 socket_path, options);
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
	assert_int_equal(s->standalone.device.info.nr_hw_queues, 2);
}

/* ---- a device that lives already ---- */

static uint64_t left[INSTANCE_GAUGES]; /* what the server before has left in the gauges */

static int open_as_heir(struct instance *instance, struct error *err)
{
	instance->reason = OPEN_TAKEOVER;
	for (unsigned i = 0; i < INSTANCE_GAUGES; i++)
		instance->gauges[i] = left[i];
	return backend_find("nbd")->open(instance, err);
}

/* As begin(), in an earlier server's place. */
static void begin_as_heir(struct served *s, const char *options)
{
	static struct backend heir;
	char words[400];

	snprintf(words, sizeof(words),
		 "nbd+unix:///?socket=%s queues=2 depth=16 max-io=64K -oconnections=2 %s",
		 socket_path, options);
	fake_start(&fake_linux_7_2);
	served_open(s, words);
	heir = *s->spec.backend;
	heir.open = open_as_heir;
	s->spec.backend = &heir;
	if (served_start(s))
		fail_msg("%s", s->err.text);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	remote_end();
}

static unsigned gauge_index(const char *name)
{
	const char *const *names = backend_find("nbd")->gauges;
	unsigned i = 0;

	while (strcmp(names[i], name) != 0)
		i++;
	return i;
}

static uint64_t gauge(const struct served *s, const char *name)
{
	return __atomic_load_n(&s->standalone.serving.instance.gauges[gauge_index(name)],
			       __ATOMIC_RELAXED);
}

/*
 * The descriptors are the backend's, at work with them: what is done to them here
 * is by system calls that no sanitizer takes for a use of our own.
 */
static bool is_ours(int fd)
{
	struct sockaddr_un peer = { 0 };
	socklen_t length = sizeof(peer) - 1;

	return !syscall(SYS_getpeername, fd, &peer, &length) && peer.sun_family == AF_UNIX &&
	       !strcmp(peer.sun_path, socket_path);
}

/* Breaks the n-th connection to the server, from 0, in the order of their making. */
static void break_connection(unsigned n)
{
	char seen[16][64], name[64], link[32];
	unsigned nr_seen = 0;

	for (int fd = 0; fd < 1024; fd++) {
		bool known = false;
		ssize_t length;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (!is_ours(fd) || (length = readlink(link, name, sizeof(name) - 1)) < 0)
			continue;
		name[length] = 0;
		/* Each socket has two descriptors or more. */
		for (unsigned i = 0; i < nr_seen; i++)
			known |= !strcmp(seen[i], name);
		if (known)
			continue;
		if (nr_seen == n) {
			assert_int_equal(syscall(SYS_shutdown, fd, SHUT_RDWR), 0);
			return;
		}
		assert_true(nr_seen < 16);
		memcpy(seen[nr_seen++], name, sizeof(name));
	}
	fail_msg("there is no connection %u", n);
}

static void wait_for(const struct served *s, const char *name, uint64_t value)
{
	for (unsigned ms = 0; gauge(s, name) != value; ms++) {
		if (ms > 30000)
			fail_msg("%s is %llu, and never %llu", name,
				 (unsigned long long)gauge(s, name), (unsigned long long)value);
		poll(NULL, 0, 1);
	}
}

static void write_block(unsigned queue, uint32_t flags, uint64_t offset, uint8_t byte)
{
	uint8_t *data = fake_data(BLOCK, byte);

	assert_int_equal(fake_request(0, queue, UBLK_OP_WRITE, flags, offset, BLOCK, data), 0);
	fake_data_free(data);
}

static void reads_as(unsigned queue, uint64_t offset, uint8_t byte)
{
	uint8_t *data = fake_data(BLOCK, (uint8_t)~byte);

	assert_int_equal(fake_request(0, queue, UBLK_OP_READ, 0, offset, BLOCK, data), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		if (data[i] != byte)
			fail_msg("byte %u at %llu is %#x, not %#x", i, (unsigned long long)offset,
				 data[i], byte);
	fake_data_free(data);
}

static void flush(unsigned queue)
{
	assert_int_equal(fake_request(0, queue, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
}

/* ---- one slow request ---- */

/* The shell's words for: until there is a file of that name; bounded, should the test fail. */
#define UNTIL_FILE "for i in $(seq 400); do [ ! -e '%s' ] || break; sleep 0.1; done"

static void make_file(const char *path)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fclose(f);
}

/* A request that the server takes its time over holds up nothing that comes after it. */
static void test_a_slow_request_holds_up_no_other(void **state)
{
	enum {
		SLOW = SIZE / 2
	};
	char release[512], read[700];
	const char *const words[] = { "eval", "thread_model=echo parallel", "get_size=echo 1M",
				      read, NULL };
	uint8_t *data[3] = { fake_data(BLOCK, 1), fake_data(BLOCK, 1), fake_data(BLOCK, 1) };
	struct fake_request *slow, *r[2];
	struct served s;

	(void)state;
	snprintf(release, sizeof(release), "%s", temp_path("release"));
	snprintf(read, sizeof(read),
		 "pread=if [ $4 = %u ]; then " UNTIL_FILE "; fi; head -c $3 /dev/zero", SLOW,
		 release);
	assert_non_null(remote_start(socket_path, words));
	begin(&s, "");
	slow = fake_request_start(0, 0, UBLK_OP_READ, 0, SLOW, BLOCK, data[2]);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 2; i++)
			r[i] = fake_request_start(0, 0, UBLK_OP_READ, 0, (uint64_t)i * BLOCK, BLOCK,
						  data[i]);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(fake_request_wait(r[i]), 0);
	}
	assert_false(fake_request_ended(slow));
	make_file(release);
	assert_int_equal(fake_request_wait(slow), 0);
	finish(&s);
	for (unsigned i = 0; i < 3; i++)
		fake_data_free(data[i]);
}

/* ---- one connection of two is lost ---- */

/*
 * A queue has kept a write, idle since, that another queue has overwritten and
 * flushed: it must not come back over the newer one.
 */
static void test_flushed_writes_are_not_replayed(void **state)
{
	struct served s;

	(void)state;
	for (unsigned first = 0; first < 2; first++)
		for (unsigned broken = 0; broken < 2; broken++) {
			start_memory("1M");
			begin(&s, "");
			write_block(first, 0, 8192, 0xaa);
			/* Long enough for it to be really idle, with no timer that wakes it. */
			poll(NULL, 0, 300);
			write_block(!first, 0, 8192, 0xbb);
			flush(!first);
			break_connection(broken);
			wait_for(&s, "reconnects", 1);
			reads_as(0, 8192, 0xbb);
			reads_as(1, 8192, 0xbb);
			finish(&s);
		}
}

/* The same, with requests under way on both: each is answered once, and rightly. */
static void test_a_connection_is_lost_under_load(void **state)
{
	enum {
		MANY = 64
	};
	struct fake_request *r[MANY];
	uint8_t *data[MANY];
	struct served s;

	start_memory("1M");
	begin(&s, *state);
	for (unsigned round = 0; round < 6; round++) {
		/* Nothing of it is answered before the connection breaks. */
		remote_freeze(true);
		for (unsigned i = 0; i < MANY; i++) {
			data[i] = fake_data(BLOCK, round % 2 ? 0 : (uint8_t)(i + round + 1));
			r[i] = fake_request_start(0, i % 2,
						  round % 2 ? UBLK_OP_READ : UBLK_OP_WRITE, 0,
						  (uint64_t)i * BLOCK, BLOCK, data[i]);
		}
		while (fake_in_service(0) < 2 * 16)
			poll(NULL, 0, 1);
		break_connection(round / 2 % 2);
		remote_freeze(false);
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(fake_request_wait(r[i]), 0);
			for (unsigned at = 0; round % 2 && at < BLOCK; at += 511)
				assert_int_equal(data[i][at], i + round);
			fake_data_free(data[i]);
		}
		wait_for(&s, "reconnects", round + 1);
	}
	finish(&s);
}

/* ---- the server dies, and another one comes ---- */

static uint8_t model[SIZE];
static bool is_known[SIZE / BLOCK];

/* Writes, zeroes and trims on one queue and the other, in turns. */
static void change(unsigned steps, uint64_t seed)
{
	for (unsigned i = 0; i < steps; i++) {
		unsigned queue = (unsigned)(next_random(&seed) % 2), what;
		uint32_t blocks = 1 + (uint32_t)(next_random(&seed) % 8);
		uint64_t first = next_random(&seed) % (SIZE / BLOCK - blocks);
		uint8_t byte = (uint8_t)(1 + next_random(&seed) % 255);
		uint8_t *data = fake_data(blocks * BLOCK, byte);

		what = (unsigned)(next_random(&seed) % 8);
		assert_int_equal(fake_request(0, queue,
					      what == 0   ? UBLK_OP_DISCARD
					      : what == 1 ? UBLK_OP_WRITE_ZEROES
							  : UBLK_OP_WRITE,
					      what == 2 ? UBLK_REQ_FUA : 0, first * BLOCK,
					      blocks * BLOCK, data),
				 0);
		fake_data_free(data);
		memset(model + first * BLOCK, what < 2 ? 0 : byte, blocks * BLOCK);
		for (uint32_t b = 0; b < blocks; b++)
			is_known[first + b] = what > 0;
	}
}

static void compare(void)
{
	for (unsigned b = 0; b < SIZE / BLOCK; b++)
		if (is_known[b])
			reads_as(b % 2, (uint64_t)b * BLOCK, model[b * BLOCK]);
}

static void forget_model(void)
{
	memset(model, 0, sizeof(model));
	memset(is_known, true, sizeof(is_known));
}

static void test_unflushed_writes_survive_the_server(void **state)
{
	struct served s;

	for (unsigned round = 0; round < 3; round++) {
		forget_model();
		start_memory("1M");
		begin(&s, *state);
		change(150, round);
		remote_kill();
		start_memory("1M");
		compare();
		wait_for(&s, "connected", 2);
		assert_true(gauge(&s, "replayed") >= 150);
		/* And it goes on as if nothing had been. */
		change(50, round + 10);
		compare();
		flush(0);
		flush(1);
		assert_int_equal(gauge(&s, "retained-bytes"), 0);
		finish(&s);
	}
}

/* The server dies again during the replay: a replay that is half done is not the end. */
static void test_a_server_that_dies_again_and_again(void **state)
{
	struct served s;

	(void)state;
	forget_model();
	temp_file("disk.img", SIZE);
	start_file(NULL);
	begin(&s, "");
	change(150, 77);
	for (unsigned i = 0; i < 6; i++) {
		remote_kill();
		start_file(NULL);
		/* At some moment of the replay, before it, or after it. */
		poll(NULL, 0, (int)(i * 37));
		change(i % 2 ? 5 : 0, i);
	}
	compare();
	wait_for(&s, "connected", 2);
	compare();
	finish(&s);
}

static void test_more_than_is_kept_is_flushed_by_the_way(void **state)
{
	struct served s;

	(void)state;
	forget_model();
	start_memory("1M");
	begin(&s, "-oretain=256K");
	change(400, 5);
	assert_true(gauge(&s, "retained-bytes") <= 256 << 10);
	compare();
	finish(&s);
}

/* By the kernel, since the device is going: the server knows nothing of that. */
static void test_data_that_cannot_be_copied_ends_its_request(void **state)
{
	uint8_t *data = fake_data(BLOCK, 2);
	struct served s;

	(void)state;
	start_memory("1M");
	begin(&s, "");
	for (unsigned i = 0; i < 2; i++) {
		write_block(0, 0, 0, 1);
		fake_fail("pread", 1, EFAULT);
		assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 0, BLOCK, data), -EFAULT);
		fake_fail("pwrite", 1, ENODEV);
		assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data), -ENODEV);
		fake_fail(NULL, 0, 0);
		reads_as(0, 0, 1);
		flush(0);
		assert_int_equal(gauge(&s, "retained-bytes"), 0);
	}
	assert_int_equal(gauge(&s, "reconnects"), 0);
	finish(&s);
	fake_data_free(data);
}

static void test_nothing_kept_fails_one_flush(void **state)
{
	struct served s;

	(void)state;
	temp_file("disk.img", SIZE);
	start_file(NULL);
	begin(&s, "-oretain=0");
	write_block(0, 0, 0, 0x11);
	write_block(1, 0, BLOCK, 0x22);
	flush(0);
	remote_kill();
	start_file(NULL);
	reads_as(0, 0, 0x11);
	wait_for(&s, "reconnects", 2);
	/* All of it was flushed. */
	flush(0);
	write_block(1, 0, BLOCK, 0x33);
	remote_kill();
	start_file(NULL);
	reads_as(0, 0, 0x11);
	wait_for(&s, "reconnects", 4);
	assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	flush(1);
	flush(0);
	assert_int_equal(gauge(&s, "retained-bytes"), 0);
	assert_int_equal(gauge(&s, "replayed"), 0);
	finish(&s);
}

static void test_a_server_that_is_trusted(void **state)
{
	struct served s;

	(void)state;
	temp_file("disk.img", SIZE);
	start_file(NULL);
	begin(&s, "-oretain=trust");
	write_block(0, 0, 0, 0x11);
	remote_kill();
	start_file(NULL);
	wait_for(&s, "reconnects", 2);
	flush(1);
	reads_as(1, 0, 0x11);
	assert_int_equal(gauge(&s, "retained-bytes"), 0);
	finish(&s);
}

/* ---- another worker takes over ---- */

/* Writes that the worker before kept are gone with it, and take no room. */
static void test_gauges_are_those_of_the_serving_worker(void **state)
{
	struct served s;

	(void)state;
	forget_model();
	start_memory("1M");
	for (unsigned i = 0; i < INSTANCE_GAUGES; i++)
		left[i] = 250 << 10;
	left[gauge_index("in-doubt")] = 0;
	begin_as_heir(&s, "-oretain=256K");
	assert_int_equal(gauge(&s, "connections"), 2);
	assert_int_equal(gauge(&s, "connected"), 2);
	assert_int_equal(gauge(&s, "suspended"), 0);
	change(100, 3);
	compare();
	flush(0);
	flush(1);
	assert_int_equal(gauge(&s, "retained-bytes"), 0);
	/* These count what was done for the device. */
	assert_int_equal(gauge(&s, "reconnects"), 250 << 10);
	assert_int_equal(gauge(&s, "replayed"), 250 << 10);
	finish(&s);
	memset(left, 0, sizeof(left));
}

/* Writes that a server may lose are kept, and are lost if the worker that keeps them dies. */
static void test_a_suspected_loss_outlives_the_worker(void **state)
{
	struct served s;

	(void)state;
	temp_file("disk.img", SIZE);
	start_file(NULL);
	begin(&s, "");
	remote_kill();
	wait_for(&s, "connected", 0);
	assert_int_equal(gauge(&s, "in-doubt"), 0);
	start_file(NULL);
	wait_for(&s, "connected", 2);
	write_block(0, 0, 0, 0x11);
	remote_kill();
	wait_for(&s, "connected", 0);
	assert_int_equal(gauge(&s, "in-doubt"), 1);
	start_file(NULL);
	wait_for(&s, "connected", 2);
	flush(1);
	assert_int_equal(gauge(&s, "in-doubt"), 0);
	finish(&s);

	start_file(NULL);
	begin(&s, "-oretain=0");
	write_block(0, 0, 0, 0x22);
	remote_kill();
	start_file(NULL);
	wait_for(&s, "reconnects", 2);
	assert_int_equal(gauge(&s, "in-doubt"), 1);
	assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	assert_int_equal(gauge(&s, "in-doubt"), 0);
	finish(&s);

	start_file(NULL);
	left[gauge_index("in-doubt")] = 1;
	begin_as_heir(&s, "");
	left[gauge_index("in-doubt")] = 0;
	reads_as(0, 0, 0x22);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_request(0, i % 2, UBLK_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	assert_int_equal(gauge(&s, "in-doubt"), 0);
	finish(&s);
}

/* A server whose flushes, each a line in began_path, wait for a file. */
static char release_path[512], began_path[512];

static void start_slow_flush(void)
{
	static char flush_word[1400];
	const char *const words[] = { "eval",
				      "thread_model=echo parallel",
				      "get_size=echo 1M",
				      "can_write=exit 0",
				      "can_flush=exit 0",
				      "can_multi_conn=exit 0",
				      "pread=head -c $3 /dev/zero",
				      "pwrite=cat >/dev/null",
				      flush_word,
				      NULL };

	snprintf(release_path, sizeof(release_path), "%s", temp_path("release"));
	snprintf(began_path, sizeof(began_path), "%s", temp_path("began"));
	unlink(release_path);
	make_file(began_path);
	snprintf(flush_word, sizeof(flush_word), "flush=echo >>'%s'; " UNTIL_FILE, began_path,
		 release_path);
	assert_non_null(remote_start(socket_path, words));
}

static unsigned flushes_begun(void)
{
	FILE *f = fopen(began_path, "re");
	unsigned n = 0;

	while (f && fgetc(f) == '\n')
		n++;
	if (f)
		fclose(f);
	return n;
}

/* Whether the server has so many flushes, within 30 s. */
static bool has_flushes(unsigned n)
{
	for (unsigned ms = 0; ms < 30000 && flushes_begun() < n; ms += 10)
		poll(NULL, 0, 10);
	return flushes_begun() >= n;
}

static void release(void)
{
	make_file(release_path);
}

enum event {
	SERVER_DIES,
	CONNECTION_BREAKS,
};

/* With the first flush at the server. */
static void *have_it_happen(void *event)
{
	if (!has_flushes(1))
		return NULL;
	if (*(enum event *)event == SERVER_DIES) {
		remote_kill();
		return NULL;
	}
	break_connection(0);
	has_flushes(2);
	release();
	return NULL;
}

static void begin_as_heir_while(struct served *s, enum event event)
{
	pthread_t thread;

	start_slow_flush();
	assert_int_equal(pthread_create(&thread, NULL, have_it_happen, &event), 0);
	begin_as_heir(s, "");
	pthread_join(thread, NULL);
}

/* The dead worker may have had writes that nobody can send again: no flush succeeds over that. */
static void test_a_server_that_dies_over_the_first_flush(void **state)
{
	struct served s;

	(void)state;
	begin_as_heir_while(&s, SERVER_DIES);
	start_memory("1M");
	wait_for(&s, "connected", 2);
	write_block(0, 0, 0, 0x11);
	reads_as(1, 0, 0x11);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_request(0, i % 2, UBLK_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	finish(&s);
}

/* Another one that was there already has the same server: that can tell. */
static void test_a_connection_breaks_over_the_first_flush(void **state)
{
	struct served s;

	(void)state;
	begin_as_heir_while(&s, CONNECTION_BREAKS);
	wait_for(&s, "connected", 2);
	flush(0);
	flush(1);
	finish(&s);
}

/* Reads and writes go on, and no flush ends before that first one. */
static void test_a_server_that_is_long_over_the_first_flush(void **state)
{
	struct fake_request *r;
	struct served s;

	(void)state;
	for (unsigned dies = 0; dies < 2; dies++) {
		start_slow_flush();
		begin_as_heir(&s, "");
		reads_as(0, 0, 0);
		reads_as(1, 0, 0);
		r = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
		assert_true(has_flushes(3));
		assert_false(fake_request_ended(r));
		if (dies) {
			remote_kill();
			start_memory("1M");
		} else {
			release();
		}
		assert_int_equal(fake_request_wait(r), dies ? -EIO : 0);
		wait_for(&s, "connected", 2);
		assert_int_equal(fake_request(0, 1, UBLK_OP_FLUSH, 0, 0, 0, NULL), dies ? -EIO : 0);
		finish(&s);
	}
}

/* ---- while there is no server ---- */

static void test_errors_at_once_where_that_is_asked_for(void **state)
{
	uint8_t *data = fake_data(BLOCK, 0);
	struct served s;

	(void)state;
	start_memory("1M");
	begin(&s, "-oreconnect-deadline=0");
	write_block(0, 0, 0, 0x11);
	write_block(1, 0, BLOCK, 0x22);
	remote_kill();
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fake_request(0, i % 2, UBLK_OP_READ, 0, 0, BLOCK, data), -EIO);
		assert_int_equal(fake_request(0, i % 2, UBLK_OP_WRITE, 0, 0, BLOCK, data), -EIO);
		assert_int_equal(fake_request(0, i % 2, UBLK_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	}
	start_memory("1M");
	wait_for(&s, "reconnects", 2);
	/* Acknowledged writes are there all the same. */
	reads_as(1, BLOCK, 0x22);
	write_block(0, 0, 0, 0x33);
	reads_as(0, 0, 0x33);
	flush(1);
	finish(&s);
	fake_data_free(data);
}

static void test_a_device_stops_without_its_server(void **state)
{
	struct served s;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		start_memory("1M");
		begin(&s, "");
		if (i)
			write_block(0, 0, 0, 0x11);
		remote_kill();
		if (i == 2)
			wait_for(&s, "connected", 0);
		finish(&s);
	}
}

/* ---- while there is no host ---- */

static atomic_bool host_is_away;
static atomic_uint host_was_asked;

static int connect_by_host(const struct instance *instance, const char *path)
{
	atomic_fetch_add(&host_was_asked, 1);
	return atomic_load(&host_is_away) ? -ENOTCONN : host_here.connect_unix(instance, path);
}

/*
 * A connection that is lost then is made again once the server is back, tried often however
 * long it takes; the other connection goes on.
 */
static void test_a_connection_waits_for_the_host(void **state)
{
	struct backend_host host = host_here;
	uint8_t *data = fake_data(BLOCK, 0);
	struct fake_request *r;
	struct served s;
	char words[400];

	(void)state;
	start_memory("1M");
	snprintf(words, sizeof(words),
		 "nbd+unix:///?socket=%s queues=2 depth=16 max-io=64K -oconnections=2",
		 socket_path);
	host.connect_unix = connect_by_host;
	fake_start(&fake_linux_7_2);
	served_open(&s, words);
	assert_int_equal(standalone_start(&s.standalone, &s.spec, &host, &s.control, &s.err), 0);
	atomic_store(&host_is_away, true);
	atomic_store(&host_was_asked, 0);
	write_block(0, 0, 0, 0x11);
	break_connection(0);
	wait_for(&s, "connected", 1);
	r = fake_request_start(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data);
	for (time_t end = time(NULL) + 30; atomic_load(&host_was_asked) < 30 && time(NULL) < end;)
		reads_as(1, 0, 0x11);
	assert_true(atomic_load(&host_was_asked) >= 30);
	assert_false(fake_request_ended(r));
	atomic_store(&host_is_away, false);
	assert_int_equal(fake_request_wait(r), 0);
	assert_int_equal(data[0], 0x11);
	wait_for(&s, "connected", 2);
	finish(&s);
	fake_data_free(data);
}

/* ---- the end of a device ---- */

static void *release_when_both_are_there(void *both)
{
	*(bool *)both = has_flushes(2);
	release();
	return NULL;
}

/* The last flush does not wait for one that is under way: both would take too long. */
static void test_the_last_flush_is_sent_at_once(void **state)
{
	char words[400];
	pthread_t thread;
	struct served s;
	bool both;

	(void)state;
	start_slow_flush();
	snprintf(words, sizeof(words),
		 "nbd+unix:///?socket=%s queues=1 depth=16 max-io=4K -oretain=64K", socket_path);
	fake_start(&fake_linux_7_2);
	served_begin(&s, words);
	for (unsigned i = 0; i < 12; i++)
		write_block(0, 0, (uint64_t)i * BLOCK, 1);
	assert_true(has_flushes(1));
	assert_int_equal(pthread_create(&thread, NULL, release_when_both_are_there, &both), 0);
	finish(&s);
	pthread_join(thread, NULL);
	assert_true(both);
}

/* Many connections are taken leave of together, or a queue's end would take too long. */
static void test_a_device_stops_beside_a_silent_server(void **state)
{
	char words[400];
	struct served s;

	(void)state;
	start_memory("1M");
	snprintf(words, sizeof(words), "nbd+unix:///?socket=%s queues=1 depth=16 -oconnections=24",
		 socket_path);
	fake_start(&fake_linux_7_2);
	served_begin(&s, words);
	assert_int_equal(gauge(&s, "connected"), 24);
	remote_freeze(true);
	served_end(&s);
	remote_freeze(false);
	fake_stop();
	remote_end();
}

/* An export that is not the former one gets nothing. */
static void test_another_export_is_not_written(void **state)
{
	static const struct {
		const char *size, *word;
	} wrong[] = { { "512K", NULL }, { "1M", "--readonly" } };
	struct fake_request *r;
	struct served s;
	uint8_t *data = fake_data(BLOCK, 0);

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		const char *words[] = { "memory", wrong[i].size, wrong[i].word, NULL };

		start_memory("1M");
		begin(&s, "");
		write_block(0, 0, SIZE - BLOCK, 0x11);
		remote_kill();
		assert_non_null(remote_start(socket_path, words));
		wait_for(&s, "suspended", 1);
		r = fake_request_start(0, 1, UBLK_OP_READ, 0, SIZE - BLOCK, BLOCK, data);
		poll(NULL, 0, 300);
		assert_false(fake_request_ended(r));
		assert_int_equal(gauge(&s, "replayed"), 0);
		remote_kill();
		start_memory("1M");
		assert_int_equal(fake_request_wait(r), 0);
		assert_int_equal(data[0], 0x11);
		wait_for(&s, "connected", 2);
		assert_int_equal(gauge(&s, "suspended"), 0);
		finish(&s);
	}
	fake_data_free(data);
}

static int end_server(void **state)
{
	(void)state;
	remote_end();
	return 0;
}

#define CASE(test) cmocka_unit_test_teardown(test, end_server)
/* On one of the I/O paths. */
#define CASE_ON(test, path)                                                                  \
	{                                                                                    \
#test ": " path, test, NULL, end_server, (void *)(uintptr_t) "io-path=" path \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_a_slow_request_holds_up_no_other),
		CASE(test_flushed_writes_are_not_replayed),
		CASE_ON(test_a_connection_is_lost_under_load, "user-copy"),
		CASE_ON(test_a_connection_is_lost_under_load, "copy"),
		CASE_ON(test_unflushed_writes_survive_the_server, "user-copy"),
		CASE_ON(test_unflushed_writes_survive_the_server, "copy"),
		CASE(test_data_that_cannot_be_copied_ends_its_request),
		CASE(test_a_server_that_dies_again_and_again),
		CASE(test_more_than_is_kept_is_flushed_by_the_way),
		CASE(test_nothing_kept_fails_one_flush),
		CASE(test_a_server_that_is_trusted),
		CASE(test_gauges_are_those_of_the_serving_worker),
		CASE(test_a_suspected_loss_outlives_the_worker),
		CASE(test_a_server_that_dies_over_the_first_flush),
		CASE(test_a_connection_breaks_over_the_first_flush),
		CASE(test_a_server_that_is_long_over_the_first_flush),
		CASE(test_errors_at_once_where_that_is_asked_for),
		CASE(test_a_connection_waits_for_the_host),
		CASE(test_a_device_stops_without_its_server),
		CASE(test_the_last_flush_is_sent_at_once),
		CASE(test_a_device_stops_beside_a_silent_server),
		CASE(test_another_export_is_not_written),
	};
	const char *const words[] = { "null", NULL };
	int failed;

	bound_time(280);
	snprintf(socket_path, sizeof(socket_path), "%s", temp_path("socket"));
	if (!remote_start(socket_path, words)) {
		temp_remove();
		print_message("there is no nbdkit\n");
		return 77;
	}
	remote_end();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	remote_end();
	temp_remove();
	return failed;
}
