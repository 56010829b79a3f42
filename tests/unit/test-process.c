/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"
#include "engine/process.h"

#include <sys/prctl.h>

static void test_a_process_has_the_name_that_it_chose(void **state)
{
	char name[32], small[4];

	(void)state;
	assert_int_equal(prctl(PR_SET_NAME, "a (b)"), 0);
	assert_string_equal(process_name(getpid(), name, sizeof(name)), "a (b)");
	assert_string_equal(process_name(getpid(), small, sizeof(small)), "a (");
}

static void test_who_is_not_there_has_none(void **state)
{
	char name[32] = "before";

	(void)state;
	assert_string_equal(process_name(0, name, sizeof(name)), "");
	assert_string_equal(process_name(-1, name, sizeof(name)), "");
	assert_string_equal(process_name(0x7fffffff, name, sizeof(name)), "");
}

static void test_it_is_told_since_when_a_process_is_there(void **state)
{
	uint64_t started = process_started(getpid());

	(void)state;
	assert_true(started > 0);
	/* Whatever it calls itself. */
	assert_int_equal(prctl(PR_SET_NAME, "a) 1 2 (b"), 0);
	assert_int_equal(process_started(getpid()), started);
	assert_int_equal(process_started(0), 0);
	assert_int_equal(process_started(0x7fffffff), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_process_has_the_name_that_it_chose),
		cmocka_unit_test(test_who_is_not_there_has_none),
		cmocka_unit_test(test_it_is_told_since_when_a_process_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
