/* SPDX-License-Identifier: MIT */
#include "engine/backend.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "tools/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_device_names(void **state)
{
	static const struct {
		const char *text;
		uint32_t id;
	} good[] = {
		{ "0", 0 },
		{ "12", 12 },
		{ "/dev/ublkb3", 3 },
		{ "/dev/ublkc3", 3 },
		{ "ublkb4", 4 },
		{ "ublkc40", 40 },
		{ "4294967294", 4294967294u },
	};
	static const char *const bad[] = {
		"",
		"x",
		"-1",
		"+1",
		" 1",
		"1 ",
		"1x",
		"0x1",
		"/dev/sda",
		"/dev/ublkb",
		"ublkb",
		"/dev/ublkb-1",
		"ublkbx",
		"4294967295",
		"9999999999",
		"/dev/ublkb3p1",
		"ublk-control",
		"99999999999999999999999",
	};
	struct error err;
	uint32_t id;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(cli_device_id(good[i].text, &id, &err), 0);
		assert_int_equal(id, good[i].id);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (cli_device_id(bad[i], &id, &err) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(err.text, bad[i]));
	}
}

/* ---- parsing: what each option came as is written down in order ---- */

static char seen[400];

static int set(void *context, const struct option_def *def, const char *text, struct error *err)
{
	struct option_value value;

	assert_ptr_equal(context, seen);
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s=%s;", def->name,
		 text ? text : "(none)");
	return option_parse(def, text, &value, err);
}

static int set_backend(void *context, const char *assignment, struct error *err)
{
	assert_ptr_equal(context, seen);
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "-o %s;", assignment);
	return strcmp(assignment, "bad") ? 0 : error_set(err, EINVAL, "bad is bad");
}

static const struct option_def first_table[] = {
	{ "read-only", OPTION_FLAG, NULL, "off", 0, 0, "a flag" },
	{ "depth", OPTION_COUNT, NULL, "128", 1, 4096, "a count" },
	{ .name = NULL },
};
static const struct option_def second_table[] = {
	{ "size", OPTION_SIZE, NULL, NULL, 0, 0, "a size" },
	{ .name = NULL },
};
static const struct option_def *const tables[] = { first_table, second_table, NULL };
static const struct verb verb = { .name = "try", .arguments = "[OPTIONS] X", .summary = "a try" };

#define MOST 12

static int parse(bool with_o, const char *const *words, int *operand, char **argv,
		 struct error *err)
{
	struct cli cli = {
		.verb = &verb,
		.tables = tables,
		.set = set,
		.set_backend = with_o ? set_backend : NULL,
		.context = seen,
	};
	int argc = 0;

	seen[0] = 0;
	argv[argc++] = (char *)(uintptr_t) "try";
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	argv[argc] = NULL;
	return cli_parse(&cli, argc, argv, operand, err);
}

static void test_options_of_all_tables(void **state)
{
	static const char *const words[] = { "--read-only", "--depth", "5",   "uri", "--size=4K",
					     "-o",          "a=b",     "-oc", NULL };
	char *argv[MOST];
	struct error err;
	int operand;

	(void)state;
	/* Twice: getopt keeps state of its own, and 'run' reads its line twice. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(parse(true, words, &operand, argv, &err), 0);
		assert_string_equal(seen, "read-only=(none);depth=5;size=4K;-o a=b;-o c;");
		assert_string_equal(argv[operand], "uri");
		assert_null(argv[operand + 1]);
	}
}

static void test_refusals_name_the_word(void **state)
{
	static const struct {
		const char *words[MOST];
		const char *about;
	} bad[] = {
		{ { "--colour", "x" }, "'--colour'" },
		{ { "--colour=x" }, "'--colour=x'" },
		{ { "uri", "--nosuch" }, "'--nosuch'" },
		{ { "-x" }, "'-x'" },
		{ { "--depth" }, "'--depth'" },
		{ { "--depth", "0" }, "depth: '0'" },
		{ { "--depth=many" }, "depth: 'many'" },
		{ { "--read-only=perhaps" }, "read-only: 'perhaps'" },
		{ { "-o" }, "'-o'" },
		{ { "-o", "bad" }, "bad is bad" },
	};
	char *argv[MOST];
	struct error err;
	int operand;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err = (struct error){ 0 };
		assert_int_equal(parse(true, bad[i].words, &operand, argv, &err), -EINVAL);
		if (!strstr(err.text, bad[i].about))
			fail_msg("'%s' does not say %s", err.text, bad[i].about);
	}
	assert_int_equal(parse(false, (const char *const[]){ "-o", "a=b", NULL }, &operand, argv,
			       &err),
			 -EINVAL);
}

static void test_everything_after_two_dashes_is_an_operand(void **state)
{
	static const char *const words[] = { "--depth=3", "--", "--size=4K", NULL };
	char *argv[MOST];
	struct error err;
	int operand;

	(void)state;
	assert_int_equal(parse(false, words, &operand, argv, &err), 0);
	assert_string_equal(seen, "depth=3;");
	assert_string_equal(argv[operand], "--size=4K");
}

/* A verb's output on stdout, and its exit status. */
static int output_of(const struct verb *v, const char *const *words, char *out, size_t size)
{
	char *argv[MOST];
	int argc = 0, ends[2], status;
	size_t length = 0;
	ssize_t got;
	pid_t child;

	argv[argc++] = (char *)(uintptr_t)v->name;
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	argv[argc] = NULL;
	assert_int_equal(pipe(ends), 0);
	fflush(stdout);
	child = fork();
	if (!child) {
		dup2(ends[1], STDOUT_FILENO);
		close(ends[0]);
		close(ends[1]);
		status = v->main(v, argc, argv);
		fflush(stdout);
		_exit(status);
	}
	assert_true(child > 0);
	close(ends[1]);
	while ((got = read(ends[0], out + length, size - 1 - length)) > 0)
		length += (size_t)got;
	out[length] = 0;
	close(ends[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_check_config_says_where_each_error_is(void **state)
{
	const char *words[] = { "--json", NULL, NULL };
	char out[4096], directory[200];
	json_t *said, *errors, *error;
	json_error_t parsing;
	const char *file;
	FILE *f;

	(void)state;
	snprintf(directory, sizeof(directory), "%s", temp_path("config"));
	assert_int_equal(mkdir(directory, 0755), 0);
	words[1] = directory;
	assert_int_equal(output_of(&verb_check_config, words, out, sizeof(out)), EXIT_DONE);
	said = json_loads(out, 0, &parsing);
	assert_string_equal(json_string_value(json_object_get(said, "directory")), directory);
	assert_int_equal(json_integer_value(json_object_get(said, "exports")), 0);
	assert_int_equal(json_array_size(json_object_get(said, "errors")), 0);
	json_decref(said);
	assert_int_equal(output_of(&verb_check_config, words + 1, out, sizeof(out)), EXIT_DONE);
	assert_non_null(strstr(out, directory));
	assert_non_null(strstr(out, ": 0 exports, no error\n"));
	file = temp_path("config/ublkd.conf");
	f = fopen(file, "w");
	assert_non_null(f);
	fputs("[ublkd]\nno-such-key = 1\n", f);
	fclose(f);
	assert_int_equal(output_of(&verb_check_config, words, out, sizeof(out)), EXIT_FAILED);
	said = json_loads(out, 0, &parsing);
	errors = json_object_get(said, "errors");
	assert_int_equal(json_array_size(errors), 1);
	error = json_array_get(errors, 0);
	assert_string_equal(json_string_value(json_object_get(error, "file")),
			    temp_path("config/ublkd.conf"));
	assert_int_equal(json_integer_value(json_object_get(error, "line")), 2);
	assert_null(json_object_get(error, "export"));
	assert_non_null(strstr(json_string_value(json_object_get(error, "reason")), "no-such-key"));
	json_decref(said);
	assert_int_equal(output_of(&verb_check_config, words + 1, out, sizeof(out)), EXIT_FAILED);
	assert_non_null(strstr(out, ": 0 exports, 1 error\n"));
	words[1] = "/nonexistent";
	assert_int_equal(output_of(&verb_check_config, words, out, sizeof(out)), EXIT_FAILED);
	unlink(temp_path("config/ublkd.conf"));
	rmdir(directory);
	temp_remove();
}

/* A kernel that is newer than this program. */
static void test_features_names_a_bit_that_is_not_known_yet(void **state)
{
	const char *words[] = { NULL, NULL };
	struct fake_kernel newer = fake_linux_7_2;
	char out[8192];

	(void)state;
	newer.features |= 1ull << 40;
	fake_start(&newer);
	assert_int_equal(output_of(&verb_features, words, out, sizeof(out)), EXIT_DONE);
	assert_non_null(strstr(out, "unknown bit 40"));
	words[0] = "--json";
	assert_int_equal(output_of(&verb_features, words, out, sizeof(out)), EXIT_DONE);
	fake_stop();
}

/* An option of the backend is read before any server is reached. */
static void test_nbd_list_reads_the_backends_options(void **state)
{
	const char *words[] = { "-o", "no-such-option=1", "nbd+unix:///?socket=/nonexistent",
				NULL };
	char out[4096];

	(void)state;
	assert_int_equal(output_of(&verb_nbd_list, words, out, sizeof(out)), EXIT_USAGE);
	words[1] = "reconnect-delay=1";
	assert_int_not_equal(output_of(&verb_nbd_list, words, out, sizeof(out)), EXIT_DONE);
	assert_string_equal(out, "");
}

/* The tables that backends keep are all that 'backends' shows. */
static void test_backends_shows_every_option(void **state)
{
	static char text[1 << 16];
	const struct backend *b;
	json_t *all;

	(void)state;
	assert_int_equal(output_of(&verb_backends, (const char *const[]){ NULL }, text,
				   sizeof(text)),
			 EXIT_DONE);
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		assert_non_null(strstr(text, b->syntax));
		for (unsigned o = 0; o < option_count(b->options); o++)
			assert_non_null(strstr(text, b->options[o].help));
	}
	assert_int_equal(output_of(&verb_backends, (const char *const[]){ "--json", NULL }, text,
				   sizeof(text)),
			 EXIT_DONE);
	all = json_loads(text, 0, NULL);
	assert_non_null(all);
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		json_t *one = json_array_get(all, i);

		assert_string_equal(json_string_value(json_object_get(one, "scheme")), b->scheme);
		assert_int_equal(json_array_size(json_object_get(one, "options")),
				 option_count(b->options));
	}
	json_decref(all);
}

static void test_help_exits_well_and_bad_use_does_not(void **state)
{
	static const struct verb *const verbs[] = { &verb_backends, &verb_features, &verb_list,
						    &verb_remove, &verb_run };
	char text[1 << 14];

	(void)state;
	for (unsigned i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		assert_int_equal(output_of(verbs[i], (const char *const[]){ "--help", NULL }, text,
					   sizeof(text)),
				 EXIT_DONE);
		assert_non_null(strstr(text, verbs[i]->summary));
		assert_int_equal(output_of(verbs[i], (const char *const[]){ "--nosuch", NULL },
					   text, sizeof(text)),
				 EXIT_USAGE);
		assert_int_equal(output_of(verbs[i], (const char *const[]){ "a", "b", NULL }, text,
					   sizeof(text)),
				 EXIT_USAGE);
		assert_string_equal(text, "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_names),
		cmocka_unit_test(test_options_of_all_tables),
		cmocka_unit_test(test_refusals_name_the_word),
		cmocka_unit_test(test_everything_after_two_dashes_is_an_operand),
		cmocka_unit_test(test_backends_shows_every_option),
		cmocka_unit_test(test_check_config_says_where_each_error_is),
		cmocka_unit_test(test_features_names_a_bit_that_is_not_known_yet),
		cmocka_unit_test(test_nbd_list_reads_the_backends_options),
		cmocka_unit_test(test_help_exits_well_and_bad_use_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
