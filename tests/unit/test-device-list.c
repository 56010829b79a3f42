/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"
#include "engine/device_list.h"
#include "engine/ublk_abi.h"

static void test_states_have_names(void **state)
{
	(void)state;
	assert_string_equal(devices_state_name(UBLK_DEV_DEAD), "dead");
	assert_string_equal(devices_state_name(UBLK_DEV_LIVE), "live");
	assert_string_equal(devices_state_name(UBLK_DEV_QUIESCED), "quiesced");
	assert_string_equal(devices_state_name(UBLK_DEV_FAIL_IO), "fail-io");
	assert_string_equal(devices_state_name(UBLK_DEV_FAIL_IO + 1), "unknown");
}

static void test_ids_are_in_order(void **state)
{
	uint32_t ids[] = { 7, 0xffffffff, 0, 70, 8 }, *found;
	const uint32_t wanted[] = { 0, 7, 8, 70, 0xffffffff };
	unsigned nr;

	(void)state;
	qsort(ids, 5, sizeof(*ids), device_list_by_id);
	assert_memory_equal(ids, wanted, sizeof(ids));
	assert_int_equal(device_list_find(&found, &nr), 0);
	for (unsigned i = 1; i < nr; i++)
		assert_true(found[i - 1] < found[i]);
	free(found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states_have_names),
		cmocka_unit_test(test_ids_are_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
