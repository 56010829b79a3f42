/* SPDX-License-Identifier: MIT */
/*
 * Log lines, as a terminal and as the journal get them.
 */
#include "common/log.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int pipe_fds[2], saved, journal_fd = -1;
static char journal_path[100];

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
	if (journal_fd < 0)
		log_journal_socket = "/nothing/there";
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

/* ---- the journal's own socket ---- */

static void begin_native(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int size = 4096;

	snprintf(journal_path, sizeof(journal_path), "/tmp/ublkd-test-journal-%d", (int)getpid());
	unlink(journal_path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", journal_path);
	journal_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(journal_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setsockopt(journal_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	log_journal_socket = journal_path;
	begin(true);
}

static const char *end_native(void)
{
	const char *text = end();

	close(journal_fd);
	journal_fd = -1;
	unlink(journal_path);
	return text;
}

static const char *received(void)
{
	static char text[8000];
	ssize_t n = recv(journal_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static const char *device_of(const char *about, char *out, size_t size)
{
	if (strcmp(about, "disk") != 0)
		return NULL;
	snprintf(out, size, "/dev/ublkb7");
	return out;
}

static void test_the_journal_gets_fields(void **state)
{
	(void)state;
	begin_native();
	log_set_device_of(device_of);
	log_error("disk", "bad\nMESSAGE=%d", 1);
	assert_string_equal(received(), "PRIORITY=3\nSYSLOG_IDENTIFIER=program\nUBLKD_EXPORT=disk\n"
					"UBLKD_DEVICE=/dev/ublkb7\n"
					"MESSAGE=disk: error: bad?MESSAGE=1\n");
	log_event(LOG_EVENT_WELL, LOG_LEVEL_INFO, "a\nPRIORITY=0", "ok");
	assert_string_equal(received(),
			    "PRIORITY=6\nSYSLOG_IDENTIFIER=program\nMESSAGE_ID=" LOG_EVENT_WELL
			    "\nUBLKD_EXPORT=a?PRIORITY=0\n"
			    "MESSAGE=a?PRIORITY=0: ok\n");
	log_warning(NULL, "odd");
	assert_string_equal(received(), "PRIORITY=4\nSYSLOG_IDENTIFIER=program\n"
					"MESSAGE=warning: odd\n");
	log_set_device_of(NULL);
	assert_string_equal(end_native(), "");
}

/* journald may wait for a device that this very process serves. */
static void test_a_full_journal_holds_nobody_up(void **state)
{
	unsigned nr = 0;

	(void)state;
	begin_native();
	for (unsigned i = 0; i < 2000; i++)
		log_info("disk", "line %u", i);
	while (*received())
		nr++;
	assert_true(nr >= 1 && nr < 2000);
	log_info("disk", "after");
	assert_non_null(strstr(received(), "lines were lost: the journal was full"));
	assert_non_null(strstr(received(), "MESSAGE=disk: after"));
	assert_string_equal(end_native(), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_terminal_gets_the_name_of_the_program),
		cmocka_unit_test(test_the_journal_gets_priorities),
		cmocka_unit_test(test_the_journal_gets_fields),
		cmocka_unit_test(test_a_full_journal_holds_nobody_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
