/* SPDX-License-Identifier: MIT */
#include "common/old_socket.h"
#include "tests/unit/endless.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER OLD_SOCKET_LINGER_MS

static void tcp_pair(int pair[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, (const struct sockaddr *)&at, length), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &length), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(pair[0], (const struct sockaddr *)&at, length), 0);
	pair[1] = accept(listener, NULL, NULL);
	assert_true(pair[1] >= 0);
	close(listener);
}

static void make_pair(unsigned kind, int pair[2])
{
	if (kind)
		tcp_pair(pair);
	else
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static enum old_socket_state settle(struct old_socket *s, enum old_socket_state wanted)
{
	enum old_socket_state state = old_socket_check(s, 0, 2);

	/* Loopback is asynchronous, too. */
	for (unsigned ms = 0; state != wanted && ms < 10000; ms++) {
		poll(NULL, 0, 1);
		state = old_socket_check(s, 0, 2);
	}
	return state;
}

static void test_a_server_is_there_until_it_ends_the_stream(void **state)
{
	struct old_socket s;
	char byte = 1;
	int pair[2];

	(void)state;
	for (unsigned kind = 0; kind < 2; kind++) {
		make_pair(kind, pair);
		old_socket_shut(&s, pair[0], 1);
		assert_int_equal(settle(&s, OLD_SOCKET_THERE), OLD_SOCKET_THERE);
		/* The server is told, and may answer still. */
		assert_int_equal(read(pair[1], &byte, 1), 0);
		assert_int_equal(write(pair[1], &byte, 1), 1);
		/* No time is long enough, whoever answers elsewhere. */
		for (uint64_t ms = 3; ms < 1000000000; ms *= 10)
			assert_int_equal(old_socket_check(&s, ms, ms), OLD_SOCKET_THERE);
		close(pair[1]);
		assert_int_equal(settle(&s, OLD_SOCKET_ENDED), OLD_SOCKET_ENDED);
		close(pair[0]);
	}
}

static void test_a_reset_is_the_end(void **state)
{
	struct linger at_once = { 1, 0 };
	struct old_socket s;
	int pair[2];

	(void)state;
	tcp_pair(pair);
	old_socket_shut(&s, pair[0], 1);
	assert_int_equal(settle(&s, OLD_SOCKET_THERE), OLD_SOCKET_THERE);
	setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(pair[1]);
	assert_int_equal(settle(&s, OLD_SOCKET_RESET), OLD_SOCKET_RESET);
	close(pair[0]);
}

/* A host that has not acknowledged the FIN, asked once a second; the server answers elsewhere. */
static void test_silence_counts_beside_answers_elsewhere(void **state)
{
	struct old_socket s = { .quiet_ms = 1000 };
	struct old_socket_tcp tcp = { .state = TCP_FIN_WAIT1, .heard_ms = 900 };

	(void)state;
	/* Nobody answers: nothing follows from that. */
	for (uint64_t ms = 1000; ms < 1000000; ms += 1000, tcp.asked++)
		assert_int_equal(old_socket_judge(&s, &tcp, 900, ms), OLD_SOCKET_SILENT);
	/* The server answers, and it was not asked on this one since. */
	for (uint64_t ms = 1000000; ms < 2000000; ms += 1000)
		assert_int_equal(old_socket_judge(&s, &tcp, ms, ms), OLD_SOCKET_SILENT);
	tcp.asked++;
	assert_int_equal(old_socket_judge(&s, &tcp, 2000000, 2000000), OLD_SOCKET_SILENT);
	tcp.asked++;
	assert_int_equal(old_socket_judge(&s, &tcp, 2001000, 2001000), OLD_SOCKET_SILENT);
	/* The last probe may have come when the server was away again. */
	assert_int_equal(old_socket_judge(&s, &tcp, 2001000, 2003000), OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, &tcp, 2003000, 2003000), OLD_SOCKET_UNREACHABLE);
}

static void test_silence_has_to_last(void **state)
{
	struct old_socket s = { .quiet_ms = 1000 };
	struct old_socket_tcp tcp = { .state = TCP_FIN_WAIT1, .heard_ms = 900 };

	(void)state;
	for (uint64_t ms = 2000; ms < 2000 + LINGER; ms += 100, tcp.asked++)
		assert_int_equal(old_socket_judge(&s, &tcp, ms, ms), OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, &tcp, 2000 + LINGER, 2000 + LINGER),
			 OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, &tcp, 2001 + LINGER, 2001 + LINGER),
			 OLD_SOCKET_UNREACHABLE);
}

/* A server that does not read acknowledges no FIN, but what asks it whether it reads now. */
static void test_whoever_answers_is_there(void **state)
{
	struct old_socket s = { .quiet_ms = 1000 };
	struct old_socket_tcp tcp = { .state = TCP_FIN_WAIT1 };

	(void)state;
	for (uint64_t ms = 2000; ms < 1000000; ms += 1000, tcp.asked++) {
		if (ms % 4000 == 0)
			tcp.heard_ms = ms;
		assert_int_equal(old_socket_judge(&s, &tcp, ms, ms), OLD_SOCKET_SILENT);
	}
	tcp.state = TCP_FIN_WAIT2;
	assert_int_equal(old_socket_judge(&s, &tcp, 2000000, 2000000), OLD_SOCKET_THERE);
}

/* The kernel has given it up: only answers elsewhere can tell, and time. */
static void test_a_deaf_socket_is_waited_for(void **state)
{
	struct old_socket s = { .quiet_ms = 1000, .deaf = true };

	(void)state;
	assert_int_equal(old_socket_judge(&s, NULL, 0, 1000000), OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, NULL, 1000000, 1000000), OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, NULL, 1000000, 1000000 + LINGER), OLD_SOCKET_SILENT);
	assert_int_equal(old_socket_judge(&s, NULL, 1000001, 1000000 + LINGER),
			 OLD_SOCKET_UNREACHABLE);
}

/* Its bytes are dropped a part at a time: others have their turn. */
/* As with TLS by the kernel, where what comes cannot be decrypted any more. */
static void test_a_server_that_cannot_be_read_is_there_until_the_end(void **state)
{
	struct old_socket s;
	enum old_socket_state last;
	int pair[2];

	(void)state;
	tcp_pair(pair);
	old_socket_shut(&s, pair[0], 1);
	assert_int_equal(settle(&s, OLD_SOCKET_THERE), OLD_SOCKET_THERE);
	s.deaf = true;
	for (uint64_t ms = 3; ms < 1000000000; ms *= 10)
		assert_int_equal(old_socket_check(&s, ms, ms), OLD_SOCKET_THERE);
	close(pair[1]);
	assert_int_equal(settle(&s, OLD_SOCKET_SILENT), OLD_SOCKET_SILENT);
	old_socket_check(&s, 2000000000, 2000000000);
	last = old_socket_check(&s, 2000000001 + LINGER, 2000000000 + LINGER);
	assert_int_equal(last, OLD_SOCKET_UNREACHABLE);
	close(pair[0]);
}

static void test_a_server_that_sends_without_end_is_left(void **state)
{
	struct old_socket s;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	old_socket_shut(&s, pair[0], 1000);
	endless_reads = 0;
	endless_fd = pair[0];
	old_socket_check(&s, 0, 1001);
	endless_fd = -1;
	assert_true(endless_reads > 0);
	assert_true(endless_reads <= 1000);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_server_that_sends_without_end_is_left),
		cmocka_unit_test(test_a_server_is_there_until_it_ends_the_stream),
		cmocka_unit_test(test_a_reset_is_the_end),
		cmocka_unit_test(test_silence_counts_beside_answers_elsewhere),
		cmocka_unit_test(test_silence_has_to_last),
		cmocka_unit_test(test_whoever_answers_is_there),
		cmocka_unit_test(test_a_deaf_socket_is_waited_for),
		cmocka_unit_test(test_a_server_that_cannot_be_read_is_there_until_the_end),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
