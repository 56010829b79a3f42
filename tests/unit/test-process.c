/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"
#include "common/process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void test_a_process_has_the_name_that_it_chose(void **state)
{
	char name[32], small[4];

	(void)state;
	assert_int_equal(prctl(PR_SET_NAME, "a (b)"), 0);
	assert_string_equal(process_name(getpid(), name, sizeof(name)), "a (b)");
	assert_string_equal(process_name(getpid(), small, sizeof(small)), "a (");
}

static void test_a_missing_process_has_no_name(void **state)
{
	char name[32] = "before";

	(void)state;
	assert_string_equal(process_name(0, name, sizeof(name)), "");
	assert_string_equal(process_name(-1, name, sizeof(name)), "");
	assert_string_equal(process_name(0x7fffffff, name, sizeof(name)), "");
}

static void test_reports_the_start_time_of_a_process(void **state)
{
	uint64_t started = process_started(getpid());

	(void)state;
	assert_true(started > 0);
	/* Whatever it calls itself. */
	assert_int_equal(prctl(PR_SET_NAME, "a) 1 2 (b"), 0);
	assert_int_equal(process_started(getpid()), started);
	assert_int_equal(process_started(0), 0);
	assert_int_equal(process_started(0x7fffffff), 0);
}

/* A child that does nothing until it is killed. */
static pid_t a_child(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	while (!pid)
		pause();
	return pid;
}

static void ends_when_killed(void)
{
	int child = process_open_child(a_child());

	assert_true(child >= 0);
	assert_false(process_child_ended(child));
	process_kill(child);
	while (!process_child_ended(child))
		usleep(1000);
	/* And stays so. */
	assert_true(process_child_ended(child));
	close(child);
}

static void test_a_child_is_killed_whoever_reaps_it(void **state)
{
	(void)state;
	ends_when_killed();
	signal(SIGCHLD, SIG_IGN);
	ends_when_killed();
	signal(SIGCHLD, SIG_DFL);
}

static void test_only_a_child_is_opened_as_one(void **state)
{
	pid_t pid = a_child();

	(void)state;
	assert_int_equal(process_open_child(getppid()), -1);
	assert_int_equal(process_open_child(getpid()), -1);
	assert_int_equal(process_open_child(0x7fffffff), -1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_open_child(pid), -1);
}

static void test_hidden_memory_is_never_dumped(void **state)
{
	struct rlimit limit;
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(process_hide_memory() || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) ||
		      getrlimit(RLIMIT_CORE, &limit) || limit.rlim_cur || limit.rlim_max);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_process_has_the_name_that_it_chose),
		cmocka_unit_test(test_a_missing_process_has_no_name),
		cmocka_unit_test(test_reports_the_start_time_of_a_process),
		cmocka_unit_test(test_hidden_memory_is_never_dumped),
		cmocka_unit_test(test_a_child_is_killed_whoever_reaps_it),
		cmocka_unit_test(test_only_a_child_is_opened_as_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
