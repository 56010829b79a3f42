/* SPDX-License-Identifier: MIT */
/*
 * Why a server cannot be used: each message names its place once, the cause, and a cure, and has
 * nothing of libnbd's own words for its state machine. First from texts, then with real servers
 * (nbdkit; skipped without it).
 */
#include "backends/nbd/explain.h"
#include "backends/nbd/connect.h"
#include "backends/nbd/server.h"
#include "engine/host_local.h"
#include "engine/spec.h"
#include "tests/unit/remote.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void make_instance(struct spec *spec, struct instance *instance, const char *uri,
			  const char *const *options)
{
	struct error err;

	if (spec_open(spec, uri, &err))
		fail_msg("%s", err.text);
	for (unsigned i = 0; i < 2 && options[i]; i++)
		if (spec_set_backend(spec, options[i], &err))
			fail_msg("%s %s: %s", uri, options[i], err.text);
	spec_to_instance(spec, instance);
	instance->host = &host_here;
}

static void check_words(const char *text, const char *const *words)
{
	static const char *const raw[] = { "nbd_", "gnutls_", "handshake: server", "recv:" };

	for (unsigned i = 0; i < 4 && words[i]; i++)
		if (!strstr(text, words[i]))
			fail_msg("'%s' lacks '%s'", text, words[i]);
	for (unsigned i = 0; i < sizeof(raw) / sizeof(*raw); i++)
		if (strstr(text, raw[i]))
			fail_msg("'%s' has '%s'", text, raw[i]);
}

/* ---- texts, as libnbd 1.14 to 1.22 have them ---- */

static void test_each_text_has_its_cure(void **state)
{
	static const struct {
		const char *uri, *options[2];
		int code;
		const char *text, *words[4];
	} cases[] = {
		{ "nbds://h/x",
		  { "tls-psk-file=/keys" },
		  ENOTSUP,
		  "handshake: server refused TLS, but handle TLS setting is 'require' (2): "
		  "Operation not supported",
		  { "PLACE offers no TLS: turn it on there, or write nbd:// for nbds://" } },
		{ "nbds+unix:///x?socket=/s",
		  { "tls-psk-file=/keys" },
		  ENOTSUP,
		  "handshake: server is oldstyle, but handle TLS setting is 'require' (2)",
		  { "PLACE offers no TLS", "write nbd+unix:// for nbds+unix://" } },
		{ "nbd://h/x",
		  { "tls=require", "tls-psk-file=/keys" },
		  ENOTSUP,
		  "handshake: server refused TLS, but handle TLS setting is 'require' (2)",
		  { "PLACE offers no TLS", "leave -o tls=require out" } },
		{ "nbd+vsock://2/x",
		  { NULL },
		  ENOTSUP,
		  "handshake: server requires TLS encryption first: Operation not supported",
		  { "PLACE requires TLS: write nbds+vsock:// for nbd+vsock://", "tls-psk-file" } },
		{ "nbds://h/x",
		  { "tls-psk-file=/keys" },
		  0,
		  "gnutls_handshake: The TLS connection was non-properly terminated. (-1/1)",
		  { "handshake with PLACE failed (The TLS connection was non-properly "
		    "terminated): ",
		    "the key in /keys" } },
		{ "nbds://h/x?tls-psk-file=/other",
		  { NULL },
		  0,
		  "gnutls_handshake: Insufficient credentials for that request. (11/1)",
		  { "handshake with PLACE failed", "the key in /other" } },
		{ "nbds://h/x",
		  { NULL },
		  0,
		  "gnutls_handshake: Error in the certificate verification. (11/1)",
		  { "the certificate of PLACE is not accepted", "expired", "ca-cert.pem" } },
		{ "nbds://h/x",
		  { NULL },
		  0,
		  "gnutls_handshake: Error in the push function. (2/1)",
		  { "the TLS handshake with PLACE failed", "client-cert.pem" } },
		{ "nbd://u@h:1/a%20b",
		  { NULL },
		  ENOENT,
		  "handshake: server has no export named 'a b': No such file or directory",
		  { "PLACE has no export 'a b': ", "ublkctl nbd-list 'nbd://u@h:1'" } },
		{ "nbd+unix:///x?socket=/s",
		  { NULL },
		  ENOENT,
		  "handshake: server has no export named 'x': No such file or directory",
		  { "ublkctl nbd-list 'nbd+unix:///?socket=/s'" } },
		{ "nbd://h/x",
		  { NULL },
		  0,
		  "handshake: server did not send expected NBD magic",
		  { "PLACE is not an NBD server: is the port right?" } },
		{ "nbd://h/x",
		  { NULL },
		  0,
		  "recv: server disconnected unexpectedly",
		  { "PLACE closed the connection during the handshake", "the export 'x'" } },
		{ "nbd://h/x",
		  { NULL },
		  ECONNRESET,
		  "recv: Connection reset by peer",
		  { "PLACE closed the connection during the handshake" } },
		{ "nbd://h/x",
		  { NULL },
		  0,
		  "handshake: server policy prevents NBD_OPT_GO",
		  { "PLACE does not let this host use the export 'x'", "access rules" } },
		{ "nbd://h/x",
		  { NULL },
		  ESHUTDOWN,
		  "handshake: server is shutting down: Cannot send",
		  { "PLACE is shutting down" } },
		{ "nbds://h/x",
		  { NULL },
		  ECONNREFUSED,
		  "connect: h:10809: could not connect to remote host: Connection refused",
		  { "PLACE refuses connections", "is the port right" } },
		{ "nbds://h/x",
		  { NULL },
		  0,
		  "getaddrinfo: hostname \"h\" port \"10809\": Name or service not known",
		  { "cannot resolve 'PLACE': Name or service not known: check the name" } },
		{ "nbd://h/x",
		  { NULL },
		  0,
		  "something new",
		  { "with PLACE failed: something new: see the server's log" } },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int code = cases[i].code ? cases[i].code : EIO;
		struct instance instance;
		struct error err = { 0 };
		struct spec spec;

		make_instance(&spec, &instance, cases[i].uri, cases[i].options);
		assert_int_equal(
			nbd_explain(&err, &instance, "PLACE", cases[i].code, cases[i].text), -code);
		assert_int_equal(err.code, code);
		check_words(err.text, cases[i].words);
		spec_close(&spec);
	}
}

static void test_a_name_that_does_not_resolve(void **state)
{
	struct error err = { 0 };

	(void)state;
	nbd_resolve_error(&err, ENOENT, "stoarge", "Name or service not known");
	assert_non_null(strstr(err.text, "'stoarge': Name or service not known: check the name"));
	nbd_resolve_error(&err, ETIMEDOUT, "storage", "Temporary failure in name resolution");
	assert_non_null(strstr(err.text, "resolv.conf"));
}

/* ---- servers ---- */

/* Connects to BEFORE?socket=SOCKET, which must fail with these words and the socket's path. */
static void refused(const char *socket, const char *before, const char *option,
		    const char *const *words)
{
	const char *const options[2] = { option };
	struct instance instance;
	struct error err = { 0 };
	struct spec spec;
	char uri[256];

	snprintf(uri, sizeof(uri), "%s?socket=%s", before, socket);
	make_instance(&spec, &instance, uri, options);
	assert_null(nbd_connect_now(&instance, NULL, false, 10000, nbd_aio_is_ready, &err));
	check_words(err.text, words);
	if (!strncmp(err.text, uri, strlen(uri)) || !strstr(err.text, socket))
		fail_msg("%s", err.text);
	spec_close(&spec);
}

static void end_server(void)
{
	remote_end();
	unlink(temp_path("socket"));
}

static void test_a_server_without_the_export(void **state)
{
	const char *const words[] = { "file", NULL, NULL };
	const char *const expected[] = { " has no export 'nope': ",
					 "ublkctl nbd-list 'nbd+unix:///?", NULL };
	const char *arguments[3], *socket;
	char directory[300];

	(void)state;
	snprintf(directory, sizeof(directory), "dir=%s", temp_directory());
	memcpy(arguments, words, sizeof(words));
	arguments[1] = directory;
	socket = remote_start(temp_path("socket"), arguments);
	if (!socket)
		skip();
	refused(socket, "nbd+unix:///nope", NULL, expected);
	end_server();
}

static void test_a_server_without_tls(void **state)
{
	const char *const words[] = { "memory", "1M", NULL };
	const char *const expected[] = { " offers no TLS: ", "write nbd+unix:// for nbds+unix://",
					 NULL };
	const char *socket = remote_start(temp_path("socket"), words);
	char option[300];
	FILE *keys;

	(void)state;
	if (!socket)
		skip();
	snprintf(option, sizeof(option), "tls-psk-file=%s", temp_path("keys"));
	keys = fopen(temp_path("keys"), "w");
	assert_non_null(keys);
	fputs("lab:00112233445566778899aabbccddeeff\n", keys);
	fclose(keys);
	refused(socket, "nbds+unix://lab@/", option, expected);
	end_server();
}

/* One key at the server, another one of the same user here; and none. */
static void test_a_server_with_tls(void **state)
{
	const char *const words[] = { "--tls=require", NULL, "memory", "1M", NULL };
	const char *const wrong[] = { "the TLS handshake with ",
				      "check the user name and the key in", NULL };
	const char *const none[] = { " requires TLS: write nbds+unix:// for nbd+unix://", NULL };
	const char *arguments[5], *socket;
	char option[300], psk[300];
	FILE *keys;

	(void)state;
	snprintf(psk, sizeof(psk), "--tls-psk=%s", temp_path("right"));
	snprintf(option, sizeof(option), "tls-psk-file=%s", temp_path("wrong"));
	for (unsigned i = 0; i < 2; i++) {
		keys = fopen(temp_path(i ? "right" : "wrong"), "w");
		assert_non_null(keys);
		fprintf(keys, "lab:%u0112233445566778899aabbccddeeff\n", i);
		fclose(keys);
	}
	memcpy(arguments, words, sizeof(words));
	arguments[1] = psk;
	socket = remote_start(temp_path("socket"), arguments);
	if (!socket)
		skip();
	refused(socket, "nbds+unix://lab@/", option, wrong);
	refused(socket, "nbd+unix:///", NULL, none);
	end_server();
}

/* ---- programs that are no NBD server ---- */

struct impostor {
	int listener;
	const char *greeting;
};

static void *impostor_main(void *arg)
{
	const struct impostor *i = arg;
	char first;
	int fd = accept(i->listener, NULL, NULL);

	if (fd < 0)
		return NULL;
	if (*i->greeting)
		send(fd, i->greeting, strlen(i->greeting), MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	while (read(fd, &first, 1) > 0)
		;
	close(fd);
	return NULL;
}

static void test_a_program_that_is_no_server(void **state)
{
	static const struct {
		const char *greeting, *words[2];
	} cases[] = {
		{ "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", { "is not an NBD server" } },
		{ "", { "closed the connection during the handshake" } },
	};
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	pthread_t thread;

	(void)state;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", temp_path("impostor"));
	for (unsigned i = 0; i < 2; i++) {
		struct impostor impostor = { socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
					     cases[i].greeting };

		assert_int_equal(bind(impostor.listener, (const struct sockaddr *)&at, sizeof(at)),
				 0);
		assert_int_equal(listen(impostor.listener, 1), 0);
		assert_int_equal(pthread_create(&thread, NULL, impostor_main, &impostor), 0);
		refused(at.sun_path, "nbd+unix:///x", NULL, cases[i].words);
		pthread_join(thread, NULL);
		close(impostor.listener);
		unlink(at.sun_path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_text_has_its_cure),
		cmocka_unit_test(test_a_name_that_does_not_resolve),
		cmocka_unit_test(test_a_server_without_the_export),
		cmocka_unit_test(test_a_server_without_tls),
		cmocka_unit_test(test_a_server_with_tls),
		cmocka_unit_test(test_a_program_that_is_no_server),
	};
	int failed;

	bound_time(60);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
