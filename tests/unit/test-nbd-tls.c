/* SPDX-License-Identifier: MIT */
/*
 * TLS by the kernel, on sockets that this test makes so: which ones count, and what is said of a
 * record that is no data. Skipped where this machine's kernel has no module tls; the lab's have.
 */
#include "backends/nbd/tls.h"
#include "tests/lib/tls-record.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A pair of connected sockets on the loopback. */
static void tcp_pair(int pair[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001) };
	socklen_t length = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &length), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(pair[0], (struct sockaddr *)&at, sizeof(at)), 0);
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(pair[1] >= 0);
	close(listener);
}

static void close_pair(const int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static void set_keys(int fd, int direction)
{
	/* The same key in both directions does for a test. */
	struct tls12_crypto_info_aes_gcm_128 keys = {
		.info = { TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128 }, .key = { 1 }
	};

	assert_int_equal(setsockopt(fd, SOL_TLS, direction, &keys, sizeof(keys)), 0);
}

/* Skips the test where the kernel cannot. */
static void tls_pair(int pair[2])
{
	tcp_pair(pair);
	for (unsigned i = 0; i < 2; i++)
		if (setsockopt(pair[i], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"))) {
			print_message("no module tls in this kernel: %s\n", strerror(errno));
			close_pair(pair);
			skip();
		}
}

static void test_other_sockets_do_not_count(void **state)
{
	int pair[2];

	(void)state;
	tcp_pair(pair);
	assert_false(nbd_tls_is_kernels(pair[0]));
	close_pair(pair);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_false(nbd_tls_is_kernels(pair[0]));
	close_pair(pair);
	assert_false(nbd_tls_is_kernels(-1));
}

static void test_both_directions_must_be_the_kernels(void **state)
{
	int pair[2];

	(void)state;
	tls_pair(pair);
	assert_false(nbd_tls_is_kernels(pair[0]));
	set_keys(pair[0], TLS_TX);
	assert_false(nbd_tls_is_kernels(pair[0]));
	set_keys(pair[0], TLS_RX);
	assert_true(nbd_tls_is_kernels(pair[0]));
	set_keys(pair[1], TLS_RX);
	assert_false(nbd_tls_is_kernels(pair[1]));
	close_pair(pair);
}

static void test_a_record_that_is_no_data_is_named(void **state)
{
	static const struct {
		unsigned char type, bytes[5];
		size_t size;
		const char *words;
	} records[] = {
		{ 21, { 1, 0 }, 2, "the server ended TLS" },
		{ 21, { 2, 80 }, 2, "the server ended TLS with alert 80" },
		{ 22, { 24, 0, 0, 1, 0 }, 5, "the server has changed its TLS key" },
		{ 22, { 4, 0, 0, 1, 0 }, 5, "the server sent a TLS record of type 22" },
	};
	char data[16], words[80];
	int pair[2];

	(void)state;
	for (unsigned i = 0; i < sizeof(records) / sizeof(*records); i++) {
		tls_pair(pair);
		set_keys(pair[0], TLS_RX);
		set_keys(pair[1], TLS_TX);
		assert_int_equal(send(pair[1], "data", 4, MSG_NOSIGNAL), 4);
		assert_int_equal(send_record(pair[1], records[i].type, records[i].bytes,
					     records[i].size),
				 records[i].size);
		assert_int_equal(recv(pair[0], data, sizeof(data), 0), 4);
		assert_int_equal(recv(pair[0], data, sizeof(data), 0), -1);
		assert_int_equal(errno, EIO);
		nbd_tls_explain(pair[0], EIO, words, sizeof(words));
		assert_string_equal(words, records[i].words);
		close_pair(pair);
	}
}

/* Without a record there is nothing to name, and nothing is waited for. */
static void test_other_errors_are_named(void **state)
{
	char words[80];
	int pair[2];

	(void)state;
	tcp_pair(pair);
	nbd_tls_explain(pair[0], EIO, words, sizeof(words));
	assert_string_equal(words, "receiving: Input/output error");
	nbd_tls_explain(pair[0], ECONNRESET, words, sizeof(words));
	assert_string_equal(words, "receiving: Connection reset by peer");
	nbd_tls_explain(pair[0], EBADMSG, words, sizeof(words));
	assert_string_equal(words, "what came from the server cannot be decrypted");
	close_pair(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_sockets_do_not_count),
		cmocka_unit_test(test_both_directions_must_be_the_kernels),
		cmocka_unit_test(test_a_record_that_is_no_data_is_named),
		cmocka_unit_test(test_other_errors_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
