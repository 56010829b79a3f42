/* SPDX-License-Identifier: MIT */
/*
 * The change of an export's workers, as far as ublkd's side of it goes: the workers are
 * this program itself, which refuse what they are told, or have content, and the kernel a
 * fake one that has no device.
 */
#include "common/clock.h"
#include "common/error.h"
#include "engine/params.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/reconcile.h"
#include "supervisor/record.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/export.h"
#include "supervisor/worker_socket.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/in-fiber.h"
#include "tests/unit/test.h"
#include "worker/limits.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define STUB        "UBLKD_TEST_STUB"
#define HAS_CONTENT "UBLKD_TEST_HAS_CONTENT"
#define OPENS       "UBLKD_TEST_OPENS"
#define REFUSES     "UBLKD_TEST_REFUSES" /* an errno; not set: EPROTO */
#define WAIT_MS     20000u

/* ---- the stub ---- */

static void refuse(int link, json_int_t id)
{
	const char *code = getenv(REFUSES);
	struct error err = { .code = code ? atoi(code) : EPROTO, .text = "not me" };

	link_send(link, link_failure(id, &err), NULL, 0);
}

/* With the content, but no counters. */
static void greet(int link, json_int_t id)
{
	int fd = memfd_create("content", MFD_CLOEXEC), fds[2] = { fd, fd };

	link_send(link, json_pack("{s:I}", "done", id), fds, 2);
	close(fd);
}

static const struct backend_limits stub_limits = { .size = 1 << 20, .logical_block = 512 };

/* As it is told to. */
static void open_storage(int link, const json_t *request)
{
	link_send(link,
		  json_pack("{s:O, s:O, s:O, s:o}", "done", json_object_get(request, "id"),
			    "queues", json_object_get(request, "queues"), "depth",
			    json_object_get(request, "depth"), "limits",
			    limits_to_json(&stub_limits)),
		  NULL, 0);
}

static int stub(void)
{
	struct link_fds fds, ignored;
	json_t *message;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	while ((ret = link_receive(WORKER_START_FD, &message, &fds)) == -EAGAIN)
		sleep_us(1000);
	if (ret || listen(fds.fd[0], 4))
		return 1;
	for (int link = -1;;) {
		if (link < 0)
			link = accept4(fds.fd[0], NULL, NULL, SOCK_CLOEXEC);
		while ((ret = link_receive(link, &message, &ignored)) == -EAGAIN)
			sleep_us(1000);
		if (ret) {
			close(link);
			link = -1;
			continue;
		}
		if (getenv(OPENS))
			open_storage(link, message);
		else
			(getenv(HAS_CONTENT) ? greet : refuse)(
				link, json_integer_value(json_object_get(message, "id")));
		json_decref(message);
		link_close_fds(&ignored);
	}
}

/* ---- the kernel, for fibers ---- */

static struct control driver;

static int ignore_attribute(struct control *control, const char *path, const char *value)
{
	(void)control;
	(void)path;
	(void)value;
	return 0;
}

void control_async_init(struct control *control, const char *export)
{
	(void)export;
	control_share(control, &driver);
	control->write_attribute = ignore_attribute;
}

static const struct fake_kernel *release = &fake_linux_7_2;

uint64_t control_async_features(void)
{
	return release->features;
}

/* Calls so far, in order; how often ublkcN is still taken. */
static char done[64];
static unsigned still_busy;

static void note(const char *what)
{
	struct ublk_ctrl_cmd payload;

	/* All of it before a recovery begins. */
	assert_int_not_equal(fake_last_command(&payload), UBLK_CTRL_START_USER_RECOVERY);
	snprintf(done + strlen(done), sizeof(done) - strlen(done), "%s ", what);
}

int blocking_open(struct blocking_for who, const char *path, int flags, unsigned mode, unsigned ms)
{
	(void)who;
	(void)flags;
	(void)mode;
	(void)ms;
	if (!path || strncmp(path, UBLK_CHAR_PREFIX, strlen(UBLK_CHAR_PREFIX)) != 0)
		return -ENOENT;
	note(still_busy ? "busy" : "open");
	if (!still_busy)
		return 1000;
	still_busy--;
	return -EBUSY;
}

int blocking_open_as(struct blocking_for who, const struct owner *owner, const char *path,
		     int flags, unsigned mode, bool storage, unsigned ms)
{
	(void)owner;
	(void)storage;
	return blocking_open(who, path, flags, mode, ms);
}

int blocking_unlink_as(struct blocking_for who, const struct owner *owner, const char *path,
		       unsigned ms)
{
	(void)owner;
	return blocking_open(who, path, 0, 0, ms);
}

int blocking_connect_as(struct blocking_for who, const struct owner *owner, const char *path,
			unsigned ms)
{
	return blocking_unlink_as(who, owner, path, ms);
}

void blocking_close(struct blocking_for who, int fd, unsigned ms)
{
	(void)who;
	(void)ms;
	assert_int_equal(fd, 1000);
	note("close");
}

int blocking_fsync(struct blocking_for who, int fd, unsigned ms)
{
	(void)fd;
	return blocking_open(who, NULL, 0, 0, ms);
}

int blocking_settle(struct blocking_for who, unsigned ms)
{
	(void)who;
	(void)ms;
	note("settle");
	return 0;
}

static bool in_use; /* a process has the device open */

int blocking_find_holders(const char *export, const char *block, struct holders *holders,
			  unsigned ms)
{
	(void)export;
	(void)block;
	(void)ms;
	if (!in_use)
		return -ENODEV;
	holders->list = calloc(1, sizeof(*holders->list));
	assert_non_null(holders->list);
	holders->list[0].pid = 1;
	holders->nr = 1;
	return 0;
}

const char *blocking_reason(int code)
{
	return strerror(-code);
}

/* ---- the tests ---- */

static char directory[64];
static struct export *export;
static struct error err;

static void ignore(struct export *changed)
{
	(void)changed;
}

static void nothing(void *context)
{
	(void)context;
}

/* More fibers than any test has at a time. */
static void many(void *context)
{
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fiber_start(nothing, context), 0);
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/ublkd-test-XXXXXX");
	assert_non_null(mkdtemp(directory));
	record_directory = directory;
	export_changed = ignore;
	export_worker_events = reconcile_worker_events;
	worker_setup = (struct worker_setup){
		.program = "/proc/self/exe",
		.starter = "/nonexistent",
		.directory = directory,
	};
	fiber_setup(uv_default_loop());
	/* Their stacks are there for the next ones, and are not to be the fake kernel's. */
	assert_int_equal(fiber_start(many, NULL), 0);
	setenv(STUB, "1", 1);
	fake_start(&fake_linux_7_2);
	assert_int_equal(control_open(&driver, 2000, &err), 0);
	assert_int_equal(
		export_create(&export, "a", "memory:1M", json_object(), ORIGIN_REQUESTED, &err), 0);
	export->state = EXPORT_RECOVERING;
	export->device.exists = true;
	export->device.cookie = 1;
	export->reconciler.busy = true;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	record_remove(export);
	export_destroy(export);
	worker_socket_remove("a");
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	control_close(&driver);
	fake_stop();
	return rmdir(directory);
}

static struct worker *start(void)
{
	struct worker *w = NULL;

	if (worker_start(&w, "a", &export->worker.events, &err))
		fail_msg("%s", err.text);
	return w;
}

static void end(struct worker *w)
{
	assert_int_equal(worker_finish(w, 0), 0);
	worker_forget(w);
}

static void fails_to_recover(void)
{
	struct worker *held = start();

	export->worker.handle = held;
	export->worker.holding = true;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(flow_recover(export, start(), &err), -ENODEV);
		assert_ptr_equal(export->worker.handle, held);
		assert_true(export->worker.holding);
		assert_true(worker_is_there(held));
	}
	end(held);
	export->worker.handle = NULL;
}

static void test_the_memory_is_kept_until_a_recovery_succeeds(void **state)
{
	(void)state;
	in_fiber(fails_to_recover);
}

static void publishes(void)
{
	struct worker *held = start(), *found = NULL;

	assert_int_equal(worker_publish(held, &err), 0);
	export->worker.process = worker_process(held);
	export->worker.handle = start();
	assert_true(worker_is_there(held));
	assert_int_equal(flow_publish(export, held, &err), 0);
	assert_int_equal(worker_finish(held, WAIT_MS), 0);
	worker_forget(held);
	assert_int_equal(export->worker.process.pid, worker_pid(export->worker.handle));
	assert_int_equal(worker_adopt(&found, "a", &export->worker.process, 0,
				      &export->worker.events, &err),
			 0);
	assert_int_equal(worker_pid(found), export->worker.process.pid);
	worker_forget(found);
	end(export->worker.handle);
	export->worker.handle = NULL;
}

static void test_a_published_worker_takes_the_place(void **state)
{
	(void)state;
	in_fiber(publishes);
}

/* Whether the process is there; not any more, then. */
static bool is_left(const struct worker_process *process)
{
	struct worker *w = worker_adopt_known("a", process, &export->worker.events);

	if (w)
		end(w);
	return w;
}

/* Two workers, of which one was to replace the other when an ublkd died. */
static void adopt_after(bool published)
{
	struct worker *held = start(), *fresh;
	struct worker_process was = worker_process(held), is;
	char path[80];

	assert_int_equal(worker_publish(held, &err), 0);
	fresh = start();
	is = worker_process(fresh);
	if (published)
		assert_int_equal(worker_publish(fresh, &err), 0);
	worker_forget(held);
	worker_forget(fresh);
	export->worker.process = was;
	export->state = EXPORT_RECOVERING;
	assert_int_equal(flow_adopt(export, &err), 0);
	assert_int_equal(export->state, EXPORT_DECLARED);
	assert_null(export->worker.handle);
	assert_int_equal(is_left(&was) + is_left(&is), 0);
	snprintf(path, sizeof(path), "%s/a.new", directory);
	assert_int_equal(access(path, F_OK), -1);
}

static void adopts_both(void)
{
	export->device.exists = false;
	adopt_after(false);
	adopt_after(true);
}

static void test_an_interrupted_change_leaves_no_worker(void **state)
{
	(void)state;
	in_fiber(adopts_both);
}

static void adopts_content(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char text[200] = "";

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/manager", directory);
	assert_int_equal(bind(manager, (struct sockaddr *)&at, sizeof(at)), 0);
	setenv("NOTIFY_SOCKET", at.sun_path, 1);
	setenv(HAS_CONTENT, "1", 1);
	export->worker.handle = start();
	unsetenv(HAS_CONTENT);
	assert_int_equal(worker_publish(export->worker.handle, &err), 0);
	worker_forget(export->worker.handle);
	export->worker.handle = NULL;
	export->device.exists = false;
	assert_int_equal(flow_adopt(export, &err), 0);
	unsetenv("NOTIFY_SOCKET");
	unlink(at.sun_path);
	assert_true(export->storage.memory_fd >= 0);
	assert_true(recv(manager, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "FDSTORE=1\nFDNAME=memory-a\nFDPOLL=0");
	close(manager);
}

static void test_content_that_is_found_is_stored(void **state)
{
	(void)state;
	in_fiber(adopts_content);
}

static bool waited;

static void wait_no_more(uv_timer_t *timer)
{
	(void)timer;
	waited = true;
	worker_kill(export->worker.handle);
}

static void ends_a_holder(void)
{
	uv_timer_t timer;

	export->worker.handle = start();
	export->worker.holding = true;
	uv_timer_init(uv_default_loop(), &timer);
	uv_timer_start(&timer, wait_no_more, WAIT_MS, 0);
	assert_int_equal(flow_end_worker(export, 2 * WAIT_MS, &err), 0);
	uv_close((uv_handle_t *)&timer, NULL);
	fiber_sleep(1);
	assert_false(waited);
	assert_false(export->worker.holding);
	assert_null(export->worker.handle);
}

static void test_a_worker_that_holds_memory_is_killed_at_once(void **state)
{
	(void)state;
	in_fiber(ends_a_holder);
}

static void dies_meanwhile(void)
{
	struct worker *held = start();

	export->worker.handle = start();
	export->worker.command_waits = true;
	export->control.abort = 0;
	assert_int_equal(worker_finish(held, 0), 0);
	/* Whoever waits for an end goes on first; then others hear of it. */
	fiber_sleep(1);
	assert_int_equal(export->control.abort, 0);
	assert_int_equal(worker_finish(export->worker.handle, 0), 0);
	fiber_sleep(1);
	assert_int_equal(export->control.abort, 1);
	worker_forget(held);
	end(export->worker.handle);
	export->worker.handle = NULL;
}

static void test_only_its_own_death_ends_a_command(void **state)
{
	(void)state;
	in_fiber(dies_meanwhile);
}

static void opens_with_shape(void)
{
	struct backend_limits limits;
	unsigned nr_queues, depth;
	char identity[sizeof(export->storage.identity)];

	setenv(OPENS, "1", 1);
	export->worker.handle = start();
	unsetenv(OPENS);
	/* Its counters as well, where they were lost. */
	assert_int_equal(flow_create_counters(export, &err), 0);
	assert_int_equal(counters_nr_queues(export->worker.counters), 3000);
	assert_int_equal(flow_open(export, &limits, identity, &nr_queues, &depth, &err), 0);
	assert_int_equal(nr_queues, 3000);
	assert_int_equal(depth, 4000);
	/* A new one: as many as there is room to count, whatever CPUs there are by now. */
	export->device.exists = false;
	assert_int_equal(flow_open(export, &limits, identity, &nr_queues, &depth, &err), 0);
	assert_int_equal(nr_queues, 3000);
	assert_int_equal(depth, 128);
	flow_drop_counters(export);
	end(export->worker.handle);
	export->worker.handle = NULL;
}

/* More queues than this machine has CPUs, and another depth than the default. */
static void test_a_device_keeps_its_shape(void **state)
{
	(void)state;
	export->device.info.nr_hw_queues = 3000;
	export->device.info.queue_depth = 4000;
	export->device.max_io = 4096;
	in_fiber(opens_with_shape);
}

/* The state of an export whose worker has died nine times in a row, and dies again. */
static enum export_state after_the_tenth_death(int64_t lived_ms, uint64_t served)
{
	export->worker.handle = start();
	assert_int_equal(worker_finish(export->worker.handle, 0), 0);
	export->state = EXPORT_LIVE;
	export->reconciler.failures = 9;
	export->reconciler.given_up = false;
	export->worker.live_since_ms = clock_ms() - (uint64_t)lived_ms;
	export->worker.live_served = export_served(export);
	counters_queue(export->worker.counters, 1)->op[IO_WRITE].completed += served;
	/* So that no recovery is tried. */
	export->wanted.goal = GOAL_SUSPENDED;
	export->reconciler.busy = false;
	reconcile_kick(export);
	while (export->reconciler.busy)
		fiber_wait(&export->changed, 1000);
	export->reconciler.busy = true;
	worker_forget(export->worker.handle);
	export->worker.handle = NULL;
	assert_int_equal(export->reconciler.failures, export->state == EXPORT_FAILED ? 10 : 0);
	return export->state;
}

static void dies_often(void)
{
	assert_int_equal(flow_create_counters(export, &err), 0);
	/* The export becomes live in a minute only: however slow this test is, it died at once. */
	assert_int_equal(after_the_tenth_death(-60000, 0), EXPORT_FAILED);
	assert_int_equal(after_the_tenth_death(-60000, 1000000), EXPORT_FAILED);
	assert_int_equal(after_the_tenth_death(4000, 100), EXPORT_SUSPENDED);
	assert_int_equal(after_the_tenth_death(60000, 0), EXPORT_SUSPENDED);
	flow_drop_counters(export);
}

static void test_a_worker_that_served_has_not_died_in_a_row(void **state)
{
	(void)state;
	assert_true(reconcile_died_at_once(0, 0));
	assert_true(reconcile_died_at_once(1999, 1000000));
	assert_true(reconcile_died_at_once(9999, 99));
	assert_false(reconcile_died_at_once(2000, 100));
	assert_false(reconcile_died_at_once(10000, 0));
	export->device.info.nr_hw_queues = 2;
	export->device.info.queue_depth = 8;
	in_fiber(dies_often);
}

static const char *expected;

static void begins_recovery(void)
{
	struct ublk_ctrl_cmd payload;
	struct worker *ready;

	setenv(OPENS, "1", 1);
	ready = start();
	unsetenv(OPENS);
	fake_refuse(UBLK_CTRL_START_USER_RECOVERY, EIO);
	assert_int_equal(flow_recover(export, ready, &err), -EIO);
	assert_int_equal(fake_last_command(&payload), UBLK_CTRL_START_USER_RECOVERY);
	assert_string_equal(done, expected);
	flow_drop_counters(export);
}

/* A device whose worker has died; what is done before the kernel is told of the next one. */
static void recovers_on(const struct fake_kernel *kernel, const char *steps)
{
	release = kernel;
	expected = steps;
	done[0] = 0;
	export->device.info = (struct ublk_dev_info){ .dev_id = UBLK_ID_AUTO,
						      .nr_hw_queues = 1,
						      .queue_depth = 4,
						      .max_io_buf_bytes = 4096,
						      .server_flags = export->device.cookie,
						      .flags = UBLK_FEAT_RECOVERY };
	export->device.max_io = 4096;
	export->storage.limits = stub_limits;
	assert_int_equal(params_complete_limits(&export->storage.limits, &err), 0);
	assert_int_equal(control_add(&driver, &export->device.info, &err), 0);
	fake_quiesce(export->device.info.dev_id);
	in_fiber(begins_recovery);
	assert_int_equal(control_delete(&driver, export->device.info.dev_id, &err), 0);
	release = &fake_linux_7_2;
}

static void test_6_12_is_done_with_a_dead_worker_before_the_next(void **state)
{
	(void)state;
	recovers_on(&fake_linux_6_12, "open settle close ");
	still_busy = 2;
	recovers_on(&fake_linux_6_12, "busy busy open settle close ");
	recovers_on(&fake_linux_7_2, "");
}

/* Data beyond a smaller size is lost: only a forced request shrinks a device, while it is closed. */
static void keeps_its_size(void)
{
	export->storage.limits = stub_limits;
	assert_int_equal(flow_grow(export, stub_limits.size, &err), 0);
	assert_int_equal(flow_grow(export, stub_limits.size + 511, &err), 0);
	assert_int_equal(flow_grow(export, 4096, &err), 0);
	assert_int_equal(flow_resize(export, 4096, false, &err), -EINVAL);
	assert_non_null(strstr(err.text, "use force"));
	assert_int_equal(flow_resize(export, 4097, true, &err), -EINVAL);
	assert_int_equal(flow_resize(export, stub_limits.size + 1, false, &err), -EINVAL);
	in_use = true;
	assert_int_equal(flow_resize(export, 4096, true, &err), -EBUSY);
	assert_int_equal(flow_resize(export, 4096, false, &err), -EBUSY);
	in_use = false;
	assert_int_equal(export->storage.limits.size, stub_limits.size);
	release = &fake_linux_6_12;
	assert_int_equal(flow_grow(export, 2 * stub_limits.size, &err), -EOPNOTSUPP);
	assert_int_equal(flow_resize(export, 4096, true, &err), -EOPNOTSUPP);
	release = &fake_linux_7_2;
}

/* Storage that cannot shrink is asked before the kernel. */
static void asks_the_storage_first(void)
{
	struct ublk_ctrl_cmd payload;

	export->storage.limits = stub_limits;
	export->worker.handle = start();
	assert_int_equal(flow_resize(export, 4096, true, &err), -EPROTO);
	assert_int_not_equal(fake_last_command(&payload), UBLK_CTRL_UPDATE_SIZE);
	assert_int_equal(export->storage.limits.size, stub_limits.size);
	end(export->worker.handle);
	export->worker.handle = NULL;
}

static void test_storage_that_cannot_shrink_changes_nothing(void **state)
{
	(void)state;
	in_fiber(asks_the_storage_first);
}

static void test_a_device_shrinks_only_by_force_and_closed(void **state)
{
	(void)state;
	in_fiber(keeps_its_size);
}

static void reconcile(void)
{
	export->reconciler.busy = false;
	reconcile_kick(export);
	while (export->reconciler.busy)
		fiber_wait(&export->changed, 1000);
	export->reconciler.busy = true;
}

/* Nobody but the user says whether it is to be made again, with what is mounted on it. */
static void loses_its_device(void)
{
	export->device.info.nr_hw_queues = 1;
	export->device.info.queue_depth = 8;
	export->wanted.goal = GOAL_LIVE;
	reconcile();
	assert_int_equal(export->state, EXPORT_DECLARED);
	assert_false(export->device.exists);
	assert_true(export->reconciler.given_up);
	assert_false(export->wanted.force);
	assert_non_null(export->fault);
	assert_non_null(
		strstr(export->fault->text, "another program stopped or removed the device"));
	reconcile();
	assert_int_equal(export->state, EXPORT_DECLARED);
}

static void test_a_device_that_another_program_removed_is_given_up(void **state)
{
	(void)state;
	in_fiber(loses_its_device);
}

static unsigned openings(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < EXPORT_HISTORY && i < export->nr_changes; i++)
		if (export->history[i].state == EXPORT_OPENING)
			nr += 1 + export->history[i].repeated;
	return nr;
}

static void suspend_after_two_tries(void *context)
{
	(void)context;
	while (openings() < 3)
		fiber_wait(&export->changed, 0);
	export->wanted.goal = GOAL_SUSPENDED;
}

/* The kernel closes the files of a worker that was killed a moment after its end. */
static void waits_for_its_storage(void)
{
	setenv(REFUSES, "16", 1); /* EBUSY */
	export->device.exists = false;
	export->state = EXPORT_DECLARED;
	export->wanted.goal = GOAL_LIVE;
	reconcile();
	/* Another program has it. */
	assert_int_equal(openings(), 1);
	assert_int_equal(export->state, EXPORT_FAILED);
	assert_true(export->reconciler.given_up);
	export->worker.ended_ms = clock_ms();
	export->reconciler.given_up = false;
	export->reconciler.retry_at_ms = 0;
	assert_int_equal(fiber_start(suspend_after_two_tries, NULL), 0);
	reconcile();
	assert_int_equal(openings(), 3);
	unsetenv(REFUSES);
}

static void test_storage_that_a_killed_worker_still_holds_is_waited_for(void **state)
{
	(void)state;
	in_fiber(waits_for_its_storage);
}

static void hears_of_growth(void)
{
	assert_int_equal(flow_create_counters(export, &err), 0);
	export->storage.limits = stub_limits;
	export->worker.handle = start();
	export->state = EXPORT_LIVE;
	export->wanted.goal = GOAL_LIVE;
	export->storage.grown_to = 2 * stub_limits.size;
	release = &fake_linux_6_12;
	reconcile();
	release = &fake_linux_7_2;
	/* Once, and not each time that something happens. */
	assert_int_equal(export->storage.grown_to, 0);
	assert_int_equal(export->storage.limits.size, stub_limits.size);
	assert_int_equal(export->state, EXPORT_LIVE);
	end(export->worker.handle);
	export->worker.handle = NULL;
	flow_drop_counters(export);
}

static void test_growth_that_the_kernel_cannot_follow_changes_nothing(void **state)
{
	(void)state;
	export->device.info.nr_hw_queues = 1;
	export->device.info.queue_depth = 8;
	in_fiber(hears_of_growth);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_memory_is_kept_until_a_recovery_succeeds,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_published_worker_takes_the_place, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_an_interrupted_change_leaves_no_worker, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_content_that_is_found_is_stored, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_that_holds_memory_is_killed_at_once,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_its_own_death_ends_a_command, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_device_keeps_its_shape, setup, teardown),
		cmocka_unit_test_setup_teardown(test_storage_that_cannot_shrink_changes_nothing,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_device_shrinks_only_by_force_and_closed,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_6_12_is_done_with_a_dead_worker_before_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_device_that_another_program_removed_is_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_growth_that_the_kernel_cannot_follow_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_storage_that_a_killed_worker_still_holds_is_waited_for, setup,
			teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_that_served_has_not_died_in_a_row,
						setup, teardown),
	};

	if (getenv(STUB))
		return stub();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
