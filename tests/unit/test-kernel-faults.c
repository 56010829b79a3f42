/* SPDX-License-Identifier: MIT */
#include "engine/kernel_faults.h"
#include "tests/unit/test.h"

static bool has(const char *release, const char *command)
{
	return kernel_fault_find(release, command) != NULL;
}

static void test_a_fault_belongs_to_its_releases(void **state)
{
	(void)state;
	assert_true(has("6.18.40", "START_DEV"));
	assert_true(has("7.0.0-28-generic", "START_DEV"));
	assert_false(has("7.0.0-29-generic", "START_DEV"));
	assert_false(has("7.3.4+deb13-cloud-amd64", "START_DEV"));
	assert_true(has("6.17.0-1012-aws", "ADD_DEV"));
	assert_false(has("6.17.0-1012-generic", "ADD_DEV"));
	assert_true(has("6.16.3", "UPDATE_SIZE"));
	assert_false(has("6.18.1", "UPDATE_SIZE"));
	assert_true(has("6.8.0-52-generic", "STOP_DEV"));
	assert_false(has("6.8.0-52-generic", "GET_DEV_INFO"));
	assert_true(has("6.12.117+deb12-cloud-amd64", "END_USER_RECOVERY"));
}

static void test_a_bad_release_has_no_fault(void **state)
{
	(void)state;
	assert_null(kernel_fault_next("", NULL));
	assert_null(kernel_fault_next("six", NULL));
}

static void test_each_fault_is_listed_once(void **state)
{
	const struct kernel_fault *fault = NULL;
	unsigned n = 0;

	(void)state;
	while ((fault = kernel_fault_next("6.17.0-1012-aws", fault)))
		n++;
	assert_int_equal(n, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_fault_belongs_to_its_releases),
		cmocka_unit_test(test_a_bad_release_has_no_fault),
		cmocka_unit_test(test_each_fault_is_listed_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
