/* SPDX-License-Identifier: MIT */
/*
 * The queue of requests to an export. The test takes the reconciler's part.
 */
#include "supervisor/request.h"
#include "supervisor/export.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct export export;

static struct waiter {
	struct export_request *request;
	int result; /* 1: still waiting */
	struct error err;
} waiters[4];

static int setup(void **state)
{
	(void)state;
	memset(waiters, 0, sizeof(waiters));
	export = (struct export){ .name = "a", .state = EXPORT_LIVE };
	fiber_setup(uv_default_loop());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_null(request_next(&export));
	assert_int_equal(fiber_count(), 0);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	return 0;
}

static void wait_for_it(void *context)
{
	struct waiter *w = context;

	w->result = 1;
	w->result = request_wait(&export, w->request, &w->err);
}

static struct waiter *ask(unsigned i, enum request_kind kind)
{
	waiters[i].request = request_add(&export, kind);
	assert_non_null(waiters[i].request);
	assert_int_equal(fiber_start(wait_for_it, &waiters[i]), 0);
	return &waiters[i];
}

static void test_requests_come_in_the_order_asked(void **state)
{
	struct waiter *first = ask(0, REQUEST_RESIZE), *second = ask(1, REQUEST_RESIZE);
	struct waiter *third = ask(2, REQUEST_CHECK);
	struct export_request *request;
	struct error err;

	(void)state;
	request = request_next(&export);
	assert_ptr_equal(request, first->request);
	request_finish(&export, request, error_set(&err, ENOSPC, "full"), &err);
	assert_int_equal(first->result, -ENOSPC);
	assert_string_equal(first->err.text, "full");
	assert_int_equal(second->result, 1);
	request = request_next(&export);
	assert_ptr_equal(request, second->request);
	request_finish(&export, request, 0, NULL);
	assert_int_equal(second->result, 0);
	request = request_next(&export);
	assert_ptr_equal(request, third->request);
	request_finish(&export, request, 0, NULL);
	assert_int_equal(third->result, 0);
}

static void test_upgrades_that_nobody_has_begun_are_one(void **state)
{
	struct waiter *first = ask(0, REQUEST_UPGRADE), *second = ask(1, REQUEST_UPGRADE), *third;
	struct export_request *request = request_next(&export);

	(void)state;
	assert_ptr_equal(first->request, second->request);
	/* The worker that the first one starts may be older than what the third one asks for. */
	third = ask(2, REQUEST_UPGRADE);
	assert_ptr_not_equal(third->request, request);
	request_finish(&export, request, 0, NULL);
	assert_int_equal(first->result, 0);
	assert_int_equal(second->result, 0);
	assert_int_equal(third->result, 1);
	request_finish(&export, request_next(&export), 0, NULL);
	assert_int_equal(third->result, 0);
}

static void test_a_request_that_nobody_comes_to_fails(void **state)
{
	struct waiter *first = ask(0, REQUEST_UPGRADE), *second = ask(1, REQUEST_RESIZE);

	(void)state;
	request_release(request_add(&export, REQUEST_CHECK));
	export.state = EXPORT_RECOVERING;
	request_refuse_all(&export);
	assert_int_equal(first->result, -ENOTCONN);
	assert_int_equal(second->result, -ENOTCONN);
	assert_non_null(strstr(second->err.text, "recovering"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_requests_come_in_the_order_asked, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_upgrades_that_nobody_has_begun_are_one, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_request_that_nobody_comes_to_fails, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
