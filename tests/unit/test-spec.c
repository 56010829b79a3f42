/* SPDX-License-Identifier: MIT */
#include "engine/buffer.h"
#include "common/cpus.h"
#include "engine/spec.h"
#include "engine/ublk_abi.h"
#include "tests/unit/test.h"

#include <errno.h>

/* ---- a backend of several schemes ---- */

static int many_open(struct instance *instance, struct error *err)
{
	instance->limits = (struct backend_limits){ .size = 4096, .logical_block = 512 };
	(void)err;
	return 0;
}

static void many_close(struct instance *instance)
{
	(void)instance;
}

static void many_submit(struct io *io)
{
	io_complete_zeroes(io);
}

static const char *const many_aliases[] = { "tests", "test+unix", "tests+un.x-2", NULL };

static const struct backend many_backend = {
	.scheme = "test",
	.aliases = many_aliases,
	.syntax = "test:WHERE",
	.summary = "for tests",
	.access = ACCESS_NONE,
	.open = many_open,
	.close = many_close,
	.submit = many_submit,
};
BACKEND_REGISTER(many_backend);

/* ---- URIs ---- */

static void test_finds_the_backend(void **state)
{
	static const struct {
		const char *uri, *scheme, *locator;
	} uris[] = {
		{ "memory:512M", "memory", "512M" },
		{ "null:1T", "null", "1T" },
		{ "file:/a/b", "file", "/a/b" },
		{ "file:a:b", "file", "a:b" },
		{ "/a/b", "file", "/a/b" },
		{ "a.img", "file", "a.img" },
		{ "./memory:512M", "file", "./memory:512M" },
		{ "dir/x:y", "file", "dir/x:y" },
		{ "1:2", "file", "1:2" },
		{ "a b:c", "file", "a b:c" },
		{ ":x", "file", ":x" },
		{ "test://host/name", "test", "//host/name" },
		{ "tests://host:1/", "test", "//host:1/" },
		{ "test+unix:///name?socket=/a:b", "test", "///name?socket=/a:b" },
		{ "tests+un.x-2:", "test", "" },
		{ "./test+unix:x", "file", "./test+unix:x" },
		{ "test+unix", "file", "test+unix" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(uris) / sizeof(*uris); i++) {
		struct error err = { 0 };
		struct instance instance;
		struct spec spec;

		if (spec_open(&spec, uris[i].uri, &err))
			fail_msg("%s: %s", uris[i].uri, err.text);
		assert_string_equal(spec.backend->scheme, uris[i].scheme);
		assert_string_equal(spec.locator, uris[i].locator);
		assert_string_equal(spec.uri, uris[i].uri);
		/* A backend sees which of its schemes it was. */
		spec_to_instance(&spec, &instance);
		assert_ptr_equal(instance.backend, backend_find(uris[i].scheme));
		assert_string_equal(instance.uri, uris[i].uri);
		assert_string_equal(instance.locator, uris[i].locator);
		spec_close(&spec);
	}
}

static void test_refuses_unknown_schemes(void **state)
{
	static const char *const bad[] = {
		"",       "disk:x",      "Memory:1M", "s3+https://x/y", "x:",
		"Tests:", "test+unix2:", "test+:x",   "unix:x",         "tes:x",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct error err = { 0 };
		struct spec spec;

		assert_int_equal(spec_open(&spec, bad[i], &err), -EINVAL);
		assert_true(err.text[0]);
		/* The message lists what there is, whatever backends that are. */
		for (unsigned b = 0; *bad[i] && backend_at(b); b++)
			assert_non_null(strstr(err.text, backend_at(b)->scheme));
	}
}

static void test_refuses_a_password_and_does_not_repeat_it(void **state)
{
	static const char *const bad[] = {
		"tests://alice:5ec2e7@host/x",       "test://:5ec2e7@host",
		"test+unix://a:5ec2e7@/n?socket=/s", "tests://alice:5ec2e7@[::1]/",
		"disk://alice:5ec2e7@host",          "tests://a:5ec2e7:x@host:1",
	};
	static const char *const good[] = {
		"tests://alice@host:10809/x",
		"tests://host:1/a:b@c",
		"test+unix:///a:b@c?socket=/x",
		"test://host?socket=/a:b@c/d",
		"test:a:b@c",
		"file:///a:b@c",
		"/nothere://a:b@c",
		"test://alice@[::1]:1/x",
	};
	struct error err;
	struct spec spec;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err = (struct error){ 0 };
		assert_int_equal(spec_open(&spec, bad[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "password"));
		assert_null(strstr(err.text, "5ec2e7"));
	}
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		if (spec_open(&spec, good[i], &err))
			fail_msg("%s: %s", good[i], err.text);
		spec_close(&spec);
	}
}

static void test_the_defaults_as_an_export(void **state)
{
	struct instance instance;
	struct error err;
	struct spec spec;

	(void)state;
	assert_int_equal(spec_open(&spec, "memory:8M", &err), 0);
	assert_int_equal(spec_check(&spec, &err), 0);
	spec_to_instance(&spec, &instance);
	assert_ptr_equal(instance.backend, backend_find("memory"));
	assert_string_equal(instance.name, "memory:8M");
	assert_string_equal(instance.locator, "8M");
	assert_false(instance.read_only);
	assert_int_equal(instance.block_size, 0);
	assert_int_equal(instance.nr_queues, cpus_available());
	assert_int_equal(instance.depth, 128);
	assert_int_equal(spec.values[SPEC_MAX_IO].number, 1 << 20);
	assert_int_equal(spec.values[SPEC_IO_PATH].word, IO_PATH_AUTO);
	assert_false(spec.values[SPEC_ID].set);
	spec_close(&spec);
}

static void test_sets_options(void **state)
{
	char text[16] = "5";
	struct instance instance;
	struct error err;
	struct spec spec;

	(void)state;
	assert_int_equal(spec_open(&spec, "memory:8M", &err), 0);
	assert_int_equal(spec_set(&spec, "queues", text, &err), 0);
	/* Copied: the caller's text may go. */
	memset(text, 'x', sizeof(text) - 1);
	assert_string_equal(spec.values[SPEC_QUEUES].text, "5");
	assert_int_equal(spec_set(&spec, "depth", "7", &err), 0);
	assert_int_equal(spec_set(&spec, "block-size", "4K", &err), 0);
	assert_int_equal(spec_set(&spec, "read-only", NULL, &err), 0);
	assert_int_equal(spec_set_backend(&spec, "shard=4M", &err), 0);
	assert_int_equal(spec_check(&spec, &err), 0);
	spec_to_instance(&spec, &instance);
	assert_int_equal(instance.nr_queues, 5);
	assert_int_equal(instance.depth, 7);
	assert_int_equal(instance.block_size, 4096);
	assert_true(instance.read_only);
	assert_int_equal(instance_option(&instance, "shard")->number, 4 << 20);
	spec_close(&spec);
}

/* The words of --io-path are in the order of enum io_path. */
static void test_the_words_of_io_path(void **state)
{
	char word[32];

	(void)state;
	for (unsigned i = 0; i <= IO_PATHS; i++) {
		assert_true(option_word(spec_options[SPEC_IO_PATH].choices, i, word, sizeof(word)));
		assert_string_equal(word, io_path_name((enum io_path)i));
	}
	assert_false(
		option_word(spec_options[SPEC_IO_PATH].choices, IO_PATHS + 1, word, sizeof(word)));
}

/* Rows: what is given, and a word that the message must have. */
static void test_refuses_bad_input(void **state)
{
	static const struct {
		const char *uri, *option, *text, *about;
	} bad[] = {
		{ "memory:9223372036854775296", NULL, NULL, "use a size below 8E" },
		{ "memory:8M", "id", "-1", "id" },
		{ "memory:8M", "id", "x", "id" },
		{ "memory:8M", "id", "9999999", "id" },
		{ "memory:8M", "queues", "0", "queues" },
		{ "memory:8M", "queues", "4097", "queues" },
		{ "memory:8M", "queues", "two", "queues" },
		{ "memory:8M", "depth", "0", "depth" },
		{ "memory:8M", "depth", "5000", "depth" },
		{ "memory:8M", "depth", "4097", "depth" },
		{ "memory:8M", "depth", "", "depth" },
		{ "memory:8M", "block-size", "500", "block-size" },
		{ "memory:8M", "block-size", "256", "block-size" },
		{ "memory:8M", "block-size", "8192", "block-size" },
		{ "memory:8M", "block-size", "3K", "block-size" },
		{ "memory:8M", "max-io", "0", "max-io" },
		{ "memory:8M", "max-io", "2048", "max-io" },
		{ "memory:8M", "max-io", "5000", "max-io" },
		{ "memory:8M", "max-io", "64M", "max-io" },
		{ "memory:8M", "max-io", "33554433", "max-io" },
		{ "memory:8M", "read-only", "yes", "read-only" },
		{ "memory:8M", "io-path", "zero", "io-path" },
		{ "memory:8M", "cpus", "", "cpus" },
		{ "memory:8M", "cpus", "3-1", "cpus" },
		{ "memory:8M", "cpus", "5000", "cpus" },
		{ "memory:8M", "partitions", "maybe", "partitions" },
		{ "memory:8M", "colour", "red", "colour" },
		{ "memory:0", NULL, NULL, "memory:0" },
		{ "memory:", NULL, NULL, "memory:" },
		{ "memory:-1", NULL, NULL, "memory:-1" },
		{ "memory:8E", NULL, NULL, "memory:8E" },
		{ "memory:1X", NULL, NULL, "memory:1X" },
		{ "memory:8M", "shard=3M", NULL, "shard" },
		{ "memory:8M", "shard=2K", NULL, "shard" },
		{ "memory:8M", "shard=2M,limit=1M", NULL, "shard" },
		{ "memory:8M", "limit=0", NULL, "limit" },
		{ "memory:8M", "hugepages=4M", NULL, "hugepages" },
		{ "memory:8M", "numa=far", NULL, "numa" },
		{ "memory:8M", "color=red", NULL, "color" },
		{ "memory:8M", "shard", NULL, "shard" },
		{ "null:0", NULL, NULL, "null:0" },
		{ "null:x", NULL, NULL, "null:x" },
		{ "null:1M", "shard=2M", NULL, "no options" },
		{ "file:", NULL, NULL, "file:" },
		{ "file:/x", "direct=maybe", NULL, "direct" },
		{ "file:/x", "create=0", NULL, "create" },
		{ "file:/x", "create=-5", NULL, "create" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct error err = { 0 };
		struct spec spec;
		int ret;

		assert_int_equal(spec_open(&spec, bad[i].uri, &err), 0);
		if (bad[i].text)
			ret = spec_set(&spec, bad[i].option, bad[i].text, &err);
		else
			ret = bad[i].option ? spec_set_backend(&spec, bad[i].option, &err) : 0;
		if (!ret)
			ret = spec_check(&spec, &err);
		if (ret != -EINVAL || !strstr(err.text, bad[i].about))
			fail_msg("%s %s %s: %d '%s'", bad[i].uri,
				 bad[i].option ? bad[i].option : "", bad[i].text ? bad[i].text : "",
				 ret, err.text);
		spec_close(&spec);
	}
}

static void test_read_only_with_create(void **state)
{
	struct error err;
	struct spec spec;

	(void)state;
	assert_int_equal(spec_open(&spec, "file:/x", &err), 0);
	assert_int_equal(spec_set(&spec, "read-only", NULL, &err), 0);
	assert_int_equal(spec_check(&spec, &err), 0);
	assert_int_equal(spec_set_backend(&spec, "create=1M", &err), 0);
	assert_int_equal(spec_check(&spec, &err), -EINVAL);
	assert_non_null(strstr(err.text, "create"));
	spec_close(&spec);
}

/* A declaration outlives a CPU that is offline now; only a new device asks for one. */
static void test_cpus_that_are_not_there_refuse_a_new_device_only(void **state)
{
	struct error err = { 0 };
	struct spec spec;

	(void)state;
	assert_int_equal(spec_open(&spec, "memory:8M", &err), 0);
	assert_int_equal(spec_check_cpus(&spec, &err), 0);
	assert_int_equal(spec_set(&spec, "cpus", "4095", &err), 0);
	assert_int_equal(spec_check(&spec, &err), 0);
	assert_int_equal(spec_check_cpus(&spec, &err), -EINVAL);
	assert_non_null(strstr(err.text, "4095"));
	assert_int_equal(spec_set(&spec, "cpus", "0-4095", &err), 0);
	assert_int_equal(spec_check_cpus(&spec, &err), 0);
	spec_close(&spec);
}

/* Statements that every backend must make, for users and the other tests to rely on. */
static void test_every_backend_describes_itself(void **state)
{
	const struct backend *b;
	char prefix[64];

	(void)state;
	assert_non_null(backend_at(0));
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		struct option_value values[32];

		/* Of its own schemes, and nobody else's. */
		assert_ptr_equal(backend_find(b->scheme), b);
		for (unsigned a = 0; b->aliases && b->aliases[a]; a++)
			assert_ptr_equal(backend_find(b->aliases[a]), b);
		snprintf(prefix, sizeof(prefix), "%s:", b->scheme);
		assert_memory_equal(b->syntax, prefix, strlen(prefix));
		assert_true(*b->summary && b->summary[strlen(b->summary) - 1] != '.');
		assert_true(b->open && b->close && b->submit);
		assert_true(option_count(b->options) < 32);
		/* Aborts where a default is no value. */
		option_defaults(b->options, values);
		for (unsigned o = 0; o < option_count(b->options); o++) {
			assert_int_equal(option_find(b->options, b->options[o].name), o);
			assert_true(*b->options[o].help);
		}
		for (unsigned g = 0; b->gauges && b->gauges[g]; g++)
			assert_true(g < INSTANCE_GAUGES && strlen(b->gauges[g]) < 32);
	}
	assert_null(backend_find("no-such"));
	assert_null(backend_at(1000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_the_backend),
		cmocka_unit_test(test_refuses_unknown_schemes),
		cmocka_unit_test(test_refuses_a_password_and_does_not_repeat_it),
		cmocka_unit_test(test_the_defaults_as_an_export),
		cmocka_unit_test(test_sets_options),
		cmocka_unit_test(test_the_words_of_io_path),
		cmocka_unit_test(test_refuses_bad_input),
		cmocka_unit_test(test_read_only_with_create),
		cmocka_unit_test(test_cpus_that_are_not_there_refuse_a_new_device_only),
		cmocka_unit_test(test_every_backend_describes_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
