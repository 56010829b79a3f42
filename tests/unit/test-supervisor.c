/* SPDX-License-Identifier: MIT */
/*
 * The table of exports.  Each is `keeping` here, so that nothing is done for it: what
 * its own fiber does the test plays.
 */
#include "supervisor/api.h"
#include "supervisor/describe.h"
#include "supervisor/reconcile.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"
#include "tests/unit/test.h"

#include <grp.h>
#include <sys/stat.h>

static char directory[64];
static struct export *export;
static char told[1000];

static void ignore(struct export *changed)
{
	(void)changed;
}

static struct export *make(const char *name, enum export_origin origin)
{
	struct export *made = NULL;
	struct error err = { 0 };

	if (export_create(&made, name, "null:4M", json_object(), origin, &err))
		fail_msg("%s", err.text);
	made->reconciler.busy = true;
	made->next = supervisor_exports;
	supervisor_exports = made;
	return made;
}

/* Whoever is in no group that ublkd.conf names may nothing, and who reads may not change. */
static void test_who_may_call(void **state)
{
	const struct group *group;
	struct varlink_peer somebody = { .uid = 12345, .gid = 12345 }, control = somebody,
			    reader = somebody, root = { 0 };

	(void)state;
	group = getgrnam("daemon");
	if (!group)
		skip();
	control.gid = group->gr_gid;
	group = getgrnam("bin");
	if (!group)
		skip();
	reader.gid = group->gr_gid;
	assert_false(api_may(&control, false, NULL));
	assert_false(api_may(&reader, false, NULL));
	supervisor_settings.values[SETTINGS_CONTROL_GROUP].text = "daemon";
	supervisor_settings.values[SETTINGS_READ_GROUP].text = "bin";
	supervisor_settings_number++;
	for (unsigned changes = 0; changes < 2; changes++) {
		assert_true(api_may(&root, changes, NULL));
		assert_true(api_may(&control, changes, NULL));
		assert_int_equal(api_may(&reader, changes, NULL), !changes);
		assert_false(api_may(&somebody, changes, NULL));
	}
	supervisor_settings.values[SETTINGS_CONTROL_GROUP].text = NULL;
	supervisor_settings.values[SETTINGS_READ_GROUP].text = NULL;
	supervisor_settings_number++;
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(directory));
	record_directory = directory;
	export_changed = ignore;
	supervisor_paths = (struct supervisor_paths){ directory, directory };
	told[0] = 0;
	fiber_setup(uv_default_loop());
	supervisor_setup();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return rmdir(directory);
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
	struct export *ended = export;

	export->state = state;
	export->reconciler.busy = false;
	fiber_raise(&export->changed);
	if (state == EXPORT_GONE)
		reconcile_gone(ended);
}

static void remove_all(void *force)
{
	supervisor_remove_all(*(bool *)force, note, NULL);
}

static void test_a_removal_is_only_strengthened(void **state)
{
	bool force = false;

	(void)state;
	export = make("a", ORIGIN_REQUESTED);
	export->wanted.goal = GOAL_GONE;
	export->wanted.force = true;
	assert_int_equal(fiber_start(remove_all, &force), 0);
	assert_true(export->wanted.force);
	export->wanted.force = false;
	force = true;
	assert_int_equal(fiber_start(remove_all, &force), 0);
	assert_true(export->wanted.force);
	end_removal(EXPORT_GONE);
	assert_string_equal(told, "a 1 ;a 1 ;");
}

static void configure(const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/ublkd.conf", directory);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	supervisor_reload(note, NULL);
	unlink(path);
}

static void declare(const char *name, const char *uri)
{
	char text[200] = "";

	if (name)
		snprintf(text, sizeof(text), "[export %s]\nuri = %s\n", name, uri);
	configure(text);
}

static void test_an_error_elsewhere_does_not_stop_a_removal(void **state)
{
	(void)state;
	export = make("a", ORIGIN_DECLARED);
	configure("[export b]\nuri = tape:4M\n[ublkd]\nfrob = 1\n");
	assert_int_equal(export->wanted.goal, GOAL_GONE);
	end_removal(EXPORT_GONE);
}

static void test_an_error_that_may_hide_declarations_stops_removals(void **state)
{
	(void)state;
	export = make("a", ORIGIN_DECLARED);
	configure("[exprt a]\nuri = null:4M\n");
	assert_int_equal(export->wanted.goal, GOAL_LIVE);
	assert_non_null(strstr(told, "ublkd.conf:1: "));
	assert_non_null(strstr(told, "a 0 no longer declared, but not removed"));
	configure("");
	assert_int_equal(export->wanted.goal, GOAL_GONE);
	end_removal(EXPORT_GONE);
}

/* A heading that is refused belongs to no section yet, whatever stands before it. */
static void test_a_refused_heading_stops_removals(void **state)
{
	static const char *const before[] = { "[export b]\nuri = null:4M\n", "[ublkd]\n", "" };
	static const char *const headings[] = { "[export a] ; my disk", "export a]",
						"[export a]\x01" };
	char text[200];

	(void)state;
	export = make("a", ORIGIN_DECLARED);
	make("b", ORIGIN_DECLARED);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned j = 0; j < 3; j++) {
			snprintf(text, sizeof(text), "%s%s\nuri = null:4M\n", before[i],
				 headings[j]);
			configure(text);
			if (export->wanted.goal != GOAL_LIVE)
				fail_msg("removed by '%s'", text);
		}
	configure("");
	assert_int_equal(export->wanted.goal, GOAL_GONE);
	end_removal(EXPORT_GONE);
	export = supervisor_exports;
	end_removal(EXPORT_GONE);
}

static void test_a_wrong_declaration_shows_in_the_health_of_its_export(void **state)
{
	const struct health_condition *condition;

	(void)state;
	export = make("a", ORIGIN_DECLARED);
	condition = &export->conditions[CAUSE_DECLARATION];
	configure("[export a]\nuri = null:4M\ndepth = none\n");
	assert_int_equal(export->wanted.goal, GOAL_LIVE);
	assert_true(condition->set);
	assert_non_null(strstr(condition->detail, "ublkd.conf:3: "));
	configure("[export a]\nuri = null:8M\ndepth = 7\n");
	assert_true(condition->set);
	assert_non_null(strstr(condition->detail,
			       "the URI is null:4M, not null:8M, depth is not set, not 7"));
	told[0] = 0;
	configure("[export a]\nuri = null:4M\n");
	assert_false(condition->set);
	assert_string_equal(told, "a 1 retried;");
	configure("");
	end_removal(EXPORT_GONE);
}

static void test_a_declaration_with_an_error_is_described_as_an_export(void **state)
{
	json_t *details, *info;

	(void)state;
	assert_null(describe_refused("a"));
	configure("[export a]\nuri = tape:4M\ndepth = none\n");
	details = describe_refused("a");
	info = json_object_get(details, "export");
	assert_string_equal(json_string_value(json_object_get(info, "state")), "failed");
	assert_string_equal(json_string_value(json_object_get(info, "health")), "refused");
	assert_string_equal(json_string_value(json_object_get(info, "cause")), "configuration");
	assert_non_null(
		strstr(json_string_value(json_object_get(info, "reason")), "ublkd.conf:2: "));
	json_decref(details);
	configure("");
	assert_null(describe_refused("a"));
}

/* The flow that a fresh one's fiber begins needs a kernel: it waits for its turn. */
static void let_none_begin(void)
{
	reconcile_max_jobs = 0;
}

static void test_declared_again_while_it_is_removed(void **state)
{
	(void)state;
	export = make("a", ORIGIN_DECLARED);
	declare(NULL, NULL);
	assert_int_equal(export->wanted.goal, GOAL_GONE);
	declare("a", "null:8M");
	let_none_begin();
	end_removal(EXPORT_GONE);
	assert_non_null(supervisor_exports);
	assert_string_equal(supervisor_exports->uri, "null:8M");
	assert_int_equal(supervisor_exports->origin, ORIGIN_DECLARED);
	assert_int_equal(supervisor_exports->wanted.goal, GOAL_LIVE);
	assert_null(supervisor_exports->next);
}

static void test_no_longer_declared_when_it_is_gone(void **state)
{
	(void)state;
	export = make("a", ORIGIN_DECLARED);
	declare(NULL, NULL);
	declare("a", "null:4M");
	declare(NULL, NULL);
	end_removal(EXPORT_GONE);
	assert_null(supervisor_exports);
}

static void test_declared_and_removed_by_a_client(void **state)
{
	(void)state;
	export = make("a", ORIGIN_DECLARED);
	declare("a", "null:4M");
	export->wanted.goal = GOAL_GONE;
	end_removal(EXPORT_GONE);
	assert_null(supervisor_exports);
}

static void test_shutdown_removes_exports_that_were_declared_again(void **state)
{
	bool force = false;

	(void)state;
	export = make("a", ORIGIN_DECLARED);
	declare(NULL, NULL);
	declare("a", "null:4M");
	assert_int_equal(fiber_start(remove_all, &force), 0);
	end_removal(EXPORT_GONE);
	assert_null(supervisor_exports);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_may_call),
		cmocka_unit_test_setup_teardown(test_a_removal_is_only_strengthened, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_an_error_elsewhere_does_not_stop_a_removal,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_an_error_that_may_hide_declarations_stops_removals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_refused_heading_stops_removals, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_a_wrong_declaration_shows_in_the_health_of_its_export, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			test_a_declaration_with_an_error_is_described_as_an_export, setup,
			teardown),
		cmocka_unit_test_setup_teardown(test_no_longer_declared_when_it_is_gone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_declared_and_removed_by_a_client, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_shutdown_removes_exports_that_were_declared_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_declared_again_while_it_is_removed, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
