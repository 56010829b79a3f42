/* SPDX-License-Identifier: MIT */
/*
 * Log lines, as a terminal and as the journal get them.
 */
#include "common/log.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int pipe_fds[2], saved;

/* stderr is a pipe; journal: and $JOURNAL_STREAM says that this is the journal. */
static void begin(bool journal)
{
	char stream[64];
	struct stat st;

	assert_int_equal(pipe(pipe_fds), 0);
	saved = dup(STDERR_FILENO);
	assert_true(saved >= 0 && dup2(pipe_fds[1], STDERR_FILENO) >= 0);
	assert_int_equal(fstat(pipe_fds[1], &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + !journal);
	setenv("JOURNAL_STREAM", stream, 1);
	log_setup("program", LOG_LEVEL_INFO);
}

static const char *end(void)
{
	static char text[1000];
	ssize_t n;

	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipe_fds[1]);
	n = read(pipe_fds[0], text, sizeof(text) - 1);
	close(pipe_fds[0]);
	text[n > 0 ? n : 0] = 0;
	unsetenv("JOURNAL_STREAM");
	log_setup("program", LOG_LEVEL_INFO);
	return text;
}

static void write_lines(void)
{
	log_error("disk", "bad\n%d", 1);
	log_warning(NULL, "odd");
	log_info("disk", "fine");
	log_debug("disk", "not shown");
}

static void test_a_terminal_gets_the_name_of_the_program(void **state)
{
	(void)state;
	begin(false);
	write_lines();
	assert_string_equal(end(), "program: disk: error: bad?1\nprogram: warning: odd\n"
				   "program: disk: fine\n");
}

static void test_the_journal_gets_priorities(void **state)
{
	(void)state;
	begin(true);
	write_lines();
	assert_string_equal(end(), "<3>disk: error: bad?1\n<4>warning: odd\n<6>disk: fine\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_terminal_gets_the_name_of_the_program),
		cmocka_unit_test(test_the_journal_gets_priorities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
