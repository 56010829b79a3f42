/* SPDX-License-Identifier: MIT */
/*
 * A backend's limits and what the driver is told.  What the driver takes is
 * stated in driver_takes(), from ublk_validate_params() of Linux 7.2.
 */
#include "engine/params.h"
#include "tests/unit/test.h"

#include <errno.h>

static bool power_of_2(uint64_t n)
{
	return n && !(n & (n - 1));
}

static bool driver_takes(const struct ublk_dev_params *p, uint32_t max_io)
{
	const struct ublk_basic_params *b = &p->basic;

	if (p->len != sizeof(*p) || !(p->types & UBLK_PARAMS_BASIC))
		return false;
	if (b->logical_bs_shift < 9 || b->logical_bs_shift > 12 ||
	    b->physical_bs_shift < b->logical_bs_shift)
		return false;
	if (b->physical_bs_shift > 28 || b->io_min_shift > 28 || b->io_opt_shift > 28)
		return false;
	if (b->max_sectors > max_io >> 9 || b->max_sectors < 8 || !b->dev_sectors)
		return false;
	if (b->attrs & UBLK_DEVATTR_FUA && !(b->attrs & UBLK_DEVATTR_VOLATILE_CACHE))
		return false;
	if (p->types & UBLK_PARAMS_DISCARD &&
	    (p->discard.max_discard_segments != 1 || !p->discard.granularity))
		return false;
	if (p->types & UBLK_PARAMS_DMA &&
	    (p->dma.alignment >= 4096 || !power_of_2(p->dma.alignment + 1ull)))
		return false;
	if (p->types & UBLK_PARAMS_SEGMENT &&
	    (p->seg.max_segment_size < 4096 || p->seg.seg_boundary_mask + 1 < 4096 ||
	     !p->seg.max_segments))
		return false;
	return !(p->types & ~(UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD | UBLK_PARAMS_DMA |
			      UBLK_PARAMS_SEGMENT));
}

static struct backend_limits plain(void)
{
	return (struct backend_limits){ .size = 1 << 20, .logical_block = 512 };
}

static void test_fills_in_what_was_left_open(void **state)
{
	struct backend_limits l = plain();
	struct error err;

	(void)state;
	assert_int_equal(params_complete_limits(&l, &err), 0);
	assert_int_equal(l.physical_block, 512);
	assert_int_equal(l.min_io, 512);
	assert_int_equal(l.opt_io, 0);
	assert_int_equal(l.discard_granularity, 512);
	l = plain();
	l.physical_block = 4096;
	l.min_io = 3000;
	l.opt_io = 3 << 20;
	assert_int_equal(params_complete_limits(&l, &err), 0);
	assert_int_equal(l.min_io, 4096);
	assert_int_equal(l.opt_io, 0);
}

static void test_refuses_what_the_kernel_would(void **state)
{
	static const struct {
		struct backend_limits limits;
		const char *about;
	} bad[] = {
		{ { .size = 1 << 20, .logical_block = 0 }, "block size 0" },
		{ { .size = 1 << 20, .logical_block = 256 }, "block size 256" },
		{ { .size = 1 << 20, .logical_block = 500 }, "block size 500" },
		{ { .size = 1 << 20, .logical_block = 3072 }, "block size 3072" },
		{ { .size = 1 << 20, .logical_block = 8192 }, "block size 8192" },
		{ { .size = 1 << 20, .logical_block = 1024, .physical_block = 512 }, "physical" },
		{ { .size = 1 << 20, .logical_block = 512, .physical_block = 1536 }, "physical" },
		{ { .size = 0, .logical_block = 512 }, "empty" },
		{ { .size = 1000, .logical_block = 512 }, "size 1000" },
		{ { .size = 1ull << 63, .logical_block = 512 }, "size" },
		{ { .size = 1 << 20, .logical_block = 512, .dma_align = 3 }, "memory alignment 3" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct backend_limits l = bad[i].limits;
		struct error err = { 0 };

		assert_int_equal(params_complete_limits(&l, &err), -EINVAL);
		if (!strstr(err.text, bad[i].about))
			fail_msg("'%s' does not say '%s'", err.text, bad[i].about);
	}
}

/* Whatever a backend says and passes the check, the driver takes. */
static void test_any_limits_give_what_the_driver_takes(void **state)
{
	uint64_t seed = 1;
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		struct ublk_dev_params p;
		struct backend_limits l = { 0 };
		uint32_t max_io;
		struct error err;

#define PICK(...) PICK_OF(((const uint64_t[]){ __VA_ARGS__ }))
#define PICK_OF(of)                                                                     \
	((of)[((seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33) % \
	      (sizeof(of) / sizeof(*(of)))])
		l.logical_block = (uint32_t)PICK(512, 1024, 2048, 4096, 100);
		l.size = PICK(0, 512, 4096, 1000, 1 << 20, (1ull << 62) + 4096, INT64_MAX);
		l.physical_block = (uint32_t)PICK(0, 512, 4096, 65536, 1u << 31, 1500);
		l.min_io = (uint32_t)PICK(0, 512, 4096, 6000, 1u << 30, 1u << 31);
		l.opt_io = (uint32_t)PICK(0, 512, 65536, 6000, 1u << 30, 1u << 31);
		l.max_io = (uint32_t)PICK(0, 4096, 65536, 1 << 20, 1u << 31);
		l.discard_granularity = (uint32_t)PICK(0, 512, 4096, 1 << 20);
		l.max_discard = (uint32_t)PICK(0, 4096, 1 << 30, UINT32_MAX);
		l.max_write_zeroes = (uint32_t)PICK(0, 4096, 1 << 30, UINT32_MAX);
		l.read_only = PICK(0, 1);
		l.rotational = PICK(0, 1);
		l.volatile_cache = PICK(0, 1);
		l.fua = PICK(0, 1);
		l.dma_align = (uint32_t)PICK(0, 1, 4, 512, 4096, 3);
		l.max_segments = (uint32_t)PICK(0, 1, 128, 1 << 20);
		l.max_segment_size = (uint32_t)PICK(0, 4096, 65536, UINT32_MAX);
		l.seg_boundary_mask = PICK(0, 4095, UINT32_MAX, UINT64_MAX >> 1);
		max_io = (uint32_t)PICK(4096, 1 << 20, UBLK_IO_MAX);
		if (params_complete_limits(&l, &err))
			continue;
		taken++;
		params_make(&l, max_io, PICK(0, 1), &p);
		if (!driver_takes(&p, max_io))
			fail_msg("the driver refuses what case %u gives", i);
		assert_int_equal(p.basic.dev_sectors << 9, l.size);
		assert_true(!(p.types & UBLK_PARAMS_DISCARD) || !l.read_only);
	}
	assert_true(taken > 10000);
}

static void test_says_what_the_backend_said(void **state)
{
	struct backend_limits l = {
		.size = 1 << 30,
		.logical_block = 1024,
		.physical_block = 4096,
		.min_io = 8192,
		.opt_io = 1 << 18,
		.max_io = 1 << 16,
		.discard_granularity = 1 << 16,
		.max_discard = 1 << 24,
		.max_write_zeroes = 1 << 22,
		.rotational = true,
		.volatile_cache = true,
		.fua = true,
		.dma_align = 512,
		.max_segments = 100000,
		.max_segment_size = 65536,
		.seg_boundary_mask = UINT32_MAX,
	};
	struct ublk_dev_params p;

	(void)state;
	params_make(&l, 1 << 20, true, &p);
	assert_int_equal(p.types, UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD | UBLK_PARAMS_DMA |
					  UBLK_PARAMS_SEGMENT);
	assert_int_equal(p.basic.attrs,
			 UBLK_DEVATTR_ROTATIONAL | UBLK_DEVATTR_VOLATILE_CACHE | UBLK_DEVATTR_FUA);
	assert_int_equal(p.basic.logical_bs_shift, 10);
	assert_int_equal(p.basic.physical_bs_shift, 12);
	assert_int_equal(p.basic.io_min_shift, 13);
	assert_int_equal(p.basic.io_opt_shift, 18);
	assert_int_equal(p.basic.max_sectors, 128);
	assert_int_equal(p.basic.dev_sectors, 1 << 21);
	assert_int_equal(p.discard.granularity, 1 << 16);
	assert_int_equal(p.discard.max_discard_sectors, 1 << 15);
	assert_int_equal(p.discard.max_write_zeroes_sectors, 1 << 13);
	assert_int_equal(p.dma.alignment, 511);
	assert_int_equal(p.seg.max_segments, UINT16_MAX);
	assert_int_equal(p.seg.max_segment_size, 65536);
	assert_int_equal(p.seg.seg_boundary_mask, UINT32_MAX);

	/* Copied data makes no demands on memory; a reader discards nothing. */
	l.read_only = true;
	params_make(&l, 1 << 15, false, &p);
	assert_int_equal(p.types, UBLK_PARAMS_BASIC);
	assert_true(p.basic.attrs & UBLK_DEVATTR_READ_ONLY);
	assert_int_equal(p.basic.max_sectors, 64);
}

static void test_the_largest_request_is_whole_blocks(void **state)
{
	struct backend_limits l = plain();
	struct ublk_dev_params p;

	(void)state;
	l.logical_block = 4096;
	l.max_io = 10000;
	assert_int_equal(params_complete_limits(&l, NULL), 0);
	params_make(&l, 1 << 20, false, &p);
	assert_int_equal(p.basic.max_sectors, 16);
	l.max_io = 0;
	params_make(&l, 1 << 20, false, &p);
	assert_int_equal(p.basic.max_sectors, 2048);
}

static void test_without_a_cache_there_is_no_fua(void **state)
{
	struct backend_limits l = plain();
	struct ublk_dev_params p;

	(void)state;
	l.fua = true;
	assert_int_equal(params_complete_limits(&l, NULL), 0);
	params_make(&l, 1 << 20, false, &p);
	assert_int_equal(p.basic.attrs, 0);
	l.volatile_cache = true;
	l.fua = false;
	params_make(&l, 1 << 20, false, &p);
	assert_int_equal(p.basic.attrs, UBLK_DEVATTR_VOLATILE_CACHE);
}

static void test_notices_what_the_driver_dropped(void **state)
{
	struct ublk_dev_params asked = { .types = UBLK_PARAMS_BASIC | UBLK_PARAMS_DMA };
	struct ublk_dev_params kept = { .types = UBLK_PARAMS_BASIC | UBLK_PARAMS_DEVT };
	struct error err;

	(void)state;
	assert_int_equal(params_check_kept(&asked, &kept, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "DMA alignment"));
	kept.types |= UBLK_PARAMS_DMA;
	assert_int_equal(params_check_kept(&asked, &kept, &err), 0);
	for (unsigned bit = 0; bit < 7; bit++) {
		asked.types = 1u << bit;
		kept.types = 0;
		assert_int_equal(params_check_kept(&asked, &kept, &err), -EOPNOTSUPP);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fills_in_what_was_left_open),
		cmocka_unit_test(test_refuses_what_the_kernel_would),
		cmocka_unit_test(test_any_limits_give_what_the_driver_takes),
		cmocka_unit_test(test_says_what_the_backend_said),
		cmocka_unit_test(test_the_largest_request_is_whole_blocks),
		cmocka_unit_test(test_without_a_cache_there_is_no_fua),
		cmocka_unit_test(test_notices_what_the_driver_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
