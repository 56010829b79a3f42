/* SPDX-License-Identifier: MIT */
/*
 * The directories that ublkd keeps its state in: made as they should be, and refused where
 * another user could replace what is in them.
 */
#include "common/error.h"
#include "common/directory.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static void test_creates_with_the_mode_whatever_the_umask(void **state)
{
	const char *path = temp_path("new");
	mode_t before = umask(0777);
	struct error err;
	struct stat st;

	(void)state;
	assert_int_equal(directory_make(path, 0755, &err), 0);
	umask(before);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	/* A directory that is there stays as it is. */
	assert_int_equal(directory_make(path, 0700, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	temp_remove();
}

static void refused(const char *path, int code, const char *words)
{
	struct error err = { 0 };

	assert_int_equal(directory_make(path, 0755, &err), -code);
	assert_non_null(strstr(err.text, path));
	if (!strstr(err.text, words))
		fail_msg("not '%s' but '%s'", words, err.text);
}

static void test_refuses_a_directory_that_others_can_write(void **state)
{
	const char *path = temp_path("theirs");
	struct error err;

	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chmod(path, 01777), 0);
	refused(path, EPERM, "writable by users other than root");
	assert_int_equal(chmod(path, 0757), 0);
	refused(path, EPERM, "chmod go-w");
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(directory_make(path, 0755, &err), 0);
	if (geteuid()) {
		print_message("not root: other owners are not tried\n");
		temp_remove();
		return;
	}
	/* The group root is root's own, another one is not. */
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(chmod(path, 0775), 0);
	assert_int_equal(directory_make(path, 0755, &err), 0);
	assert_int_equal(chown(path, 0, 12345), 0);
	assert_int_equal(chmod(path, 0775), 0);
	refused(path, EPERM, "writable by users other than root");
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(chown(path, 12345, 0), 0);
	refused(path, EPERM, "chown root");
	temp_remove();
}

static void test_refuses_other_files(void **state)
{
	struct error err;

	(void)state;
	refused(temp_file("file", 1), ENOTDIR, "is not a directory");
	assert_int_equal(directory_make(temp_path("none/below"), 0755, &err), -ENOENT);
	temp_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_creates_with_the_mode_whatever_the_umask),
		cmocka_unit_test(test_refuses_a_directory_that_others_can_write),
		cmocka_unit_test(test_refuses_other_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
