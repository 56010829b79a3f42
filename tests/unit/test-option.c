/* SPDX-License-Identifier: MIT */
#include "common/error.h"
#include "common/option.h"
#include "tests/unit/test.h"

#include <errno.h>

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1", 1 },
		{ "007", 7 },
		{ "512", 512 },
		{ "4K", 4096 },
		{ "4k", 4096 },
		{ "4KiB", 4096 },
		{ "3M", 3ull << 20 },
		{ "3MiB", 3ull << 20 },
		{ "10G", 10ull << 30 },
		{ "1T", 1ull << 40 },
		{ "2p", 2ull << 50 },
		{ "7E", 7ull << 60 },
		{ "9223372036854775807", INT64_MAX },
		{ "9007199254740991K", 9007199254740991ull << 10 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		uint64_t bytes = 1234567;

		if (size_parse(good[i].text, &bytes) || bytes != good[i].bytes)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)bytes);
	}
}

static void test_refuses_bad_sizes(void **state)
{
	static const struct {
		const char *text;
		int code;
	} bad[] = {
		{ "", -EINVAL },
		{ "K", -EINVAL },
		{ "-1", -EINVAL },
		{ "+1", -EINVAL },
		{ " 1", -EINVAL },
		{ "1 ", -EINVAL },
		{ "1 K", -EINVAL },
		{ "1KB", -EINVAL },
		{ "1Ki", -EINVAL },
		{ "1KiBx", -EINVAL },
		{ "1kib", -EINVAL },
		{ "1iB", -EINVAL },
		{ "1X", -EINVAL },
		{ "1.5G", -EINVAL },
		{ "0x10", -EINVAL },
		{ "1e3", -EINVAL },
		{ "1,000", -EINVAL },
		{ "1KK", -EINVAL },
		{ "ten", -EINVAL },
		{ "1\n", -EINVAL },
		{ "8E", -ERANGE },
		{ "16E", -ERANGE },
		{ "8192P", -ERANGE },
		{ "9223372036854775808", -ERANGE },
		{ "18446744073709551616", -ERANGE },
		{ "9007199254740992K", -ERANGE },
		{ "99999999999999999999999999", -ERANGE },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t bytes;

		if (size_parse(bad[i].text, &bytes) != bad[i].code)
			fail_msg("'%s' was taken, or refused otherwise", bad[i].text);
	}
}

static void test_writes_sizes_as_people_do(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
		{ 0, "0" },           { 1023, "1023" },         { 1024, "1K" },
		{ 1536, "1.5K" },     { 512ull << 20, "512M" }, { 3ull << 40, "3T" },
		{ 1ull << 62, "4E" }, { UINT64_MAX, "16.0E" },
	};
	char out[24], tiny[4];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		assert_string_equal(size_format(sizes[i].bytes, out, sizeof(out)), sizes[i].text);
	size_format(1023, tiny, sizeof(tiny));
	assert_string_equal(tiny, "102");
}

static void test_a_whole_size_is_read_back_as_it_was_written(void **state)
{
	char out[24];
	uint64_t back;

	(void)state;
	for (unsigned shift = 0; shift < 63; shift++) {
		assert_int_equal(size_parse(size_format(1ull << shift, out, sizeof(out)), &back),
				 0);
		assert_int_equal(back, 1ull << shift);
	}
}

static const struct option_def table[] = {
	{ "flag", OPTION_FLAG, NULL, "off", 0, 0, "a flag" },
	{ "count", OPTION_COUNT, "auto|all", "auto", 2, 10, "a number" },
	{ "size", OPTION_SIZE, "none", NULL, 512, 4096, "a size" },
	{ "free", OPTION_SIZE, NULL, "1M", 0, 0, "a size without bounds" },
	{ "choice", OPTION_CHOICE, "red|green|blue", "green", 0, 0, "a word" },
	{ "text", OPTION_TEXT, NULL, NULL, 0, 0, "words" },
	{ "least", OPTION_COUNT, NULL, NULL, 3, 0, "no less" },
	{ "path", OPTION_PATH, NULL, NULL, 0, 0, "a file" },
	{ .name = NULL },
};

enum {
	FLAG,
	COUNT,
	SIZE,
	FREE,
	CHOICE,
	TEXT,
	LEAST,
	PATH,
	ALL
};

static void test_tables(void **state)
{
	(void)state;
	assert_int_equal(option_count(NULL), 0);
	assert_int_equal(option_count(table), ALL);
	assert_int_equal(option_find(table, "choice"), CHOICE);
	assert_int_equal(option_find(table, "choic"), -1);
	assert_int_equal(option_find(table, ""), -1);
	assert_int_equal(option_find(NULL, "flag"), -1);
}

static void test_defaults(void **state)
{
	struct option_value v[ALL];

	(void)state;
	option_defaults(table, v);
	assert_true(v[FLAG].set && !v[FLAG].given && !v[FLAG].number);
	assert_true(v[COUNT].set && !v[COUNT].given && v[COUNT].word == 0);
	assert_true(!v[SIZE].set && !v[SIZE].given && v[SIZE].word == -1);
	assert_true(v[FREE].set && v[FREE].word == -1 && v[FREE].number == 1 << 20);
	assert_true(v[CHOICE].set && v[CHOICE].word == 1);
	assert_true(!v[TEXT].set && !v[LEAST].set);
	option_defaults(NULL, v);
}

static void test_values(void **state)
{
	static const struct {
		unsigned option;
		const char *text;
		int word;
		uint64_t number;
	} good[] = {
		{ FLAG, NULL, -1, 1 },    { FLAG, "on", -1, 1 },
		{ FLAG, "off", -1, 0 },   { COUNT, "2", -1, 2 },
		{ COUNT, "10", -1, 10 },  { COUNT, "auto", 0, 0 },
		{ COUNT, "all", 1, 0 },   { SIZE, "512", -1, 512 },
		{ SIZE, "4K", -1, 4096 }, { SIZE, "none", 0, 0 },
		{ FREE, "0", -1, 0 },     { FREE, "7E", -1, 7ull << 60 },
		{ CHOICE, "red", 0, 0 },  { CHOICE, "blue", 2, 0 },
		{ TEXT, "a=b|c", -1, 0 }, { LEAST, "18446744073709551615", -1, UINT64_MAX },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct option_value v = { 0 };
		struct error err = { 0 };

		if (option_parse(&table[good[i].option], good[i].text, &v, &err))
			fail_msg("%s: %s", table[good[i].option].name, err.text);
		assert_true(v.set && v.given);
		assert_int_equal(v.word, good[i].word);
		assert_int_equal(v.number, good[i].number);
		assert_ptr_equal(v.text, good[i].text);
	}
}

static void test_values_that_do_not_fit(void **state)
{
	static const struct {
		unsigned option;
		const char *text;
	} bad[] = {
		{ FLAG, "" },          { FLAG, "yes" },
		{ FLAG, "1" },         { FLAG, "ON" },
		{ COUNT, NULL },       { COUNT, "" },
		{ COUNT, "1" },        { COUNT, "11" },
		{ COUNT, "-2" },       { COUNT, "5x" },
		{ COUNT, "5K" },       { COUNT, "Auto" },
		{ COUNT, "auto|all" }, { COUNT, " 5" },
		{ COUNT, "0x5" },      { COUNT, "18446744073709551620" },
		{ SIZE, "511" },       { SIZE, "4097" },
		{ SIZE, "8E" },        { SIZE, "" },
		{ SIZE, NULL },        { FREE, "8E" },
		{ CHOICE, "" },        { CHOICE, "re" },
		{ CHOICE, "redd" },    { CHOICE, NULL },
		{ TEXT, "" },          { TEXT, NULL },
		{ LEAST, "2" },        { LEAST, "18446744073709551616" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const struct option_def *def = &table[bad[i].option];
		struct option_value v = { .number = 4711, .word = 4711 };
		struct error err = { 0 };

		if (option_parse(def, bad[i].text, &v, &err) != -EINVAL)
			fail_msg("%s=%s was taken", def->name, bad[i].text);
		/* The line names the option and what was written, and the value stays. */
		assert_int_equal(err.code, EINVAL);
		assert_memory_equal(err.text, def->name, strlen(def->name));
		assert_true(!bad[i].text || strstr(err.text, bad[i].text));
		assert_int_equal(v.number, 4711);
		assert_int_equal(v.word, 4711);
		assert_int_equal(option_parse(def, bad[i].text, &v, NULL), -EINVAL);
	}
}

static void test_the_bounds_are_in_the_message(void **state)
{
	struct option_value v;
	struct error err;

	(void)state;
	option_parse(&table[SIZE], "8K", &v, &err);
	assert_non_null(strstr(err.text, "from 512 to 4K"));
	option_parse(&table[COUNT], "11", &v, &err);
	assert_non_null(strstr(err.text, "from 2 to 10"));
	option_parse(&table[CHOICE], "pink", &v, &err);
	assert_non_null(strstr(err.text, "red|green|blue"));
}

static void assign(const char *assignment, int expected)
{
	struct option_value v[ALL];
	char copy[64];
	struct error err = { 0 };

	option_defaults(table, v);
	snprintf(copy, sizeof(copy), "%s", assignment);
	if (option_assign(table, v, copy, "the test", &err) != expected)
		fail_msg("'%s' gave another result: %s", assignment, err.text);
	assert_true(!expected || *err.text);
}

static void test_assignments(void **state)
{
	struct option_value v[ALL];
	char text[] = "text=a=b", bare[] = "flag", none[] = "x=1";
	struct error err;

	(void)state;
	option_defaults(table, v);
	assert_int_equal(option_assign(table, v, text, "the test", &err), 0);
	assert_string_equal(v[TEXT].text, "a=b");
	assert_int_equal(option_assign(table, v, bare, "the test", &err), 0);
	assert_true(v[FLAG].number && v[FLAG].given);
	assign("count=3", 0);
	assign("count", -EINVAL);
	assign("count=", -EINVAL);
	assign("=3", -EINVAL);
	assign("", -EINVAL);
	assign("cou=3", -EINVAL);
	assign("flag=maybe", -EINVAL);
	assert_int_equal(option_assign(NULL, v, none, "the test", &err), -EINVAL);
	assert_non_null(strstr(err.text, "the test"));
}

static void test_words_and_syntax(void **state)
{
	char out[80], tiny[3];

	(void)state;
	assert_true(option_word("a|bcd|", 0, out, sizeof(out)));
	assert_string_equal(out, "a");
	assert_true(option_word("a|bcd|", 1, out, sizeof(out)));
	assert_string_equal(out, "bcd");
	assert_true(option_word("a|bcd|", 2, out, sizeof(out)));
	assert_string_equal(out, "");
	assert_false(option_word("a|bcd|", 3, out, sizeof(out)));
	assert_false(option_word(NULL, 0, out, sizeof(out)));
	assert_true(option_word("longer", 0, tiny, sizeof(tiny)));
	assert_string_equal(tiny, "lo");

	option_syntax(&table[FLAG], out, sizeof(out));
	assert_string_equal(out, "on|off");
	option_syntax(&table[COUNT], out, sizeof(out));
	assert_string_equal(out, "N|auto|all");
	option_syntax(&table[SIZE], out, sizeof(out));
	assert_string_equal(out, "SIZE|none");
	option_syntax(&table[CHOICE], out, sizeof(out));
	assert_string_equal(out, "red|green|blue");
	option_syntax(&table[TEXT], out, sizeof(out));
	assert_string_equal(out, "TEXT");
	option_syntax(&table[PATH], out, sizeof(out));
	assert_string_equal(out, "PATH");
}

static void test_times_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
		int ret;
	} cases[] = { { "0", 0, 0 },          { "30", 30000, 0 },
		      { "30s", 30000, 0 },    { "500ms", 500, 0 },
		      { "5m", 300000, 0 },    { "2h", 7200000, 0 },
		      { "", 0, -EINVAL },     { "s", 0, -EINVAL },
		      { "-1", 0, -EINVAL },   { "3 s", 0, -EINVAL },
		      { "3sec", 0, -EINVAL }, { "9999999999999h", 0, -ERANGE },
		      { "1.5", 0, -EINVAL },  { "forever", 0, -EINVAL } };

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t ms = 0;

		assert_int_equal(time_parse(cases[i].text, &ms), cases[i].ret);
		assert_int_equal(ms, cases[i].ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_refuses_bad_sizes),
		cmocka_unit_test(test_writes_sizes_as_people_do),
		cmocka_unit_test(test_a_whole_size_is_read_back_as_it_was_written),
		cmocka_unit_test(test_times_have_units),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_values_that_do_not_fit),
		cmocka_unit_test(test_the_bounds_are_in_the_message),
		cmocka_unit_test(test_assignments),
		cmocka_unit_test(test_words_and_syntax),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
