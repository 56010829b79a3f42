/* SPDX-License-Identifier: MIT */
/*
 * The transitions of an export, each pair of states, against what the lifecycle
 * needs, written down a second time and another way.
 */
#include "engine/state.h"
#include "tests/unit/test.h"

static const char *const names[EXPORT_STATES] = {
	"declared",   "opening",   "added",    "starting", "live",
	"recovering", "suspended", "stopping", "gone",     "failed",
};

/* Row: from; column: to; in the order of names.  'y' where it is legal. */
static const char *const legal[EXPORT_STATES] = {
	/* declared   */ ".y......y.",
	/* opening    */ "..y....y.y",
	/* added      */ "...y...y.y",
	/* starting   */ "....y..y.y",
	/* live       */ ".....yyy..",
	/* recovering */ "....y.yy.y",
	/* suspended  */ "....yy.y..",
	/* stopping   */ "....y...yy",
	/* gone       */ "y.........",
	/* failed     */ "y....y.yy.",
};

static void test_each_pair(void **state)
{
	(void)state;
	for (unsigned from = 0; from < EXPORT_STATES; from++)
		for (unsigned to = 0; to < EXPORT_STATES; to++) {
			bool may = export_state_may((enum export_state)from, (enum export_state)to);

			if (may != (legal[from][to] == 'y'))
				fail_msg("%s -> %s: %s", names[from], names[to],
					 may ? "allowed" : "refused");
		}
}

static void test_a_bad_state_has_no_transition(void **state)
{
	const enum export_state none = EXPORT_STATES, below = (enum export_state) - 1;

	(void)state;
	for (unsigned s = 0; s < EXPORT_STATES; s++) {
		assert_false(export_state_may(none, (enum export_state)s));
		assert_false(export_state_may((enum export_state)s, none));
		assert_false(export_state_may(below, (enum export_state)s));
		assert_false(export_state_may((enum export_state)s, below));
	}
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned s = 0; s < EXPORT_STATES; s++)
		assert_string_equal(export_state_name((enum export_state)s), names[s]);
	assert_string_equal(export_state_name(EXPORT_STATES), "?");
	assert_string_equal(export_state_name((enum export_state) - 1), "?");
}

/* From every state there is a way on, and one to the end of it all. */
static void test_every_state_can_end(void **state)
{
	(void)state;
	for (unsigned from = 0; from < EXPORT_STATES; from++) {
		bool reached[EXPORT_STATES] = { 0 };

		reached[from] = true;
		for (unsigned round = 0; round < EXPORT_STATES; round++)
			for (unsigned a = 0; a < EXPORT_STATES; a++)
				for (unsigned b = 0; reached[a] && b < EXPORT_STATES; b++)
					reached[b] |= export_state_may((enum export_state)a,
								       (enum export_state)b);
		assert_true(reached[EXPORT_GONE]);
		assert_true(reached[EXPORT_LIVE]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_pair),
		cmocka_unit_test(test_a_bad_state_has_no_transition),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_every_state_can_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
