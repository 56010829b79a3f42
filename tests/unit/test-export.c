/* SPDX-License-Identifier: MIT */
#include "supervisor/export.h"
#include "supervisor/record.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>

static char directory[64], path[128];
static unsigned nr_told;

static void note(struct export *export)
{
	(void)export;
	nr_told++;
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/a.json", directory);
	record_directory = directory;
	export_changed = note;
	nr_told = 0;
	fiber_setup(uv_default_loop());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return rmdir(directory);
}

static struct export *make(const char *uri, json_t *options)
{
	struct export *export = NULL;
	struct error err = { 0 };

	if (export_create(&export, "a", uri, options, ORIGIN_REQUESTED, &err))
		fail_msg("%s", err.text);
	return export;
}

static void give_device(struct export *export)
{
	export->device.exists = true;
	export->device.info.dev_id = 7;
	export->device.info.nr_hw_queues = 2;
	export->device.info.queue_depth = 64;
	export->storage.limits = (struct backend_limits){ .size = 4 << 20, .logical_block = 512 };
	export->device.max_io = 1 << 20;
	export->reconciler.recoveries = 3;
	export->storage.lost = -EIO;
	export->worker.process = (struct worker_process){ 4711, 1ull << 40 };
	export->device.path = IO_PATH_USER_COPY;
	export->device.cookie = 0xfedcba9876543210;
	snprintf(export->storage.identity, sizeof(export->storage.identity), "\xc3\xa9 1:2");
}

/* Options that --persist has recorded make no other export. */
static void test_recorded_options_may_be_left_out(void **state)
{
	json_t *asked = json_pack("{s:s}", "direct", "off");
	struct export *export = make("/x", json_copy(asked));
	struct error err;

	(void)state;
	assert_int_equal(export_record_option(export, "block-size", "512", &err), 0);
	assert_int_equal(export_record_option(export, "disk", "naa.1", &err), 0);
	assert_int_equal(export->spec.values[SPEC_BLOCK_SIZE].number, 512);
	assert_true(export_is_same(export, "/x", export->options));
	assert_true(export_is_same(export, "/x", asked));
	assert_false(export_is_same(export, "/y", asked));
	json_object_set_new(asked, "block-size", json_string("4096"));
	assert_false(export_is_same(export, "/x", asked));
	json_object_set_new(asked, "block-size", json_string("512"));
	assert_true(export_is_same(export, "/x", asked));
	json_object_del(asked, "direct");
	assert_false(export_is_same(export, "/x", asked));
	json_object_set_new(asked, "direct", json_string("off"));
	json_object_set_new(asked, "queues", json_string("1"));
	assert_false(export_is_same(export, "/x", asked));
	json_decref(asked);
	export_destroy(export);
}

static void test_round_trip(void **state)
{
	struct export *export =
		make("null:4M", json_pack("{s:s, s:n}", "queues", "2", "read-only")),
		      *back;
	struct error err;

	(void)state;
	give_device(export);
	export->state = EXPORT_LIVE;
	export->wanted.goal = GOAL_SUSPENDED;
	export->origin = ORIGIN_PERSISTENT;
	assert_false(record_exists(export));
	assert_int_equal(record_write(export, &err), 0);
	assert_true(record_exists(export));
	assert_int_equal(record_read(&back, "a", &err), 0);
	assert_true(export_is_same(export, back->uri, back->options));
	assert_int_equal(back->state, EXPORT_LIVE);
	assert_int_equal(back->wanted.goal, GOAL_SUSPENDED);
	assert_int_equal(back->origin, ORIGIN_PERSISTENT);
	assert_true(back->device.exists && back->device.cookie == export->device.cookie);
	assert_int_equal(back->device.info.dev_id, 7);
	assert_int_equal(back->device.info.nr_hw_queues, 2);
	assert_int_equal(back->device.info.queue_depth, 64);
	assert_int_equal(back->storage.limits.size, 4 << 20);
	assert_int_equal(back->device.max_io, 1 << 20);
	assert_int_equal(back->reconciler.recoveries, 3);
	assert_int_equal(back->storage.lost, -EIO);
	assert_int_equal(back->worker.process.pid, 4711);
	assert_int_equal(back->worker.process.started, 1ull << 40);
	assert_int_equal(back->device.path, IO_PATH_USER_COPY);
	assert_string_equal(back->storage.identity, export->storage.identity);
	record_remove(export);
	assert_false(record_exists(export));
	export_destroy(export);
	export_destroy(back);
}

static void test_an_export_without_a_device(void **state)
{
	struct export *export = make("null:4M", json_object()), *back;
	struct error err;

	(void)state;
	assert_int_equal(record_write(export, &err), 0);
	assert_int_equal(record_read(&back, "a", &err), 0);
	assert_false(back->device.exists);
	assert_int_equal(back->state, EXPORT_DECLARED);
	export_destroy(export);
	export_destroy(back);
}

/* An ublkd that dies between a record's writing and its rename leaves this. */
static void test_an_unfinished_record_is_removed(void **state)
{
	char fresh[300];

	(void)state;
	snprintf(fresh, sizeof(fresh), "%s/a.json.new", record_directory);
	close(open(fresh, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(access(fresh, F_OK), 0);
	assert_false(record_remove_unfinished("a.json"));
	assert_false(record_remove_unfinished("new"));
	assert_true(record_remove_unfinished("a.json.new"));
	assert_int_equal(access(fresh, F_OK), -1);
}

static int read_text(const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), ret;
	struct export *export;
	struct error err;

	assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
	ret = record_read(&export, "a", &err);
	if (!ret)
		export_destroy(export);
	return ret;
}

/* Members of a record, left out or made something else, one at a time. */
static void test_hostile_records(void **state)
{
	struct export *export = make("null:4M", json_object());
	json_t *whole, *value;
	struct error err;
	const char *name;
	char *text;

	(void)state;
	give_device(export);
	export->state = EXPORT_LIVE;
	assert_int_equal(record_write(export, &err), 0);
	whole = json_load_file(path, 0, NULL);
	text = json_dumps(whole, 0);
	assert_int_equal(read_text(text), 0);
	for (size_t length = strlen(text); length--;) {
		text[length] = 0;
		assert_int_not_equal(read_text(text), 0);
	}
	free(text);
	json_object_foreach(whole, name, value) {
		for (unsigned i = 0; i < 4; i++) {
			json_t *copy = json_deep_copy(whole);

			json_object_del(copy, name);
			if (i)
				json_object_set_new(copy, name,
						    i == 1   ? json_string("?\x1b")
						    : i == 2 ? json_array()
							     : json_integer(-1));
			text = json_dumps(copy, 0);
			/* Whatever comes of it: no crash, nothing left. */
			read_text(text);
			free(text);
			json_decref(copy);
		}
	}
	assert_int_not_equal(read_text(""), 0);
	assert_int_not_equal(read_text("[]"), 0);
	json_object_set_new(json_object_get(whole, "limits"), "logical-block", json_integer(0));
	text = json_dumps(whole, 0);
	assert_int_equal(read_text(text), -EBADMSG);
	free(text);
	json_decref(whole);
	export_destroy(export);
}

static void test_refuses_at_once(void **state)
{
	static const struct {
		const char *name, *uri, *option;
	} odd[] = {
		{ "../a", "null:4M", NULL },    { "", "null:4M", NULL },
		{ "a", "tape:4M", NULL },       { "a", "null:4M", "nonsense" },
		{ "a", "file:relative", NULL },
	};
	struct export *export;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		json_t *options = json_object();

		if (odd[i].option)
			json_object_set_new(options, odd[i].option, json_null());
		assert_true(export_create(&export, odd[i].name, odd[i].uri, options,
					  ORIGIN_REQUESTED, &err) < 0);
		assert_true(*err.text);
	}
}

static void test_history_and_fault(void **state)
{
	struct export *export = make("null:4M", json_object());
	struct error err = { .code = EIO, .text = "why" };
	char reason[16];

	(void)state;
	for (unsigned i = 0; i < 3 * EXPORT_HISTORY; i++) {
		snprintf(reason, sizeof(reason), "%u", i);
		export_note(export, i ? reason : NULL);
	}
	assert_int_equal(export->nr_changes, 3 * EXPORT_HISTORY);
	assert_int_equal(export->first_change, 2 * EXPORT_HISTORY);
	assert_string_equal(export->history[(export->nr_changes - 1) % EXPORT_HISTORY].reason,
			    reason);
	export_set_fault(export, &err);
	export_set_fault(export, &err);
	assert_string_equal(export->fault->text, "why");
	export_set_fault(export, NULL);
	assert_null(export->fault);
	assert_int_equal(nr_told, 3 * EXPORT_HISTORY + 3);
	export_destroy(export);
}

/* Hours of attempts must not push out what was before them. */
static void test_attempts_that_repeat_are_kept_once(void **state)
{
	struct export *export = make("null:4M", json_object());
	const struct export_change *changes = export->history;

	(void)state;
	export_note(export, "before");
	for (unsigned i = 0; i < 100; i++) {
		export_note(export, "tried");
		export_note(export, NULL);
		export_note(export, "failed");
	}
	assert_int_equal(export->nr_changes, 4);
	assert_int_equal(nr_told, 301);
	assert_string_equal(changes[0].reason, "before");
	assert_int_equal(changes[0].repeated, 0);
	assert_string_equal(changes[1].reason, "tried");
	assert_null(changes[2].reason);
	assert_string_equal(changes[3].reason, "failed");
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(changes[i].repeated, 99);
		assert_true(changes[i].last_us >= changes[i].time_us);
	}
	/* Another outcome is a change of its own. */
	export_note(export, "tried");
	export_note(export, "live");
	assert_int_equal(export->nr_changes, 6);
	assert_string_equal(changes[5].reason, "live");
	/* With the ring full as well. */
	for (unsigned i = 0; i < 2 * EXPORT_HISTORY; i++)
		export_note(export, i & 1 ? "a" : "b");
	assert_int_equal(export->nr_changes, 8);
	assert_string_equal(changes[0].reason, "before");
	export_destroy(export);
}

/* An export that is tried again and again is not well each time that it is tried. */
static void test_health_between_attempts(void **state)
{
	struct export *export = make("null:4M", json_object());
	struct error err = { .code = EIO, .text = "no server" };
	struct export_health health;

	(void)state;
	export->state = EXPORT_OPENING;
	export_health(export, &health);
	assert_int_equal(health.health, HEALTH_OK);
	export_set_fault(export, &err);
	for (unsigned i = 0; i < 3; i++) {
		static const enum export_state states[] = { EXPORT_DECLARED, EXPORT_OPENING,
							    EXPORT_STARTING };

		export->state = states[i];
		export_health(export, &health);
		assert_int_equal(health.health, HEALTH_WAITING);
		assert_string_equal(health.cause, "not-started");
		assert_string_equal(health.reason, "no server");
	}
	export_destroy(export);
}

static void test_failed_flush_is_kept(void **state)
{
	struct export *export = make("null:4M", json_object());

	(void)state;
	assert_false(export_check_lost(export));
	export->worker.counters = counters_create(1, NULL, &export->worker.counters_fd);
	assert_non_null(export->worker.counters);
	assert_false(export_check_lost(export));
	export->worker.counters->lost = -ENOSPC;
	assert_true(export_check_lost(export));
	assert_int_equal(export->storage.lost, -ENOSPC);
	/* Whatever its server writes there later. */
	export->worker.counters->lost = 0;
	assert_false(export_check_lost(export));
	assert_int_equal(export->storage.lost, -ENOSPC);
	export->storage.lost = 0;
	export->worker.counters->lost = INT32_MIN;
	assert_true(export_check_lost(export));
	assert_int_equal(export->storage.lost, -EIO);
	export_destroy(export);
}

/* An outage ends with fewer connections first: it has lasted since the first of its causes. */
static void test_trouble_lasts_from_its_first_cause(void **state)
{
	struct export *export = make("null:4M", json_object());
	int64_t began;

	(void)state;
	export->state = EXPORT_LIVE;
	export_set_condition(export, CAUSE_SERVER_AWAY, "away");
	export->trouble_since_s -= 100;
	began = export->trouble_since_s;
	export_set_condition(export, CAUSE_CONNECTIONS, "1 of 2");
	export_set_condition(export, CAUSE_SERVER_AWAY, NULL);
	assert_int_equal(export->health_cause, CAUSE_CONNECTIONS);
	assert_true(export->health_since_s >= began + 100);
	assert_int_equal(export->trouble_since_s, began);
	export_set_condition(export, CAUSE_CONNECTIONS, NULL);
	export_set_condition(export, CAUSE_SERVER_AWAY, "away");
	assert_true(export->trouble_since_s >= began + 100);
	export_set_condition(export, CAUSE_SERVER_AWAY, NULL);
	export_destroy(export);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_recorded_options_may_be_left_out, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_export_without_a_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_unfinished_record_is_removed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_hostile_records, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuses_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_history_and_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attempts_that_repeat_are_kept_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_health_between_attempts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_flush_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trouble_lasts_from_its_first_cause, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
