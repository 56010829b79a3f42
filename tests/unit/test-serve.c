/* SPDX-License-Identifier: MIT */
/* Opening storage for a new device, and for one that exists. */
#include "common/error.h"
#include "engine/host_local.h"
#include "engine/serve.h"
#include "tests/unit/test.h"

static struct error err;
static struct spec spec;
static struct counters *counters;
static int counters_fd;

static int setup(void **state)
{
	(void)state;
	counters = counters_create(64, NULL, &counters_fd);
	if (!counters)
		return -1;
	return spec_open(&spec, "null:1M", &err);
}

static int teardown(void **state)
{
	(void)state;
	spec_close(&spec);
	counters_destroy(counters);
	close(counters_fd);
	return 0;
}

static void opens(struct device_shape shape, unsigned nr_queues, unsigned depth, uint32_t max_io)
{
	struct serving s;

	assert_int_equal(serving_open(&s,
				      &(struct serving_of){ .spec = &spec,
							    .shape = shape,
							    .host = &host_here,
							    .counters = counters },
				      &err),
			 0);
	assert_int_equal(s.instance.nr_queues, nr_queues);
	assert_int_equal(s.instance.depth, depth);
	assert_int_equal(s.instance.max_io, max_io);
	serving_close(&s);
}

static void test_a_new_device_is_as_the_options_say(void **state)
{
	(void)state;
	assert_int_equal(spec_set(&spec, "queues", "3", &err), 0);
	assert_int_equal(spec_set(&spec, "depth", "5", &err), 0);
	assert_int_equal(spec_set(&spec, "max-io", "8K", &err), 0);
	opens((struct device_shape){ 0 }, 3, 5, 8192);
}

/* As many queues as there are CPUs, which are other ones by now, and other defaults. */
static void test_a_device_that_exists_stays_as_it_is(void **state)
{
	(void)state;
	opens((struct device_shape){ 40, 7, 65536 }, 40, 7, 65536);
	assert_int_equal(spec_set(&spec, "queues", "3", &err), 0);
	opens((struct device_shape){ 40, 7, 65536 }, 40, 7, 65536);
}

/* In whole blocks, and never smaller. */
static void test_growth_is_reported(void **state)
{
	static const struct {
		uint64_t told, size;
	} cases[] = { { 4096, 1 << 20 },
		      { (1 << 20) + 511, 1 << 20 },
		      { (2 << 20) + 511, 2 << 20 },
		      { (1 << 20) + 512, (1 << 20) + 512 } };
	struct serving s;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(serving_open(&s,
					      &(struct serving_of){ .spec = &spec,
								    .host = &host_here,
								    .counters = counters },
					      &err),
				 0);
		instance_grow(&s.instance, cases[i].told);
		assert_int_equal(serving_grown(&s), cases[i].size);
		/* Nobody has taken it over yet. */
		assert_int_equal(s.instance.limits.size, 1 << 20);
		serving_close(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_new_device_is_as_the_options_say, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_device_that_exists_stays_as_it_is, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_growth_is_reported, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
