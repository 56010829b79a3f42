/* SPDX-License-Identifier: MIT */
#include "supervisor/managed.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>

static char folder[64], path[128];
static unsigned nr_told;

static void note(struct managed *m)
{
	(void)m;
	nr_told++;
}

static int setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.json", folder);
	managed_folder = folder;
	managed_changed = note;
	nr_told = 0;
	fiber_setup(uv_default_loop());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return rmdir(folder);
}

static struct managed *make(const char *uri, json_t *options)
{
	struct managed *m = NULL;
	struct error err = { 0 };

	if (managed_create(&m, "a", uri, options, ORIGIN_REQUESTED, &err))
		fail_msg("%s", err.text);
	return m;
}

static void give_device(struct managed *m)
{
	m->device.exists = true;
	m->device.info.dev_id = 7;
	m->device.info.nr_hw_queues = 2;
	m->device.info.queue_depth = 64;
	m->limits = (struct backend_limits){ .size = 4 << 20, .logical_block = 512 };
	m->device.max_io = 1 << 20;
	m->recoveries = 3;
	m->lost = -EIO;
	m->process = (struct worker_process){ 4711, 1ull << 40 };
	m->device.path = IO_PATH_USER_COPY;
	m->device.cookie = 0xfedcba9876543210;
	snprintf(m->identity, sizeof(m->identity), "\xc3\xa9 1:2");
}

/* Options that --persist has recorded make no other export. */
static void test_recorded_options_may_be_left_out(void **state)
{
	json_t *asked = json_pack("{s:s}", "direct", "off");
	struct managed *m = make("/x", json_copy(asked));
	struct error err;

	(void)state;
	assert_int_equal(managed_record(m, "block-size", "512", &err), 0);
	assert_int_equal(managed_record(m, "disk", "naa.1", &err), 0);
	assert_int_equal(m->spec.values[SPEC_BLOCK_SIZE].number, 512);
	assert_true(managed_is_same(m, "/x", m->options));
	assert_true(managed_is_same(m, "/x", asked));
	assert_false(managed_is_same(m, "/y", asked));
	json_object_set_new(asked, "block-size", json_string("4096"));
	assert_false(managed_is_same(m, "/x", asked));
	json_object_set_new(asked, "block-size", json_string("512"));
	assert_true(managed_is_same(m, "/x", asked));
	json_object_del(asked, "direct");
	assert_false(managed_is_same(m, "/x", asked));
	json_object_set_new(asked, "direct", json_string("off"));
	json_object_set_new(asked, "queues", json_string("1"));
	assert_false(managed_is_same(m, "/x", asked));
	json_decref(asked);
	managed_destroy(m);
}

static void test_round_trip(void **state)
{
	struct managed *m = make("null:4M", json_pack("{s:s, s:n}", "queues", "2", "read-only")),
		       *back;
	struct error err;

	(void)state;
	give_device(m);
	m->state = EXPORT_LIVE;
	m->want = WANT_SUSPENDED;
	m->origin = ORIGIN_PERSISTENT;
	assert_false(managed_has_record(m));
	assert_int_equal(managed_write(m, &err), 0);
	assert_true(managed_has_record(m));
	assert_int_equal(managed_read(&back, "a", &err), 0);
	assert_true(managed_is_same(m, back->uri, back->options));
	assert_int_equal(back->state, EXPORT_LIVE);
	assert_int_equal(back->want, WANT_SUSPENDED);
	assert_int_equal(back->origin, ORIGIN_PERSISTENT);
	assert_true(back->device.exists && back->device.cookie == m->device.cookie);
	assert_int_equal(back->device.info.dev_id, 7);
	assert_int_equal(back->device.info.nr_hw_queues, 2);
	assert_int_equal(back->device.info.queue_depth, 64);
	assert_int_equal(back->limits.size, 4 << 20);
	assert_int_equal(back->device.max_io, 1 << 20);
	assert_int_equal(back->recoveries, 3);
	assert_int_equal(back->lost, -EIO);
	assert_int_equal(back->process.pid, 4711);
	assert_int_equal(back->process.started, 1ull << 40);
	assert_int_equal(back->device.path, IO_PATH_USER_COPY);
	assert_string_equal(back->identity, m->identity);
	managed_unwrite(m);
	assert_false(managed_has_record(m));
	managed_destroy(m);
	managed_destroy(back);
}

static void test_one_without_device(void **state)
{
	struct managed *m = make("null:4M", json_object()), *back;
	struct error err;

	(void)state;
	assert_int_equal(managed_write(m, &err), 0);
	assert_int_equal(managed_read(&back, "a", &err), 0);
	assert_false(back->device.exists);
	assert_int_equal(back->state, EXPORT_DECLARED);
	managed_destroy(m);
	managed_destroy(back);
}

/* An ublkd that dies between a record's writing and its rename leaves this. */
static void test_one_that_was_not_finished(void **state)
{
	char fresh[300];

	(void)state;
	snprintf(fresh, sizeof(fresh), "%s/a.json.new", managed_folder);
	close(open(fresh, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(access(fresh, F_OK), 0);
	assert_false(managed_unwrite_unfinished("a.json"));
	assert_false(managed_unwrite_unfinished("new"));
	assert_true(managed_unwrite_unfinished("a.json.new"));
	assert_int_equal(access(fresh, F_OK), -1);
}

static int read_text(const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), ret;
	struct managed *m;
	struct error err;

	assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
	ret = managed_read(&m, "a", &err);
	if (!ret)
		managed_destroy(m);
	return ret;
}

/* Members of a record, left out or made something else, one at a time. */
static void test_hostile_records(void **state)
{
	struct managed *m = make("null:4M", json_object());
	json_t *whole, *value;
	struct error err;
	const char *name;
	char *text;

	(void)state;
	give_device(m);
	m->state = EXPORT_LIVE;
	assert_int_equal(managed_write(m, &err), 0);
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
	managed_destroy(m);
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
	struct managed *m;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		json_t *options = json_object();

		if (odd[i].option)
			json_object_set_new(options, odd[i].option, json_null());
		assert_true(managed_create(&m, odd[i].name, odd[i].uri, options, ORIGIN_REQUESTED,
					   &err) < 0);
		assert_true(*err.text);
	}
}

static void test_history_and_fault(void **state)
{
	struct managed *m = make("null:4M", json_object());
	struct error err = { .code = EIO, .text = "why" };

	(void)state;
	for (unsigned i = 0; i < 3 * MANAGED_HISTORY; i++)
		managed_note(m, i & 1 ? "odd" : NULL);
	assert_int_equal(m->nr_changes, 3 * MANAGED_HISTORY);
	assert_string_equal(m->history[(m->nr_changes - 1) % MANAGED_HISTORY].reason, "odd");
	managed_set_fault(m, &err);
	managed_set_fault(m, &err);
	assert_string_equal(m->fault->text, "why");
	managed_set_fault(m, NULL);
	assert_null(m->fault);
	assert_int_equal(nr_told, 3 * MANAGED_HISTORY + 3);
	managed_destroy(m);
}

static void test_failed_flush_is_kept(void **state)
{
	struct managed *m = make("null:4M", json_object());

	(void)state;
	assert_false(managed_look_lost(m));
	m->counters = counters_create(1, NULL, &m->counters_fd);
	assert_non_null(m->counters);
	assert_false(managed_look_lost(m));
	m->counters->lost = -ENOSPC;
	assert_true(managed_look_lost(m));
	assert_int_equal(m->lost, -ENOSPC);
	/* Whatever its server writes there later. */
	m->counters->lost = 0;
	assert_false(managed_look_lost(m));
	assert_int_equal(m->lost, -ENOSPC);
	m->lost = 0;
	m->counters->lost = INT32_MIN;
	assert_true(managed_look_lost(m));
	assert_int_equal(m->lost, -EIO);
	managed_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_recorded_options_may_be_left_out, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_without_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_that_was_not_finished, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_records, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuses_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_history_and_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_flush_is_kept, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
