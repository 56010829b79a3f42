/* SPDX-License-Identifier: MIT */
#include "common/error.h"
#include "common/log.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>

static void test_returns_the_code_negative_from_either_sign(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(error_set(&err, ENOENT, "%s: gone", "x"), -ENOENT);
	assert_int_equal(err.code, ENOENT);
	assert_string_equal(err.text, "x: gone");
	assert_int_equal(error_set(&err, -EIO, "y"), -EIO);
	assert_int_equal(err.code, EIO);
	assert_int_equal(error_set(NULL, EIO, "nobody asks"), -EIO);
}

static void test_is_one_printable_line(void **state)
{
	struct error err;

	(void)state;
	error_set(&err, EINVAL, "a\nb\x1b[31mc\td\x7f");
	assert_string_equal(err.text, "a?b?[31mc?d?");
	error_set(&err, EINVAL, "µs are kept");
	assert_string_equal(err.text, "µs are kept");
}

static bool ends_with(const struct error *err, const char *end)
{
	size_t length = strlen(err->text);

	return length >= strlen(end) && !strcmp(err->text + length - strlen(end), end);
}

static void test_a_long_line_loses_its_middle(void **state)
{
	char path[8000];
	struct error err;

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	error_set(&err, EINVAL, "open /%s: it is no file: name another one", path);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_memory_equal(err.text, "open /xxx", 9);
	assert_non_null(strstr(err.text, "xx ... xx"));
	assert_true(ends_with(&err, "x: it is no file: name another one"));
	/* The prefix says where it comes from, and the cure stays. */
	assert_int_equal(error_prefix(&err, "queue %u", 3), -EINVAL);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_memory_equal(err.text, "queue 3: open /xxx", 18);
	assert_true(ends_with(&err, "x: it is no file: name another one"));
	error_set(&err, EINVAL, "short");
	error_prefix(&err, "%s", path);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_true(ends_with(&err, "x: short"));
}

static void test_a_line_that_just_fits_is_whole(void **state)
{
	char line[sizeof(((struct error *)0)->text) + 1];
	struct error err;

	(void)state;
	memset(line, 'y', sizeof(line));
	line[sizeof(err.text) - 1] = 0;
	error_set(&err, EINVAL, "%s", line);
	assert_string_equal(err.text, line);
	line[sizeof(err.text) - 1] = 'y';
	line[sizeof(err.text)] = 0;
	error_set(&err, EINVAL, "%s", line);
	assert_non_null(strstr(err.text, " ... "));
}

static void test_prefix_keeps_code_and_text(void **state)
{
	struct error err;

	(void)state;
	error_set(&err, ENOSPC, "full");
	assert_int_equal(error_prefix(&err, "disk\n%d", 1), -ENOSPC);
	assert_string_equal(err.text, "disk?1: full");
	assert_int_equal(err.code, ENOSPC);
}

/* Puts what log_line() writes for the lines of `body` into out. */
static void captured(void (*body)(void), char *out, size_t size)
{
	int saved = dup(STDERR_FILENO), ends[2];
	ssize_t got;

	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	body();
	dup2(saved, STDERR_FILENO);
	close(saved);
	got = read(ends[0], out, size - 1);
	close(ends[0]);
	assert_true(got >= 0);
	out[got] = 0;
}

static void some_lines(void)
{
	char text[3000];

	log_setup("prog", LOG_LEVEL_INFO);
	log_info("disk", "one %d", 1);
	log_warning(NULL, "two\nlines");
	log_error("disk", "three");
	log_debug("disk", "not this");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	log_info(NULL, "%s", text);
	log_setup("prog", LOG_LEVEL_DEBUG);
	log_debug("disk", "but this");
	log_setup("ublkd", LOG_LEVEL_INFO);
}

static void test_log_lines_are_whole(void **state)
{
	char out[8000], *line;

	(void)state;
	captured(some_lines, out, sizeof(out));
	line = strtok(out, "\n");
	assert_string_equal(line, "prog: disk: one 1");
	line = strtok(NULL, "\n");
	assert_string_equal(line, "prog: warning: two?lines");
	line = strtok(NULL, "\n");
	assert_string_equal(line, "prog: disk: error: three");
	line = strtok(NULL, "\n");
	assert_memory_equal(line, "prog: xxxx", 10);
	line = strtok(NULL, "\n");
	assert_string_equal(line, "prog: disk: but this");
	assert_null(strtok(NULL, "\n"));
}

static void test_terminal_controls_do_not_get_through(void **state)
{
	static const struct {
		const char *text, *printable, *escaped;
	} cases[] = {
		{ "plain", "plain", "plain" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\033[2J", "?[2J", "\\x1b[2J" },
		{ "a\nb", "a?b", "a\\x0ab" },
		{ "\xc2\x9b"
		  "2J",
		  "??2J", "\\xc2\\x9b2J" },
		{ "\x9b"
		  "2J",
		  "?2J", "\\x9b2J" },
		{ "a\\b", "a\\b", "a\\x5cb" },
		{ "\xe2\x82", "??", "\\xe2\\x82" },
		{ "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
		{ "\xed\xa0\x80", "???", "\\xed\\xa0\\x80" },
		{ "\xc0\x80", "??", "\\xc0\\x80" },
		/* C1 controls: U+0080, U+0085, U+009F; U+00A0 is none. */
		{ "\xc2\x80\xc2\x85\xc2\x9f", "??????", "\\xc2\\x80\\xc2\\x85\\xc2\\x9f" },
		{ "\xc2\xa0", "\xc2\xa0", "\xc2\xa0" },
		/* Direction of text: marks, embeddings, isolates; and ends of lines. */
		{ "\xe2\x80\x8e\xe2\x80\x8f", "??????", "\\xe2\\x80\\x8e\\xe2\\x80\\x8f" },
		{ "\xe2\x80\xaa\xe2\x80\xae", "??????", "\\xe2\\x80\\xaa\\xe2\\x80\\xae" },
		{ "\xe2\x81\xa6\xe2\x81\xa9", "??????", "\\xe2\\x81\\xa6\\xe2\\x81\\xa9" },
		{ "\xe2\x80\xa8\xe2\x80\xa9", "??????", "\\xe2\\x80\\xa8\\xe2\\x80\\xa9" },
		{ "\xd8\x9c", "??", "\\xd8\\x9c" },
		/* Their neighbours: U+200D, U+2010, U+2027, U+202F, U+2065, U+206A. */
		{ "\xe2\x80\x8d\xe2\x80\x90\xe2\x80\xa7", "\xe2\x80\x8d\xe2\x80\x90\xe2\x80\xa7",
		  "\xe2\x80\x8d\xe2\x80\x90\xe2\x80\xa7" },
		{ "\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa", "\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa",
		  "\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa" },
	};
	char out[64];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		snprintf(out, sizeof(out), "%s", cases[i].text);
		text_make_printable(out);
		assert_string_equal(out, cases[i].printable);
		assert_string_equal(text_escape(cases[i].text, out, sizeof(out)), cases[i].escaped);
	}
	assert_string_equal(text_escape("ab\ncd", out, 7), "ab\\x0a");
	assert_string_equal(text_escape("ab\ncd", out, 6), "ab");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_returns_the_code_negative_from_either_sign),
		cmocka_unit_test(test_is_one_printable_line),
		cmocka_unit_test(test_terminal_controls_do_not_get_through),
		cmocka_unit_test(test_a_long_line_loses_its_middle),
		cmocka_unit_test(test_a_line_that_just_fits_is_whole),
		cmocka_unit_test(test_prefix_keeps_code_and_text),
		cmocka_unit_test(test_log_lines_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
