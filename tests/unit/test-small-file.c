/* SPDX-License-Identifier: MIT */
/*
 * Small files of the kernel, as /sys and /proc have them.
 */
#include "common/small_file.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *file_with(const char *text)
{
	const char *path = temp_path("attribute");
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return path;
}

static void test_a_line_is_read_without_its_end(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(small_file_line(file_with("none [mq-deadline]\nmore\n"), text, 64), 18);
	assert_string_equal(text, "none [mq-deadline]");
	assert_int_equal(small_file_line(file_with("512"), text, 64), 3);
	assert_string_equal(text, "512");
	assert_int_equal(small_file_line(file_with(""), text, 64), 0);
	assert_string_equal(text, "");
	temp_remove();
}

static void test_a_file_is_read_with_all_its_lines(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(small_file_read(file_with("one\ntwo\n"), text, sizeof(text)), 8);
	assert_string_equal(text, "one\ntwo\n");
	temp_remove();
}

static void test_a_long_file_is_cut_to_the_size(void **state)
{
	char text[5];

	(void)state;
	assert_int_equal(small_file_read(file_with("123456789\n"), text, sizeof(text)), 4);
	assert_string_equal(text, "1234");
	assert_int_equal(small_file_line(file_with("123456789\n"), text, sizeof(text)), 4);
	assert_string_equal(text, "1234");
	temp_remove();
}

static void test_a_file_that_cannot_be_read_is_an_error_and_no_text(void **state)
{
	char text[8] = "before";

	(void)state;
	assert_int_equal(small_file_line(temp_path("absent"), text, sizeof(text)), -ENOENT);
	assert_string_equal(text, "");
	strcpy(text, "before");
	assert_int_equal(small_file_read(temp_directory(), text, sizeof(text)), -EISDIR);
	assert_string_equal(text, "");
	temp_remove();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_is_read_without_its_end),
		cmocka_unit_test(test_a_file_is_read_with_all_its_lines),
		cmocka_unit_test(test_a_long_file_is_cut_to_the_size),
		cmocka_unit_test(test_a_file_that_cannot_be_read_is_an_error_and_no_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
