/* SPDX-License-Identifier: MIT */
/*
 * Threads that block for fibers: a FIFO is the disk that does not answer (opening it waits
 * until somebody opens its other end).
 */
#include "supervisor/fiber.h"
#include "supervisor/host.h"
#include "supervisor/blocking.h"
#include "supervisor/export.h"
#include "tests/unit/in-fiber.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "worker/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#define EXPORTS 48u /* more than any pool of threads was meant to have */
#define STUCK   "stuck-export"

static char fifo[600];

static const struct owner root;
static const struct blocking_for storage = { STUCK, BLOCKING_STORAGE },
				 device = { STUCK, BLOCKING_DEVICE },
				 other = { "other-export", BLOCKING_STORAGE };

static int setup(void **state)
{
	(void)state;
	snprintf(fifo, sizeof(fifo), "%s", temp_path("fifo"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	fiber_setup(uv_default_loop());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(fifo);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return 0;
}

static int teardown_all(void **state)
{
	(void)state;
	temp_remove();
	return 0;
}

static int open_in(struct blocking_for who, const char *path, unsigned ms)
{
	int fd = blocking_open(who, path, O_RDONLY, 0, ms);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* Until nothing waits for the FIFO any more. */
static void let_go(void)
{
	int fd = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < 1000 && open_in(storage, "/dev/null", 5000); i++)
		fiber_sleep(5);
	assert_int_equal(open_in(storage, "/dev/null", 5000), 0);
	close(fd);
}

static int open_as(const struct owner *owner, const char *path, int flags)
{
	int fd = blocking_open_as(other, owner, path, flags, 0600, true, 5000);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static void is_late(void)
{
	assert_int_equal(open_in(storage, fifo, 50), -ETIMEDOUT);
	/* The export has a thread that hangs, and is told so; its other sides are not concerned. */
	assert_int_equal(open_in(storage, "/dev/null", 5000), -EALREADY);
	assert_int_equal(blocking_unlink_as(storage, &root, fifo, 5000), -EALREADY);
	assert_int_equal(open_in(device, "/dev/null", 5000), 0);
	assert_int_equal(open_in(other, "/dev/null", 5000), 0);
	let_go();
}

static void test_a_late_call_counts_against_its_export(void **state)
{
	(void)state;
	in_fiber(is_late);
}

static unsigned nr_late, nr_done;

static void is_stuck(void *context)
{
	char name[32];
	struct blocking_for who = { name, BLOCKING_STORAGE };

	snprintf(name, sizeof(name), "export-%u", *(unsigned *)context);
	nr_late += open_in(who, fifo, 3000) == -ETIMEDOUT;
}

static void does_not_wait_for_others(void)
{
	static unsigned numbers[EXPORTS];
	int fd;

	nr_late = 0;
	for (unsigned i = 0; i < EXPORTS; i++) {
		numbers[i] = i;
		assert_int_equal(fiber_start(is_stuck, &numbers[i]), 0);
	}
	fiber_sleep(20);
	assert_int_equal(open_in(other, "/dev/null", 2000), 0);
	assert_int_equal(nr_late, 0);
	fd = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	while (fiber_count() > 1)
		fiber_sleep(5);
	assert_int_equal(nr_late, 0);
	close(fd);
}

static void test_silent_disks_delay_no_other_export(void **state)
{
	(void)state;
	in_fiber(does_not_wait_for_others);
}

static void opens(void *path)
{
	nr_done += !open_in(storage, path, 20000);
}

static void is_one_of_three(void)
{
	static char null[] = "/dev/null";
	int fd;

	nr_done = 0;
	assert_int_equal(fiber_start(opens, fifo), 0);
	assert_int_equal(fiber_start(opens, fifo), 0);
	assert_int_equal(fiber_start(opens, null), 0);
	fiber_sleep(50);
	/* Two of three are there, and wait; it has no third. */
	assert_int_equal(nr_done, 0);
	assert_int_equal(open_in(storage, null, 20), -ETIMEDOUT);
	fd = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	while (fiber_count() > 1)
		fiber_sleep(5);
	assert_int_equal(nr_done, 3);
	close(fd);
}

static void test_an_export_has_two_calls_at_once(void **state)
{
	(void)state;
	in_fiber(is_one_of_three);
}

static void closes(void)
{
	int fds[2], fd;
	char byte;

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(open_in(device, fifo, 20), -ETIMEDOUT);
	/* Whatever is stuck. */
	blocking_close(device, fds[1], 5000);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
	fd = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	while (open_in(device, "/dev/null", 5000))
		fiber_sleep(5);
	close(fd);
}

static void test_late_descriptors_are_closed(void **state)
{
	(void)state;
	in_fiber(closes);
}

/* Whoever exports it: opening one of these is a command to the kernel, or waits. */
static void only_storage_is_opened(void)
{
	static const char *const paths[] = { "/dev/null", "/proc/self/mem", "/proc/self/status",
					     "/proc/sys/vm/drop_caches", "/sys/kernel/mm" };
	char file[PATH_MAX], link[PATH_MAX];

	for (unsigned i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		/* A root of another suite has no /sys. */
		if (!access(paths[i], F_OK))
			assert_int_equal(open_as(&root, paths[i], O_RDONLY), -EACCES);
	/* At once: nobody writes to it. */
	assert_int_equal(open_as(&root, fifo, O_RDONLY), -EACCES);
	snprintf(file, sizeof(file), "%s", temp_path("file"));
	snprintf(link, sizeof(link), "%s", temp_path("link"));
	close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(open_as(&root, file, O_RDWR), 0);
	/* A file that is there is not created again, whoever asks for that. */
	assert_int_equal(open_as(&root, file, O_RDWR | O_CREAT), -EEXIST);
	assert_int_equal(open_as(&root, temp_path("."), O_RDONLY), -EACCES);
	assert_int_equal(open_as(&root, temp_path("."), O_RDONLY | O_DIRECTORY), 0);
	assert_int_equal(symlink("/proc/self/status", link), 0);
	assert_int_equal(open_as(&root, link, O_RDONLY), -EACCES);
	unlink(link);
	assert_int_equal(symlink(file, link), 0);
	assert_int_equal(open_as(&root, link, O_RDWR), 0);
	unlink(link);
}

static void test_opens_nothing_but_storage(void **state)
{
	(void)state;
	in_fiber(only_storage_is_opened);
}

/* Files that a user cannot open alone ublkd opens for no user. */
static void owners_have_their_own_rights(void)
{
	const struct owner user = { .uid = 12345, .gid = 12345 };
	const struct owner member = { 12345, 12345, 1, { 23456 } };
	char file[PATH_MAX], made[PATH_MAX], directory[PATH_MAX];
	struct stat st;
	int fd;

	snprintf(file, sizeof(file), "%s", temp_path("root's"));
	snprintf(directory, sizeof(directory), "%s", temp_path("user's"));
	snprintf(made, sizeof(made), "%s", temp_path("user's/made"));
	assert_int_equal(chmod(temp_path("."), 0755), 0);
	close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(open_as(&user, file, O_RDONLY), -EACCES);
	assert_int_equal(open_as(&root, file, O_RDONLY), 0);
	assert_int_equal(blocking_unlink_as(other, &user, file, 5000), -EACCES);
	assert_int_equal(blocking_connect_as(other, &user, temp_path("none"), 5000), -ENOENT);

	assert_int_equal(chown(file, 0, 23456) || chmod(file, 0640), 0);
	assert_int_equal(open_as(&user, file, O_RDONLY), -EACCES);
	assert_int_equal(open_as(&member, file, O_RDONLY), 0);
	assert_int_equal(open_as(&member, file, O_RDWR), -EACCES);

	assert_int_equal(mkdir(directory, 0700) || chown(directory, 12345, 12345), 0);
	fd = blocking_open_as(other, &user, temp_path("new"), O_RDWR | O_CREAT | O_EXCL, 0600, true,
			      5000);
	assert_int_equal(fd, -EACCES);
	fd = blocking_open_as(other, &user, made, O_RDWR | O_CREAT | O_EXCL, 0600, true, 5000);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_uid, 12345);
	close(fd);
	/* Only that thread was another's. */
	assert_int_equal(geteuid(), 0);
	assert_int_equal(blocking_unlink_as(other, &user, made, 5000), 0);
	assert_int_equal(rmdir(directory), 0);
}

static void test_opens_with_the_rights_of_the_owner(void **state)
{
	(void)state;
	if (geteuid())
		skip();
	in_fiber(owners_have_their_own_rights);
}

/* ---- what a worker asks for ---- */

static struct export *export_of_uri(const char *uri, const char *option)
{
	json_t *options = json_object();
	struct export *export = NULL;
	struct error err = { 0 };

	if (option)
		json_object_set_new(options, option, json_null());
	if (export_create(&export, "a", uri, options, ORIGIN_REQUESTED, &err))
		fail_msg("%s", err.text);
	return export;
}

static int asks(struct export *export, const char *kind, const char *path, int flags)
{
	json_t *question = json_pack("{s:s, s:i}", "path", path, "flags", flags);
	int fd = host_answer(export, kind, question);

	json_decref(question);
	if (fd > 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* A worker that somebody has taken over asks for what is not its export's. */
static void nothing_else_is_given(void)
{
	char file[PATH_MAX], another[PATH_MAX];
	struct export *export;

	snprintf(file, sizeof(file), "%s", temp_path("disk"));
	snprintf(another, sizeof(another), "%s", temp_path("another"));
	close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	close(open(another, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	export = export_of_uri(file, NULL);
	assert_int_equal(asks(export, "open", file, O_RDWR), 0);
	assert_int_equal(asks(export, "open", another, O_RDONLY), -EACCES);
	assert_int_equal(asks(export, "remove", file, 0), -EACCES);
	assert_int_equal(asks(export, "remove", another, 0), -EACCES);
	assert_int_equal(asks(export, "connect", another, 0), -EACCES);
	assert_int_equal(asks(export, "memory", file, 0), -EACCES);
	assert_int_equal(asks(export, "anything", file, 0), -ENOSYS);
	/* The rights are those of whoever has made the export. */
	export->owner = (struct owner){ .uid = 12345, .gid = 12345 };
	if (!geteuid())
		assert_int_equal(asks(export, "open", file, O_RDWR), -EACCES);
	export_destroy(export);
	export = export_of_uri(file, "read-only");
	assert_int_equal(asks(export, "open", file, O_RDONLY), 0);
	assert_int_equal(asks(export, "open", file, O_RDWR), -EACCES);
	export_destroy(export);
	assert_int_equal(access(file, F_OK) || access(another, F_OK), 0);
}

static void test_a_worker_is_given_nothing_but_its_exports(void **state)
{
	(void)state;
	in_fiber(nothing_else_is_given);
}

/* The content of a device that lives is the one that it has. */
static void memory_is_not_replaced(void)
{
	struct export *export = export_of_uri("memory:1M", NULL);

	export->state = EXPORT_LIVE;
	assert_int_equal(asks(export, "memory", "", 0), -EACCES);
	export->state = EXPORT_RECOVERING;
	assert_int_equal(asks(export, "memory", "", 0), -ENODATA);
	export_destroy(export);
}

static void test_memory_is_given_to_a_new_device_only(void **state)
{
	(void)state;
	in_fiber(memory_is_not_replaced);
}

static void test_a_call_that_has_not_returned_is_named(void **state)
{
	(void)state;
	assert_string_equal(blocking_reason(-EALREADY), "an earlier call has not returned");
	assert_string_equal(blocking_reason(-ENOENT), strerror(ENOENT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_late_call_counts_against_its_export, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_an_export_has_two_calls_at_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_late_descriptors_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent_disks_delay_no_other_export, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_opens_nothing_but_storage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opens_with_the_rights_of_the_owner, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_worker_is_given_nothing_but_its_exports,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_is_given_to_a_new_device_only, setup,
						teardown),
		cmocka_unit_test(test_a_call_that_has_not_returned_is_named),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, teardown_all);
}
