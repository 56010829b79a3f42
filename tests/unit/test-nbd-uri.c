/* SPDX-License-Identifier: MIT */
/*
 * The parts of an NBD URI: as they are written here, and as libnbd finds them.
 */
#include "backends/nbd/uri.h"
#include "common/error.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <libnbd.h>

static const struct {
	const char *uri;
	bool tls, unix_socket, vsock;
	const char *host, *user, *name, *socket;
} cases[] = {
	{ "nbd://host", false, false, false, "host", NULL, "", NULL },
	{ "nbd://host/", false, false, false, "host", NULL, "", NULL },
	{ "nbd://host:10810/disk", false, false, false, "host:10810", NULL, "disk", NULL },
	{ "nbds://alice@[::1]:10809/a/b", true, false, false, "[::1]:10809", "alice", "a/b", NULL },
	{ "nbds://al%40ice@host/%2f%20x", true, false, false, "host", "al@ice", "/ x", NULL },
	{ "nbd+vsock://2:10809/x", false, false, true, "2:10809", NULL, "x", NULL },
	{ "nbds+vsock://", true, false, true, "", NULL, "", NULL },
	{ "nbd+unix:///?socket=/run/x", false, true, false, "", NULL, "", "/run/x" },
	{ "nbd+unix://?socket=/run/x", false, true, false, "", NULL, "", "/run/x" },
	{ "nbd+unix:///name?socket=/run/x", false, true, false, "", NULL, "name", "/run/x" },
	{ "nbd+unix:////name?socket=x", false, true, false, "", NULL, "/name", "x" },
	{ "nbds+unix://bob@/n?socket=/x", true, true, false, "", "bob", "n", "/x" },
	/* The export's name and the socket's are decoded, after they were parted. */
	{ "nbd+unix:///a%3Fb%26c?socket=/run/%61%20b%2Fc%3d%26d", false, true, false, "", NULL,
	  "a?b&c", "/run/a b/c=&d" },
	{ "nbd+unix:///?a=b&socket=/1&socket=/2&&=x&c", false, true, false, "", NULL, "", "/2" },
	{ "nbd+unix:///?a=b;socket=/1", false, true, false, "", NULL, "", "/1" },
	{ "nbd+unix:///?%73ocket=/1", false, true, false, "", NULL, "", "/1" },
	{ "nbd+unix:///?socket=", false, true, false, "", NULL, "", "" },
	{ "nbd+unix:///?socket", false, true, false, "", NULL, "", "" },
	{ "nbd+unix:///?socket=a=b", false, true, false, "", NULL, "", "a=b" },
	{ "nbd+unix:///?socket=/x?y/z", false, true, false, "", NULL, "", "/x?y/z" },
	{ "nbd+unix:///x?socket=/x#y?z", false, true, false, "", NULL, "x", "/x" },
	{ "nbd+unix:///", false, true, false, "", NULL, "", NULL },
	{ "nbd+unix:///?Socket=/x", false, true, false, "", NULL, "", NULL },
};

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void test_its_parts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct error err = { 0 };
		struct nbd_uri u;

		if (nbd_uri_parse(cases[i].uri, &u, &err))
			fail_msg("%s: %s", cases[i].uri, err.text);
		if (u.tls != cases[i].tls || u.unix_socket != cases[i].unix_socket ||
		    u.vsock != cases[i].vsock || !same(u.host, cases[i].host) ||
		    !same(u.user, cases[i].user) || !same(u.name, cases[i].name) ||
		    !same(u.socket, cases[i].socket))
			fail_msg("%s: host '%s', user '%s', name '%s', socket '%s'", cases[i].uri,
				 u.host, u.user, u.name, u.socket);
		nbd_uri_free(&u);
	}
}

/* libnbd says nothing of a URI's parts before it connects, and nothing listens here. */
static void test_libnbd_finds_the_same(void **state)
{
	char *name, *user;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct nbd_handle *h = nbd_create();

		if (!cases[i].unix_socket || !cases[i].socket || !*cases[i].socket) {
			nbd_close(h);
			continue;
		}
		assert_int_equal(nbd_aio_connect_uri(h, cases[i].uri), -1);
		if (nbd_get_errno() != ENOENT)
			fail_msg("%s: %s", cases[i].uri, nbd_get_error());
		name = nbd_get_export_name(h);
		assert_string_equal(name, cases[i].name);
		free(name);
		assert_int_equal(nbd_get_tls(h),
				 cases[i].tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE);
		if (cases[i].user) {
			user = nbd_get_tls_username(h);
			assert_string_equal(user, cases[i].user);
			free(user);
		}
		nbd_close(h);
	}
}

static void test_tls_parameters(void **state)
{
	struct error err;
	struct nbd_uri u;

	(void)state;
	assert_int_equal(nbd_uri_parse("nbds://h/?tls-certificates=/a%20b&tls-psk-file=%2Fc"
				       "&tls-hostname=d&tls-verify-peer=No",
				       &u, &err),
			 0);
	assert_string_equal(u.tls_certificates, "/a b");
	assert_string_equal(u.tls_psk_file, "/c");
	assert_string_equal(u.tls_hostname, "d");
	assert_true(nbd_uri_trusts_any_peer(&u));
	nbd_uri_free(&u);
	assert_int_equal(nbd_uri_parse("nbds://h/?tls-verify-peer=1", &u, &err), 0);
	assert_false(nbd_uri_trusts_any_peer(&u));
	nbd_uri_free(&u);
	assert_int_equal(nbd_uri_parse("nbds://h/", &u, &err), 0);
	assert_false(nbd_uri_trusts_any_peer(&u));
	nbd_uri_free(&u);
}

static void test_refuses_bad_uris(void **state)
{
	static const char *const bad[] = {
		"",
		"nbd",
		"nbd:host",
		"nbd:/host",
		"nbdx://host/",
		"nbd+unixx:///?socket=/x",
		"nbd+://host/",
		"http://host/",
		"nbd://host/a b",
		"nbd://host/\x01",
		"nbd://host/\xc3\xa4",
		"nbd://host/%",
		"nbd://host/%2",
		"nbd://host/%2g",
		"nbd://host/%00",
		"nbd+unix:///?socket=/x%",
		"nbd+unix:///?socket=/x%00y",
		"nbd+unix:///?socket={x}",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct error err = { 0 };
		struct nbd_uri u;

		if (nbd_uri_parse(bad[i], &u, &err) != -EINVAL || !*err.text)
			fail_msg("'%s' is taken", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_its_parts),
		cmocka_unit_test(test_libnbd_finds_the_same),
		cmocka_unit_test(test_tls_parameters),
		cmocka_unit_test(test_refuses_bad_uris),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
