/* SPDX-License-Identifier: MIT */
/*
 * The table of causes, which condition is the worst, and conditions as a worker reports them.
 */
#include "engine/health.h"
#include "tests/unit/test.h"
#include "worker/conditions.h"

#include <stdio.h>
#include <string.h>

static void test_each_cause_has_a_name_a_health_and_a_cure(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CAUSES; i++) {
		const struct health_cause_def *def = &health_causes[i];

		assert_non_null(def->name);
		assert_non_null(def->cure);
		assert_int_not_equal(def->health, HEALTH_OK);
		assert_int_not_equal(def->cure[strlen(def->cure) - 1], '.');
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(def->name, health_causes[j].name);
	}
	for (unsigned i = 0; i < HEALTHS; i++)
		assert_non_null(health_name((enum health)i));
}

static void test_the_worst_counts_and_of_equals_the_oldest(void **state)
{
	struct health_condition c[CAUSES] = { { 0 } };

	(void)state;
	assert_int_equal(health_worst(c), CAUSES);
	c[CAUSE_CONNECTIONS] = (struct health_condition){ true, 1, "one" };
	assert_int_equal(health_worst(c), CAUSE_CONNECTIONS);
	c[CAUSE_OLD_CONNECTION] = (struct health_condition){ true, 20, "two" };
	assert_int_equal(health_worst(c), CAUSE_OLD_CONNECTION);
	c[CAUSE_SERVER_AWAY] = (struct health_condition){ true, 10, "three" };
	assert_int_equal(health_worst(c), CAUSE_SERVER_AWAY);
	c[CAUSE_OTHER_EXPORT] = (struct health_condition){ true, 30, "four" };
	assert_int_equal(health_worst(c), CAUSE_OTHER_EXPORT);
	c[CAUSE_NO_SPACE] = (struct health_condition){ true, 40, "five" };
	assert_int_equal(health_worst(c), CAUSE_NO_SPACE);
}

static void test_a_worker_s_conditions_round_trip(void **state)
{
	struct health_condition c[CAUSES] = { { 0 } }, back[CAUSES] = { { 0 } };
	json_t *json;

	(void)state;
	c[CAUSE_SERVER_AWAY] = (struct health_condition){ true, 1234567890123, "away\n\xff" };
	c[CAUSE_SUSPENDED] = (struct health_condition){ true, 1, "ublkd's own" };
	json = conditions_to_json(c);
	assert_int_equal(json_array_size(json), 1);
	back[CAUSE_CONNECTIONS].set = true;
	back[CAUSE_UPGRADE].set = true;
	conditions_from_json(json, back);
	assert_true(back[CAUSE_SERVER_AWAY].set);
	assert_int_equal(back[CAUSE_SERVER_AWAY].since_s, 1234567890123);
	assert_string_equal(back[CAUSE_SERVER_AWAY].detail, "away??");
	assert_false(back[CAUSE_CONNECTIONS].set);
	assert_true(back[CAUSE_UPGRADE].set);
	conditions_from_json(NULL, back);
	assert_int_equal(health_worst(back), CAUSE_UPGRADE);
	json_decref(json);
}

static void test_bad_conditions_of_a_worker_are_ignored(void **state)
{
	static const char *const made_up[] = {
		"{}",
		"[1, null, \"x\", [], {}]",
		"[{\"cause\": \"server-away\"}]",
		"[{\"cause\": \"nonsense\", \"detail\": \"x\"}]",
		"[{\"cause\": \"suspended\", \"detail\": \"x\"}]",
		"[{\"cause\": 7, \"detail\": \"x\"}]",
		"[{\"cause\": \"no-space\", \"detail\": 7}]",
	};
	struct health_condition c[CAUSES] = { { 0 } };
	char text[2000];
	json_t *json;

	(void)state;
	for (unsigned i = 0; i < sizeof(made_up) / sizeof(*made_up); i++) {
		json = json_loads(made_up[i], 0, NULL);
		assert_non_null(json);
		conditions_from_json(json, c);
		assert_int_equal(health_worst(c), CAUSES);
		json_decref(json);
	}
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	json = json_pack("[{s:s, s:s}]", "cause", "no-space", "detail", text);
	conditions_from_json(json, c);
	assert_int_equal(strlen(c[CAUSE_NO_SPACE].detail), sizeof(c->detail) - 1);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_cause_has_a_name_a_health_and_a_cure),
		cmocka_unit_test(test_the_worst_counts_and_of_equals_the_oldest),
		cmocka_unit_test(test_a_worker_s_conditions_round_trip),
		cmocka_unit_test(test_bad_conditions_of_a_worker_are_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
