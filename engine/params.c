/* SPDX-License-Identifier: MIT */
#include "engine/params.h"

#include <errno.h>
#include <stdio.h>

#define SHIFT_MAX 28 /* Linux 7.2 refuses block sizes above 256 MiB */

static bool power_of_2(uint64_t n)
{
	return n && !(n & (n - 1));
}

static uint8_t shift_of(uint32_t bytes)
{
	uint8_t shift = (uint8_t)(31 - __builtin_clz(bytes));

	return shift > SHIFT_MAX ? SHIFT_MAX : shift;
}

int params_complete_limits(struct backend_limits *l, struct error *err)
{
	if (!power_of_2(l->logical_block) || l->logical_block < PARAMS_BLOCK_MIN ||
	    l->logical_block > PARAMS_BLOCK_MAX)
		return error_set(err, EINVAL,
				 "block size %u: the kernel accepts 512, 1024, 2048 and 4096",
				 l->logical_block);
	if (!l->physical_block)
		l->physical_block = l->logical_block;
	if (!power_of_2(l->physical_block) || l->physical_block < l->logical_block)
		return error_set(
			err, EINVAL,
			"physical block size %u: must be a power of 2, not below the block size %u",
			l->physical_block, l->logical_block);
	if (!l->size)
		return error_set(err, EINVAL,
				 "the storage is empty, or smaller than one block of %u bytes: "
				 "nothing to export",
				 l->logical_block);
	if (l->size % l->logical_block || l->size > INT64_MAX)
		return error_set(err, EINVAL,
				 "size %llu: must be a multiple of the block size %u, below 8E",
				 (unsigned long long)l->size, l->logical_block);
	if (l->dma_align && !power_of_2(l->dma_align))
		return error_set(err, EINVAL, "memory alignment %u: must be a power of 2",
				 l->dma_align);
	l->max_discard -= l->max_discard % l->logical_block;
	l->max_write_zeroes -= l->max_write_zeroes % l->logical_block;
	if (!l->discard_granularity)
		l->discard_granularity = l->logical_block;
	if (l->min_io < l->physical_block || !power_of_2(l->min_io))
		l->min_io = l->physical_block;
	if (!power_of_2(l->opt_io))
		l->opt_io = 0;
	return 0;
}

void params_make(const struct backend_limits *l, uint32_t max_io, bool direct,
		 struct ublk_dev_params *p)
{
	uint32_t most = l->max_io && l->max_io < max_io ? l->max_io : max_io;

	most -= most % l->logical_block;
	*p = (struct ublk_dev_params){
		.len = sizeof(*p),
		.types = UBLK_PARAMS_BASIC,
		.basic = {
			.attrs = (l->read_only ? UBLK_DEVATTR_READ_ONLY : 0) |
				 (l->rotational ? UBLK_DEVATTR_ROTATIONAL : 0) |
				 (l->volatile_cache ? UBLK_DEVATTR_VOLATILE_CACHE : 0) |
				 (l->volatile_cache && l->fua ? UBLK_DEVATTR_FUA : 0),
			.logical_bs_shift = shift_of(l->logical_block),
			.physical_bs_shift = shift_of(l->physical_block),
			.io_min_shift = shift_of(l->min_io),
			/* 0 is "1 byte", which the block layer takes for unknown. */
			.io_opt_shift = l->opt_io ? shift_of(l->opt_io) : 0,
			.max_sectors = most >> UBLK_SECTOR_SHIFT,
			.dev_sectors = l->size >> UBLK_SECTOR_SHIFT,
		},
	};
	if (!l->read_only && (l->max_discard || l->max_write_zeroes)) {
		p->types |= UBLK_PARAMS_DISCARD;
		p->discard = (struct ublk_discard_params){
			.granularity = l->discard_granularity,
			.max_discard_sectors = l->max_discard >> UBLK_SECTOR_SHIFT,
			.max_write_zeroes_sectors = l->max_write_zeroes >> UBLK_SECTOR_SHIFT,
			.max_discard_segments = 1,
		};
	}
	if (direct && l->dma_align) {
		p->types |= UBLK_PARAMS_DMA;
		p->dma.alignment = l->dma_align - 1;
	}
	if (direct && l->max_segments && l->max_segment_size && l->seg_boundary_mask) {
		p->types |= UBLK_PARAMS_SEGMENT;
		p->seg.seg_boundary_mask = l->seg_boundary_mask;
		p->seg.max_segment_size = l->max_segment_size;
		p->seg.max_segments =
			l->max_segments > UINT16_MAX ? UINT16_MAX : (uint16_t)l->max_segments;
	}
}

int params_check_kept(const struct ublk_dev_params *asked, const struct ublk_dev_params *kept,
		      struct error *err)
{
	static const char *const names[] = { "basic",         "discard", "device numbers", "zoned",
					     "DMA alignment", "segment", "integrity" };
	uint32_t lost = asked->types & ~kept->types;

	if (!lost)
		return 0;
	return error_set(
		err, EOPNOTSUPP,
		"this kernel's ublk driver ignores the %s parameters that this device needs",
		names[__builtin_ctz(lost)]);
}
