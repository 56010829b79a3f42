/* SPDX-License-Identifier: MIT */
#include "engine/attribute.h"
#include "common/error.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOON_MS 30000u

static struct attribute_writer writer;

static void start(void)
{
	struct error err;

	assert_int_equal(attribute_start(&writer, &err), 0);
}

static void a_value_is_written(void **state)
{
	char path[256], text[16] = "";
	int fd;

	(void)state;
	start();
	snprintf(path, sizeof(path), "%s", temp_path("scheduler"));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(attribute_write(&writer, path, "none", SOON_MS), 0);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	assert_string_equal(text, "none");
	close(fd);
	attribute_end(&writer);
}

static void an_error_is_reported(void **state)
{
	(void)state;
	start();
	assert_int_equal(attribute_write(&writer, "/nothere/scheduler", "none", SOON_MS), -ENOENT);
	attribute_end(&writer);
}

/* The open of a FIFO that nobody reads waits, as a write waits for a frozen queue. */
static void a_write_that_waits_keeps_nobody(void **state)
{
	char path[256], text[16];
	int fd;

	(void)state;
	start();
	snprintf(path, sizeof(path), "%s", temp_path("fifo"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(attribute_write(&writer, path, "none", 10), -ETIMEDOUT);
	attribute_end(&writer);
	/* The order stands: it is carried out once it can be. */
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	close(fd);
}

static void *open_soon(void *path)
{
	char text[16];
	int fd;

	/* Once the second order waits behind the first. */
	usleep(100 * 1000);
	fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, text, sizeof(text)) >= 0)
		close(fd);
	return NULL;
}

static void a_late_answer_is_of_the_earlier_order(void **state)
{
	pthread_t thread;
	char path[256];

	(void)state;
	start();
	snprintf(path, sizeof(path), "%s", temp_path("late-fifo"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(attribute_write(&writer, path, "none", 10), -ETIMEDOUT);
	assert_int_equal(pthread_create(&thread, NULL, open_soon, path), 0);
	assert_int_equal(attribute_write(&writer, "/nothere/scheduler", "none", SOON_MS), -ENOENT);
	pthread_join(thread, NULL);
	attribute_end(&writer);
}

static void the_process_holds_no_descriptor_of_the_caller(void **state)
{
	struct pollfd fd = { .events = POLLIN };
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	start();
	close(ends[1]);
	fd.fd = ends[0];
	assert_int_equal(poll(&fd, 1, SOON_MS), 1);
	assert_true(fd.revents & POLLHUP);
	close(ends[0]);
	attribute_end(&writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_value_is_written),
		cmocka_unit_test(an_error_is_reported),
		cmocka_unit_test(a_write_that_waits_keeps_nobody),
		cmocka_unit_test(a_late_answer_is_of_the_earlier_order),
		cmocka_unit_test(the_process_holds_no_descriptor_of_the_caller),
	};

	int status = cmocka_run_group_tests(tests, NULL, NULL);

	temp_remove();
	return status;
}
