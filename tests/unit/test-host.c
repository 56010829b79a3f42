/* SPDX-License-Identifier: MIT */
/*
 * The host that a process is to its own backends, and what one may do for others'.
 */
#include "engine/host_local.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
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

/* ---- what a host with more rights may do ---- */

static void make_export(struct spec *spec, struct instance *instance, const char *words)
{
	char copy[400], *word, *rest = copy;
	struct error err;

	snprintf(copy, sizeof(copy), "%s", words);
	word = strsep(&rest, " ");
	if (spec_open(spec, word, &err))
		fail_msg("%s", err.text);
	while ((word = strsep(&rest, " ")))
		if (!strcmp(word, "read-only") ? spec_set(spec, word, NULL, &err)
					       : spec_set_backend(spec, word, &err))
			fail_msg("%s", err.text);
	if (spec_check(spec, &err))
		fail_msg("%s", err.text);
	spec_to_instance(spec, instance);
}

static void append_need(void *context, enum backend_need need, const char *path)
{
	static const char *const names[] = {
		[NEED_NETWORK] = "network",
		[NEED_NAMES] = "names",
		[NEED_AUTHORITIES] = "authorities",
		[NEED_FILE] = "file",
		[NEED_DIRECTORY] = "directory",
		[NEED_HOST_FILE] = "host-file",
		[NEED_HOST_NEW_FILE] = "host-new-file",
		[NEED_HOST_READ] = "host-read",
		[NEED_HOST_QUEUE] = "host-queue",
		[NEED_HOST_SOCKET] = "host-socket",
	};
	char *text = context;
	size_t n = strlen(text);

	snprintf(text + n, 1000 - n, "%s%s%s%s", n ? ", " : "", names[need], path ? " " : "",
		 path ? path : "");
}

static void test_needs_of_the_backends(void **state)
{
	static const struct {
		const char *words, *needs;
	} cases[] = {
		{ "/d/x", "host-queue, host-file /d/x" },
		{ "file:///d/x read-only", "host-queue, host-file /d/x" },
		{ "/d/x create=1M", "host-queue, host-new-file /d/x, host-read /d" },
		{ "null:1M", "" },
		{ "memory:1M", "" },
		{ "memory:1G hugepages=1G",
		  "host-read /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages, host-read "
		  "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages" },
		{ "nbd://host/x", "network, names" },
		{ "nbd://user@10.0.0.1:99/x", "network" },
		{ "nbd://10.0.0.1", "network" },
		{ "nbd://10.0.0.1.example/", "network, names" },
		{ "nbd://[::1]:99/x", "network" },
		{ "nbd+vsock://2/x", "network" },
		{ "nbd+unix:///x?socket=/a%20b", "host-socket /a b" },
		{ "nbds://host/ tls-psk-file=/k", "network, names, file /k" },
		{ "nbds://host/?tls-psk-file=/%6c tls-psk-file=/k", "network, names, file /l" },
		{ "nbd://host/ tls=on tls-psk-file=/k", "network, names, file /k" },
		{ "nbd://host/?tls-psk-file=/k", "network, names" },
		{ "nbds+unix:///?socket=/s tls-psk-file=/k", "host-socket /s, file /k" },
		{ "nbds://host/ tls-certificates=/c tls-allow-unfixed",
		  "network, names, directory /c, authorities" },
		{ "nbds://host/?tls-certificates=/c tls-allow-unfixed",
		  "network, names, directory /c, authorities" },
		{ "nbds://host/ tls-allow-unfixed",
		  "network, names, directory /h/.pki/libnbd, directory "
		  "/h/.config/pki/libnbd, directory /etc/pki/libnbd, authorities" },
	};

	(void)state;
	setenv("HOME", "/h", 1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct instance instance;
		char text[1000] = "";
		struct spec spec;

		make_export(&spec, &instance, cases[i].words);
		if (instance.backend->needs)
			instance.backend->needs(&instance, append_need, text);
		if (strcmp(text, cases[i].needs) != 0)
			fail_msg("%s: %s", cases[i].words, text);
		spec_close(&spec);
	}
}

static void test_a_host_opens_only_needed_files(void **state)
{
	static const struct {
		const char *words, *path;
		int flags;
		unsigned mode;
		bool may;
	} cases[] = {
		{ "/d/x", "/d/x", O_RDWR | O_CLOEXEC, 0, true },
		{ "/d/x", "/d/x", O_RDWR | O_CLOEXEC | O_DIRECT | O_NOATIME | O_EXCL, 0, true },
		{ "/d/x", "/d/x", O_PATH | O_CLOEXEC, 0, true },
		{ "/d/x", "/d/x", O_RDWR | O_TRUNC, 0, false },
		{ "/d/x", "/d/x", O_RDWR | O_CREAT | O_EXCL, 0600, false },
		{ "/d/x", "/d/x", O_RDWR | O_CREAT, 0600, false },
		{ "/d/x", "/d/y", O_RDONLY, 0, false },
		{ "/d/x", "/d", O_RDONLY, 0, false },
		{ "/d/x", "/d/../d/x", O_RDONLY, 0, false },
		{ "/d/x", "", O_RDONLY, 0, false },
		{ "/d/x read-only", "/d/x", O_RDONLY, 0, true },
		{ "/d/x read-only", "/d/x", O_RDWR, 0, false },
		{ "/d/x read-only", "/d/x", O_WRONLY, 0, false },
		{ "/d/x create=1M", "/d/x", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, true },
		{ "/d/x create=1M", "/d/x", O_RDWR | O_CREAT | O_CLOEXEC, 0600, false },
		{ "/d/x create=1M", "/d/x", O_RDWR | O_CREAT | O_EXCL, 04600, false },
		{ "/d/x create=1M", "/d/x", O_RDWR | O_CREAT | O_EXCL, 0644, false },
		{ "/d/x create=1M", "/d", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, true },
		{ "/d/x create=1M", "/d", O_RDWR | O_TMPFILE, 0600, false },
		{ "/x", "/sys/dev/block/8:1/queue/rotational", O_RDONLY | O_CLOEXEC, 0, true },
		{ "/x", "/sys/dev/block/8:1/../queue/max_segments", O_RDONLY, 0, true },
		{ "/x", "/sys/dev/block/8:1/queue/rotational", O_RDWR, 0, false },
		{ "/x", "/sys/dev/block/8:1/queue/../../x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/../../queue/x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/queue/", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:/queue/x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/../queue/x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/device/x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/diskseq", O_RDONLY, 0, true },
		{ "/x", "/sys/dev/block/8:1/../device/wwid", O_RDONLY | O_CLOEXEC, 0, true },
		{ "/x", "/sys/dev/block/8:1/dm/uuid", O_RDONLY, 0, true },
		{ "/x", "/sys/dev/block/8:1/dm/uuid", O_RDWR, 0, false },
		{ "/x", "/sys/dev/block/8:1/../../dm/uuid", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/serial/x", O_RDONLY, 0, false },
		{ "/x", "/sys/dev/block/8:1/uevent", O_RDONLY, 0, false },
		{ "null:1M", "/sys/dev/block/8:1/queue/rotational", O_RDONLY, 0, false },
		{ "nbd+unix:///?socket=/s", "/s", O_RDONLY, 0, false },
		{ "nbds://h/ tls-psk-file=/k", "/k", O_RDONLY, 0, false },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct instance instance;
		struct spec spec;

		make_export(&spec, &instance, cases[i].words);
		if (host_may_open(&instance, cases[i].path, cases[i].flags, cases[i].mode) !=
		    cases[i].may)
			fail_msg("%s: %s, %#x, %#o", cases[i].words, cases[i].path, cases[i].flags,
				 cases[i].mode);
		spec_close(&spec);
	}
}

static void test_a_host_removes_and_connects_only_by_need(void **state)
{
	struct instance instance;
	struct spec spec;

	(void)state;
	make_export(&spec, &instance, "/d/x create=1M");
	assert_true(host_may_remove(&instance, "/d/x"));
	assert_false(host_may_remove(&instance, "/d"));
	assert_false(host_may_connect(&instance, "/d/x"));
	spec_close(&spec);
	make_export(&spec, &instance, "/d/x");
	assert_false(host_may_remove(&instance, "/d/x"));
	spec_close(&spec);
	make_export(&spec, &instance, "nbd+unix:///?socket=/s");
	assert_true(host_may_connect(&instance, "/s"));
	assert_false(host_may_connect(&instance, "/t"));
	assert_false(host_may_remove(&instance, "/s"));
	spec_close(&spec);
	make_export(&spec, &instance, "nbd://h/?socket=/s");
	assert_false(host_may_connect(&instance, "/s"));
	spec_close(&spec);
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
		cmocka_unit_test(test_needs_of_the_backends),
		cmocka_unit_test(test_a_host_opens_only_needed_files),
		cmocka_unit_test(test_a_host_removes_and_connects_only_by_need),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, teardown);
}
