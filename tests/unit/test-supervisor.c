/* SPDX-License-Identifier: MIT */
/*
 * The table of exports.  Each is `keeping` here, so that nothing is done for it: what
 * its own fiber does the test plays.
 */
#include "supervisor/keep.h"
#include "supervisor/supervisor.h"
#include "tests/unit/test.h"

#include <sys/stat.h>

static char folder[64];
static struct managed *m;
static char told[200];

static void ignore(struct managed *changed)
{
	(void)changed;
}

static struct managed *make(const char *name, enum managed_origin origin)
{
	struct managed *made = NULL;
	struct error err = { 0 };

	if (managed_create(&made, name, "null:4M", json_object(), origin, &err))
		fail_msg("%s", err.text);
	made->keeping = true;
	made->next = supervisor_exports;
	supervisor_exports = made;
	return made;
}

static int setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	managed_folder = folder;
	managed_changed = ignore;
	supervisor_paths = (struct supervisor_paths){ folder, folder };
	told[0] = 0;
	fiber_setup(uv_default_loop());
	supervisor_setup();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	supervisor_forget_all();
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	fiber_cleanup();
	return rmdir(folder);
}

static void note(void *context, const char *name, bool done, const char *message)
{
	size_t n = strlen(told);

	(void)context;
	snprintf(told + n, sizeof(told) - n, "%s %d %s;", name, done, message ? message : "");
}

/* Its removal is done, or has failed. */
static void end_removal(enum export_state state)
{
	struct managed *ended = m;

	m->state = state;
	m->keeping = false;
	fiber_raise(&m->moved);
	if (state == EXPORT_GONE)
		keep_gone(ended);
}

static void remove_all(void *force)
{
	supervisor_remove_all(*(bool *)force, note, NULL);
}

static void test_a_removal_is_only_strengthened(void **state)
{
	bool force = false;

	(void)state;
	m = make("a", ORIGIN_REQUESTED);
	m->want = WANT_GONE;
	m->force = true;
	assert_int_equal(fiber_start(remove_all, &force), 0);
	assert_true(m->force);
	m->force = false;
	force = true;
	assert_int_equal(fiber_start(remove_all, &force), 0);
	assert_true(m->force);
	end_removal(EXPORT_GONE);
	assert_string_equal(told, "a 1 ;a 1 ;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_removal_is_only_strengthened, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
