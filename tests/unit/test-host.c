/* SPDX-License-Identifier: MIT */
/*
 * The host that a process is to its own backends.
 */
#include "engine/host.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int listen_at(const char *path, int backlog)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

static void test_connects_to_a_socket(void **state)
{
	const char *path = temp_path("a socket");
	int server = listen_at(path, 1), fd = host_here.connect_unix(NULL, path), peer;
	char byte = 'x';

	(void)state;
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	peer = accept(server, NULL, NULL);
	assert_int_equal(write(peer, &byte, 1), 1);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	close(peer);
	close(fd);
	close(server);
}

/* A server that takes nobody in must not hold anybody up. */
static void test_does_not_wait_for_a_full_backlog(void **state)
{
	const char *path = temp_path("busy");
	int server = listen_at(path, 0), fds[8], n = 0;

	(void)state;
	while (n < 8 && (fds[n] = host_here.connect_unix(NULL, path)) >= 0)
		n++;
	assert_true(n < 8);
	assert_int_equal(fds[n], -EAGAIN);
	while (n > 0)
		close(fds[--n]);
	close(server);
}

static void test_says_why_it_cannot_connect(void **state)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(host_here.connect_unix(NULL, path), -ENAMETOOLONG);
	assert_int_equal(host_here.connect_unix(NULL, temp_path("nobody")), -ENOENT);
	close(listen_at(temp_path("dead"), 1));
	assert_int_equal(host_here.connect_unix(NULL, temp_path("dead")), -ECONNREFUSED);
}

static int teardown(void **state)
{
	(void)state;
	temp_remove();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connects_to_a_socket),
		cmocka_unit_test(test_does_not_wait_for_a_full_backlog),
		cmocka_unit_test(test_says_why_it_cannot_connect),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, teardown);
}
