/* SPDX-License-Identifier: MIT */
#include "common/cpus.h"
#include "common/error.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <sched.h>

static bool has(const struct cpus *cpus, unsigned cpu)
{
	const unsigned bits = 8 * sizeof(cpus->bits[0]);

	return cpus->bits[cpu / bits] >> cpu % bits & 1;
}

static unsigned count(const struct cpus *cpus)
{
	unsigned n = 0;

	for (unsigned cpu = 0; cpu < CPUS_MAX; cpu++)
		n += has(cpus, cpu);
	return n;
}

static void test_lists(void **state)
{
	static const struct {
		const char *list;
		unsigned count, first, last;
	} good[] = {
		{ "0", 1, 0, 0 },          { "7", 1, 7, 7 },
		{ "0-3,8", 5, 0, 8 },      { "63,64", 2, 63, 64 },
		{ "62-65", 4, 62, 65 },    { "3-3", 1, 3, 3 },
		{ "4095", 1, 4095, 4095 }, { "0-4095", 4096, 0, 4095 },
		{ "5,5,4-6", 3, 4, 6 },
	};
	struct error err;
	struct cpus cpus;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(cpus_parse(good[i].list, &cpus, &err), 0);
		assert_int_equal(count(&cpus), good[i].count);
		assert_true(has(&cpus, good[i].first) && has(&cpus, good[i].last));
		assert_false(cpus_empty(&cpus));
	}
}

static void test_refuses_bad_lists(void **state)
{
	static const char *const bad[] = {
		"",
		",",
		"1,",
		",1",
		"1,,2",
		"-",
		"-1",
		"1-",
		"3-1",
		"a",
		"1a",
		"1 ",
		" 1",
		"1;2",
		"0x1",
		"1-2-3",
		"4096",
		"0-4096",
		"+1",
		"99999999999999999999999",
		"1-99999999999999999999999",
		"all",
	};
	struct error err;
	struct cpus cpus;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err = (struct error){ 0 };
		assert_int_equal(cpus_parse(bad[i], &cpus, &err), -EINVAL);
		assert_int_equal(err.code, EINVAL);
		assert_non_null(strstr(err.text, bad[i]));
	}
}

static void test_empty(void **state)
{
	struct cpus cpus = { 0 };

	(void)state;
	assert_true(cpus_empty(&cpus));
	cpus.bits[sizeof(cpus.bits) / sizeof(cpus.bits[0]) - 1] = 1;
	assert_false(cpus_empty(&cpus));
}

static void test_pins_to_the_cpus_that_are_online(void **state)
{
	struct cpus one = { 0 }, absent = { 0 };
	cpu_set_t before, now;
	int cpu = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	assert_int_equal(cpus_available(), CPU_COUNT(&before));
	while (!CPU_ISSET(cpu, &before))
		cpu++;
	one.bits[0] = 1ul << cpu;
	assert_int_equal(cpus_pin(&one), 0);
	assert_int_equal(sched_getaffinity(0, sizeof(now), &now), 0);
	assert_int_equal(CPU_COUNT(&now), 1);
	assert_true(CPU_ISSET(cpu, &now));
	assert_int_equal(cpus_available(), 1);
	absent.bits[sizeof(absent.bits) / sizeof(absent.bits[0]) - 1] = 1ul << 63;
	assert_int_equal(cpus_pin(&absent), -EINVAL);
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_refuses_bad_lists),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_pins_to_the_cpus_that_are_online),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
