/* SPDX-License-Identifier: MIT */
#include "supervisor/fiber.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static char trace[256], a[] = "a", b[] = "b", c[] = "c";
static struct fiber_event event, other;
static int results[64];
static unsigned nr_results;

static void note(const char *text)
{
	strncat(trace, text, sizeof(trace) - strlen(trace) - 1);
}

static int setup(void **state)
{
	(void)state;
	trace[0] = 0;
	nr_results = 0;
	fiber_setup(uv_default_loop());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(fiber_count(), 0);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return 0;
}

static void waits_twice(void *context)
{
	note(context);
	fiber_wait(&event, 0);
	note(context);
	fiber_wait(&event, 0);
	note(context);
}

static void test_runs_up_to_its_waits(void **state)
{
	(void)state;
	assert_int_equal(fiber_start(waits_twice, a), 0);
	assert_int_equal(fiber_start(waits_twice, b), 0);
	assert_string_equal(trace, "ab");
	fiber_raise(&event);
	assert_string_equal(trace, "abab");
	assert_int_equal(fiber_count(), 2);
	fiber_raise(&event);
	assert_string_equal(trace, "ababab");
	fiber_raise(&event);
	assert_int_equal(fiber_count(), 0);
}

static void raises(void *context)
{
	(void)context;
	note("(");
	fiber_raise(&event);
	note(")");
	fiber_start(waits_twice, c);
	note("]");
}

static void test_others_run_when_the_running_one_waits_or_ends(void **state)
{
	(void)state;
	fiber_start(waits_twice, a);
	fiber_start(raises, NULL);
	assert_string_equal(trace, "a()]ac");
	fiber_raise(&event);
	fiber_raise(&event);
}

static void waits_with_bound(void *context)
{
	int result = fiber_wait(context, 20);

	results[nr_results++] = result;
}

static void test_a_wait_ends_by_its_bound_or_the_event(void **state)
{
	(void)state;
	fiber_start(waits_with_bound, &event);
	fiber_start(waits_with_bound, &other);
	fiber_raise(&other);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	assert_int_equal(nr_results, 2);
	assert_int_equal(results[0], 0);
	assert_int_equal(results[1], -ETIMEDOUT);
	assert_null(event.first);
}

static void sleeps(void *context)
{
	char deep[100000];

	memset(deep, 7, sizeof(deep));
	fiber_sleep(*(unsigned *)context);
	results[nr_results++] = deep[99999];
}

static void test_many_sleep_side_by_side(void **state)
{
	static unsigned ms[50];

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		ms[i] = 1 + i % 7;
		assert_int_equal(fiber_start(sleeps, &ms[i]), 0);
	}
	assert_int_equal(fiber_count(), 50);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	assert_int_equal(nr_results, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_runs_up_to_its_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_run_when_the_running_one_waits_or_ends,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_wait_ends_by_its_bound_or_the_event, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_many_sleep_side_by_side, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
