/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend's reading of a URI, and of the facts that a server states.
 */
#include "backends/nbd/server.h"
#include "backends/nbd/connect.h"
#include "backends/nbd/tls.h"
#include "common/log.h"
#include "engine/spec.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1u << 20)

/* A spec and its export, from a URI and at most three options of the backend's. */
static void make_export(struct spec *spec, struct instance *instance, const char *uri,
			const char *const *options)
{
	struct error err;

	if (spec_open(spec, uri, &err))
		fail_msg("%s", err.text);
	assert_string_equal(spec->backend->scheme, "nbd");
	for (unsigned i = 0; i < 3 && options && options[i]; i++)
		if (spec_set_backend(spec, options[i], &err))
			fail_msg("%s %s: %s", uri, options[i], err.text);
	spec_to_instance(spec, instance);
}

static void test_uris_and_options(void **state)
{
	static const struct {
		const char *uri, *options[3];
		const char *refused; /* a word of the message; NULL: it is fine */
	} cases[] = {
		{ "nbd://host/name", { NULL }, NULL },
		{ "nbd://host:10810", { NULL }, NULL },
		{ "nbd://host", { NULL }, NULL },
		{ "nbd://[::1]:10809/", { NULL }, NULL },
		{ "nbd+unix:///?socket=/run/x", { NULL }, NULL },
		{ "nbd+unix:///name?socket=/run/x", { NULL }, NULL },
		{ "nbd+vsock://2:10809/name", { NULL }, NULL },
		{ "nbd://host:/", { NULL }, "port" },
		{ "nbd://host:x/", { NULL }, "port" },
		{ "nbd://host:65536/", { NULL }, "port" },
		{ "nbd://[::1]x/", { NULL }, "port" },
		{ "nbd://[]/", { NULL }, "host" },
		{ "nbd:", { NULL }, "nbd://HOST" },
		{ "nbd:host", { NULL }, "nbd://HOST" },
		{ "nbd:/host", { NULL }, "nbd://HOST" },
		{ "nbd://", { NULL }, "host" },
		{ "nbd:///name", { NULL }, "host" },
		{ "nbd://?socket=/x", { NULL }, "host" },
		{ "nbds:///name", { "tls-verify=off" }, "host" },
		{ "nbd+vsock:///name", { NULL }, "host" },
		{ "nbd+unix:///name", { NULL }, "socket" },
		{ "nbds+unix:///name", { "tls-verify=off" }, "socket" },
		{ "nbds://host/", { "tls-verify=off" }, NULL },
		{ "nbds://host/", { "tls=require", "tls-verify=off" }, NULL },
		{ "nbds://host/", { "tls-allow-unfixed" }, NULL },
		{ "nbds://host/", { "tls-psk-file=/x" }, NULL },
		{ "nbds://host/", { "tls-psk-file=/x", "tls-username=u" }, NULL },
		{ "nbds://host/?tls-psk-file=/x", { NULL }, NULL },
		{ "nbds+unix:///?socket=/x", { "tls-psk-file=/x" }, NULL },
		{ "nbds://host/", { "tls=off", "tls-verify=off" }, "tls" },
		{ "nbds://host/", { "tls=on", "tls-verify=off" }, "tls" },
		{ "nbd://host/", { "tls=on", "tls-verify=off" }, NULL },
		{ "nbd://host/", { "tls=require", "tls-psk-file=/x" }, NULL },
		{ "nbd://host/", { "tls=off" }, NULL },
		/* They would do nothing. */
		{ "nbd://host/", { "tls-psk-file=/x" }, "tls-psk-file" },
		{ "nbd://host/", { "tls-certificates=/x" }, "tls-certificates" },
		{ "nbd://host/", { "tls-verify=off" }, "tls-verify" },
		{ "nbd://host/", { "tls-username=u", "tls=off" }, "tls-username" },
		{ "nbd+unix:///?socket=/x", { "tls-allow-unfixed" }, "tls-allow-unfixed" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct error err = { 0 };
		struct instance instance;
		struct spec spec;
		int ret;

		make_export(&spec, &instance, cases[i].uri, cases[i].options);
		ret = nbd_server_check(&instance, &err);
		if (ret != (cases[i].refused ? -EINVAL : 0) ||
		    (cases[i].refused && !strstr(err.text, cases[i].refused)))
			fail_msg("case %u, %s: %d '%s'", i, cases[i].uri, ret, err.text);
		spec_close(&spec);
	}
}

/* ---- the device that an export makes ---- */

static const struct nbd_facts plain = {
	.size = 8 * MIB,
	.min_block = 1,
	.preferred_block = 4096,
	.max_block = 32 * MIB,
	.flush = true,
	.fua = true,
	.trim = true,
	.zero = true,
	.fast_zero = true,
	.multi_conn = true,
	.structured = true,
};

static struct backend_limits limits_of(struct nbd_facts facts, uint32_t block_size, bool read_only)
{
	struct instance instance = {
		.name = "test",
		.block_size = block_size,
		.read_only = read_only,
		.max_io = MIB,
	};
	struct backend_limits l = { 0 };
	struct error err;

	if (nbd_facts_to_limits(&facts, &instance, &l, &err))
		fail_msg("%s", err.text);
	return l;
}

static void test_the_device_has_the_abilities_of_the_server(void **state)
{
	struct nbd_facts f = plain;
	struct backend_limits l = limits_of(f, 0, false);

	(void)state;
	assert_int_equal(l.size, 8 * MIB);
	assert_int_equal(l.logical_block, 512);
	assert_int_equal(l.physical_block, 4096);
	assert_int_equal(l.min_io, 4096);
	assert_int_equal(l.max_io, MIB);
	assert_true(l.volatile_cache && l.fua && !l.read_only && !l.rotational);
	assert_true(l.max_discard >= MIB && l.max_discard % 4096 == 0);
	assert_true(l.max_write_zeroes >= MIB && l.max_write_zeroes % 4096 == 0);

	f.trim = false;
	assert_int_equal(limits_of(f, 0, false).max_discard, 0);
	assert_true(limits_of(f, 0, false).max_write_zeroes);
	f.zero = false;
	assert_int_equal(limits_of(f, 0, false).max_write_zeroes, 0);
	f.fua = false;
	assert_true(limits_of(f, 0, false).volatile_cache && !limits_of(f, 0, false).fua);
	/* FUA alone still needs a cache, for the kernel to send it. */
	f.flush = false;
	f.fua = true;
	assert_true(limits_of(f, 0, false).volatile_cache && limits_of(f, 0, false).fua);
	f.fua = false;
	assert_false(limits_of(f, 0, false).volatile_cache);
	f.rotational = true;
	assert_true(limits_of(f, 0, false).rotational);
}

static void test_read_only_whoever_says_so(void **state)
{
	struct nbd_facts f = plain;

	(void)state;
	f.read_only = true;
	for (unsigned i = 0; i < 2; i++) {
		struct backend_limits l = limits_of(i ? plain : f, 0, i);

		assert_true(l.read_only);
		assert_false(l.volatile_cache || l.fua || l.max_discard || l.max_write_zeroes);
	}
}

static void test_block_sizes(void **state)
{
	struct nbd_facts f = plain;

	(void)state;
	/* Nothing is said. */
	f.min_block = f.preferred_block = f.max_block = 0;
	assert_int_equal(limits_of(f, 0, false).logical_block, 512);
	assert_int_equal(limits_of(f, 0, false).max_io, MIB);
	assert_int_equal(limits_of(f, 0, false).physical_block, 0);
	f.min_block = 4096;
	assert_int_equal(limits_of(f, 0, false).logical_block, 4096);
	assert_int_equal(limits_of(f, 4096, false).logical_block, 4096);
	f.min_block = 1024;
	assert_int_equal(limits_of(f, 2048, false).logical_block, 2048);
	f.max_block = 65536;
	assert_int_equal(limits_of(f, 0, false).max_io, 65536);
	f.preferred_block = 65536;
	assert_int_equal(limits_of(f, 0, false).min_io, 65536);
	assert_int_equal(limits_of(f, 0, false).physical_block, 4096);
	/* A size that is smaller than what was asked for, and one that makes no sense. */
	f.preferred_block = 1024;
	assert_true(limits_of(f, 4096, false).physical_block == 0 ||
		    limits_of(f, 4096, false).physical_block == 4096);
	f.preferred_block = 3000;
	assert_int_equal(limits_of(f, 0, false).min_io, 0);
	/* A size of no whole blocks. */
	f.size = 8 * MIB + 1023;
	assert_int_equal(limits_of(f, 0, false).size, 8 * MIB);
	assert_int_equal(limits_of(f, 4096, false).size, 8 * MIB);
}

static void test_block_sizes_that_no_device_can_have(void **state)
{
	static const struct {
		uint32_t min, max, asked;
	} bad[] = {
		{ 8192, 0, 0 }, { 65536, 0, 0 }, { 4096, 0, 512 }, { 1024, 0, 512 },
		{ 1, 2048, 0 }, { 1536, 0, 0 },  { 1, 1, 0 },      { 512, 4095, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct instance instance = { .name = "test",
					     .block_size = bad[i].asked,
					     .max_io = MIB };
		struct backend_limits l = { 0 };
		struct nbd_facts f = plain;
		struct error err = { 0 };

		f.min_block = bad[i].min;
		f.max_block = bad[i].max;
		if (nbd_facts_to_limits(&f, &instance, &l, &err) != -EINVAL)
			fail_msg("%u to %u, %u asked for", bad[i].min, bad[i].max, bad[i].asked);
		assert_true(*err.text);
	}
}

/* ---- a server that comes back another ---- */

#define FACT(member, value) offsetof(struct nbd_facts, member), sizeof(plain.member), value

static void test_a_returning_server_must_have_the_same_export(void **state)
{
	static const struct {
		size_t at, bytes;
		uint64_t value;
		bool several, reading, fine; /* fine: for a device that writes */
	} cases[] = {
		{ FACT(size, 8 * MIB), true, true, true },
		{ FACT(size, 16 * MIB), true, true, true },
		{ FACT(size, 8 * MIB - 512), true, false, false },
		{ FACT(size, 0), true, false, false },
		{ FACT(min_block, 512), true, true, true },
		{ FACT(min_block, 0), true, true, true },
		{ FACT(min_block, 1024), true, false, false },
		{ FACT(max_block, MIB), true, true, true },
		{ FACT(max_block, 0), true, true, true },
		{ FACT(max_block, MIB - 4096), true, false, false },
		{ FACT(preferred_block, 65536), true, true, true },
		{ FACT(read_only, true), true, true, false },
		{ FACT(flush, false), true, true, false },
		{ FACT(fua, false), true, true, false },
		{ FACT(zero, false), true, true, false },
		{ FACT(trim, false), true, true, true },
		{ FACT(fast_zero, false), true, true, true },
		{ FACT(structured, false), true, true, true },
		{ FACT(rotational, true), true, true, true },
		{ FACT(multi_conn, false), true, true, false },
		{ FACT(multi_conn, false), false, true, true },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (unsigned read_only = 0; read_only < 2; read_only++) {
			struct backend_limits l = limits_of(plain, 0, read_only);
			bool fine = read_only ? cases[i].reading : cases[i].fine;
			struct nbd_facts now = plain;
			struct error err = { 0 };
			int ret;

			/* Little-endian or not: the members are of 1, 4 and 8 bytes. */
			if (cases[i].bytes == 1)
				*((bool *)&now + cases[i].at) = cases[i].value;
			else if (cases[i].bytes == 4)
				*(uint32_t *)((char *)&now + cases[i].at) =
					(uint32_t)cases[i].value;
			else
				*(uint64_t *)((char *)&now + cases[i].at) = cases[i].value;
			ret = nbd_facts_match(&plain, &now, &l, cases[i].several, &err);
			if (ret != (fine ? 0 : -ESTALE) || (ret && !*err.text))
				fail_msg("case %u, %s: %d '%s'", i,
					 read_only ? "read-only" : "writable", ret, err.text);
		}
}

/* Abilities that were not there before may come. */
static void test_a_server_may_come_back_better(void **state)
{
	struct nbd_facts before = { .size = 8 * MIB };
	struct backend_limits l = limits_of(before, 0, false);
	struct error err;

	(void)state;
	assert_int_equal(nbd_facts_match(&before, &plain, &l, true, &err), 0);
}

/* ---- key and certificate files ---- */

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(temp_path(name), "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void refused_keys(const char *path, const char *user, const char *word)
{
	struct error err = { 0 };

	if (nbd_tls_check_keys(path, user, &err) != -err.code || !err.code ||
	    !strstr(err.text, word))
		fail_msg("'%s', not '%s'", err.text, word);
	/* Of what is in the file nothing is told. */
	assert_null(strstr(err.text, "5ec2e7"));
}

static void test_a_bad_key_file_is_named(void **state)
{
	struct error err;

	(void)state;
	refused_keys(temp_path("nothere"), "u", "No such file");
	refused_keys("/", "u", "directory");
	write_file("keys", "");
	refused_keys(temp_path("keys"), "u", "no key");
	write_file("keys", "5ec2e7\n");
	refused_keys(temp_path("keys"), "u", "no key");
	write_file("keys", "other:5ec2e7\nuser:5ec2e7\n");
	refused_keys(temp_path("keys"), "u", "'u'");
	assert_int_equal(nbd_tls_check_keys(temp_path("keys"), "user", &err), 0);
	assert_int_equal(nbd_tls_check_keys(temp_path("keys"), NULL, &err), 0);
}

static void refused_directory(const char *path, const char *word)
{
	struct error err = { 0 };

	if (nbd_tls_check_directory("test", path, &err) != -err.code || !err.code ||
	    !strstr(err.text, word))
		fail_msg("'%s', not '%s'", err.text, word);
}

static void test_names_the_missing_certificate_file(void **state)
{
	char directory[512];
	struct error err;

	(void)state;
	refused_directory(temp_path("nothere"), "no such directory");
	write_file("file", "");
	refused_directory(temp_path("file"), "not a directory");
	snprintf(directory, sizeof(directory), "%s", temp_path("certificates"));
	assert_int_equal(mkdir(directory, 0700), 0);
	refused_directory(directory, "neither ca-cert.pem");
	write_file("certificates/client-cert.pem", "");
	refused_directory(directory, "no client-key.pem");
	write_file("certificates/client-key.pem", "");
	assert_int_equal(nbd_tls_check_directory("test", directory, &err), 0);
	unlink(temp_path("certificates/client-cert.pem"));
	write_file("certificates/ca-cert.pem", "");
	refused_directory(directory, "no client-cert.pem");
	unlink(temp_path("certificates/client-key.pem"));
	assert_int_equal(nbd_tls_check_directory("test", directory, &err), 0);
	/* A symlink that leads nowhere cannot be read, whoever tries. */
	unlink(temp_path("certificates/ca-cert.pem"));
	assert_int_equal(symlink("ca-cert.pem", temp_path("certificates/ca-cert.pem")), 0);
	refused_directory(directory, "ca-cert.pem': Too many levels");
}

/* The first connection refuses it, before it touches the network. */
static void test_bad_files_are_refused_before_the_server_is_asked(void **state)
{
	static const char *const options[][3] = {
		{ "tls-psk-file=/nothere/keys" },
		{ "tls-certificates=/nothere", "tls-allow-unfixed" },
	};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct error err = { 0 };
		struct instance instance;
		struct spec spec;

		make_export(&spec, &instance, "nbds://127.0.0.1:1/", options[i]);
		assert_null(nbd_connect_now(&instance, NULL, false, 1000, nbd_aio_is_ready, &err));
		if (!strstr(err.text, "/nothere"))
			fail_msg("%s", err.text);
		spec_close(&spec);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uris_and_options),
		cmocka_unit_test(test_the_device_has_the_abilities_of_the_server),
		cmocka_unit_test(test_read_only_whoever_says_so),
		cmocka_unit_test(test_block_sizes),
		cmocka_unit_test(test_block_sizes_that_no_device_can_have),
		cmocka_unit_test(test_a_returning_server_must_have_the_same_export),
		cmocka_unit_test(test_a_server_may_come_back_better),
		cmocka_unit_test(test_a_bad_key_file_is_named),
		cmocka_unit_test(test_names_the_missing_certificate_file),
		cmocka_unit_test(test_bad_files_are_refused_before_the_server_is_asked),
	};
	int failed;

	bound_time(60);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
