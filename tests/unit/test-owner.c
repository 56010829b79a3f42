/* SPDX-License-Identifier: MIT */
/*
 * The user with whose rights an export's files are opened, in records and requests; and
 * who may change the storage.
 */
#include "tests/unit/test.h"
#include "worker/owner.h"

#include <errno.h>

static void test_comes_back_from_a_record_as_it_was(void **state)
{
	const struct owner owner = { .uid = 1000, .gid = 951, .nr_groups = 2, .groups = { 5, 6 } };
	json_t *json = owner_to_json(&owner);
	struct owner back;

	(void)state;
	assert_int_equal(owner_from_json(json, &back), 0);
	json_decref(json);
	assert_memory_equal(&back, &owner, sizeof(owner));
}

static void test_is_root_where_none_is_named_and_nobody_where_it_is_wrong(void **state)
{
	static const char *const wrong[] = {
		"{}",
		"[]",
		"{\"uid\": -1, \"gid\": 0, \"groups\": []}",
		"{\"uid\": 4294967295, \"gid\": 0, \"groups\": []}",
		"{\"uid\": \"0\", \"gid\": 0, \"groups\": []}",
		"{\"uid\": 1, \"gid\": 1, \"groups\": [true]}",
	};
	struct owner owner = { .uid = 1 };

	(void)state;
	assert_int_equal(owner_from_json(NULL, &owner), 0);
	assert_int_equal(owner.uid, 0);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		json_t *json = json_loads(wrong[i], 0, NULL);

		assert_non_null(json);
		assert_int_equal(owner_from_json(json, &owner), -EBADMSG);
		json_decref(json);
	}
}

static void test_only_root_and_the_owner_change_the_storage(void **state)
{
	const struct owner root = { 0 }, alice = { .uid = 1000, .gid = 951 },
			   bob = { .uid = 1001, .gid = 951 };

	(void)state;
	assert_true(owner_allows(&root, &root));
	assert_true(owner_allows(&alice, &root));
	assert_true(owner_allows(&alice, &alice));
	assert_false(owner_allows(&root, &alice));
	assert_false(owner_allows(&alice, &bob));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comes_back_from_a_record_as_it_was),
		cmocka_unit_test(test_is_root_where_none_is_named_and_nobody_where_it_is_wrong),
		cmocka_unit_test(test_only_root_and_the_owner_change_the_storage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
