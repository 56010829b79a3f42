/* SPDX-License-Identifier: MIT */
#include "worker/limits.h"
#include "tests/unit/test.h"

#include <errno.h>

static const struct backend_limits usual = {
	.size = 1 << 20,
	.logical_block = 512,
	.physical_block = 4096,
	.min_io = 4096,
	.opt_io = 65536,
	.max_io = 1 << 20,
	.discard_granularity = 4096,
	.max_discard = 1 << 30,
	.max_write_zeroes = 1 << 29,
	.volatile_cache = true,
	.fua = true,
	.dma_align = 4,
	.max_segments = 128,
	.max_segment_size = 65536,
	.seg_boundary_mask = UINT64_MAX,
	.max_queues = 4,
};

static void test_round_trip(void **state)
{
	struct backend_limits back;
	json_t *json = limits_to_json(&usual);

	(void)state;
	assert_int_equal(limits_from_json(json, &back), 0);
	assert_int_equal(back.size, usual.size);
	assert_int_equal(back.logical_block, 512);
	assert_int_equal(back.opt_io, usual.opt_io);
	assert_int_equal(back.max_discard, usual.max_discard);
	assert_int_equal(back.max_write_zeroes, usual.max_write_zeroes);
	assert_true(back.volatile_cache && back.fua && !back.read_only && !back.rotational);
	assert_true(back.seg_boundary_mask == UINT64_MAX);
	assert_int_equal(back.max_queues, 4);
	json_decref(json);
}

/* Each field left out, or something else in its place. */
static void test_refuses_bad_limits(void **state)
{
	json_t *json = limits_to_json(&usual), *value;
	struct backend_limits back;
	const char *name;

	(void)state;
	assert_int_equal(limits_from_json(NULL, &back), -EBADMSG);
	json_object_foreach(json, name, value) {
		json_t *odd[] = {
			NULL,
			json_string("1"),
			json_real(1.0),
			json_null(),
			json_is_integer(value) ? json_true() : json_integer(1),
			json_integer(-1),
			json_integer(1ll << 32),
		};

		for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
			json_t *copy = json_copy(json);

			/* 64 bits take them. */
			if (i > 4 &&
			    (!strcmp(name, "size") || !strcmp(name, "seg-boundary-mask"))) {
				json_decref(odd[i]);
			} else {
				json_object_del(copy, name);
				if (odd[i])
					json_object_set_new(copy, name, odd[i]);
				if (limits_from_json(copy, &back) != -EBADMSG)
					fail_msg("%s: case %u is taken", name, i);
			}
			json_decref(copy);
		}
	}
	json_decref(json);
}

static int fit(const struct backend_limits *now)
{
	struct error err = { 0 };
	int ret = limits_fit(&usual, now, &err);

	if (ret) {
		assert_int_equal(err.code, ESTALE);
		assert_non_null(strstr(err.text, "restore the right storage"));
	}
	return ret;
}

static void test_accepts_limits_that_fit(void **state)
{
	struct backend_limits now = usual;

	(void)state;
	assert_int_equal(fit(&now), 0);
	now.size *= 2;
	now.max_io = 0;
	now.dma_align = 1;
	now.volatile_cache = false;
	assert_int_equal(fit(&now), 0);
}

#define DIFFERS(member, value)                        \
	do {                                          \
		now = usual;                          \
		now.member = (value);                 \
		assert_int_equal(fit(&now), -ESTALE); \
	} while (0)

static void test_refuses_limits_that_do_not_fit(void **state)
{
	struct backend_limits now, made = usual;
	struct error err;

	(void)state;
	DIFFERS(size, usual.size - 512);
	DIFFERS(read_only, true);
	DIFFERS(logical_block, 4096);
	DIFFERS(fua, false);
	DIFFERS(max_discard, 0);
	DIFFERS(max_discard, 1 << 20);
	DIFFERS(max_write_zeroes, 0);
	DIFFERS(max_write_zeroes, 1 << 20);
	DIFFERS(max_io, 65536);
	DIFFERS(dma_align, 512);
	made.volatile_cache = false;
	assert_int_equal(limits_fit(&made, &usual, &err), -ESTALE);
	made = usual;
	made.max_io = 0;
	assert_int_equal(limits_fit(&made, &usual, &err), -ESTALE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refuses_bad_limits),
		cmocka_unit_test(test_accepts_limits_that_fit),
		cmocka_unit_test(test_refuses_limits_that_do_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
