/* SPDX-License-Identifier: MIT */
#include "backends/nbd/cover.h"
#include "tests/unit/test.h"

static void test_parts_in_any_order_make_a_whole(void **state)
{
	static const uint32_t orders[][4] = {
		{ 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 }
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
		struct nbd_cover c = { 0 };

		for (unsigned j = 0; j < 4; j++) {
			assert_false(nbd_cover_is_whole(&c, 4096));
			assert_true(nbd_cover_add(&c, orders[i][j] * 1024, 1024));
		}
		assert_true(nbd_cover_is_whole(&c, 4096));
		assert_false(nbd_cover_is_whole(&c, 4097));
	}
}

static void test_a_gap_is_noticed(void **state)
{
	struct nbd_cover c = { 0 };

	(void)state;
	assert_true(nbd_cover_add(&c, 512, 512));
	assert_false(nbd_cover_is_whole(&c, 1024));
	assert_true(nbd_cover_add(&c, 0, 511));
	assert_false(nbd_cover_is_whole(&c, 1024));
	assert_true(nbd_cover_add(&c, 511, 1));
	assert_true(nbd_cover_is_whole(&c, 1024));
}

static void test_no_byte_comes_twice(void **state)
{
	struct nbd_cover c = { 0 };

	(void)state;
	assert_true(nbd_cover_add(&c, 1024, 1024));
	assert_false(nbd_cover_add(&c, 1024, 1024));
	assert_false(nbd_cover_add(&c, 0, 1025));
	assert_false(nbd_cover_add(&c, 2047, 4096));
	assert_false(nbd_cover_add(&c, 1500, 1));
	assert_false(nbd_cover_add(&c, 0, 4096));
	assert_true(nbd_cover_add(&c, 0, 1024));
	assert_true(nbd_cover_is_whole(&c, 2048));
}

static void test_there_is_an_end_to_disorder(void **state)
{
	struct nbd_cover c = { 0 };
	unsigned n = 0;

	(void)state;
	while (n < 1000 && nbd_cover_add(&c, n * 2, 1))
		n++;
	assert_int_equal(n, NBD_COVER_PARTS);
	assert_true(nbd_cover_add(&c, 1, 1));
	assert_true(nbd_cover_add(&c, 100, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_in_any_order_make_a_whole),
		cmocka_unit_test(test_a_gap_is_noticed),
		cmocka_unit_test(test_no_byte_comes_twice),
		cmocka_unit_test(test_there_is_an_end_to_disorder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
