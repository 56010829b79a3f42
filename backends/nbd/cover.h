/* SPDX-License-Identifier: MIT */
/*
 * Which parts of a read a server has answered: a structured reply comes in chunks
 * of any size and order, and libnbd does not add them up.  Pure; any thread.
 */
#ifndef UBLKD_NBD_COVER_H
#define UBLKD_NBD_COVER_H

#include <stdbool.h>
#include <stdint.h>

/* Parts that do not touch each other; more than a sane server ever leaves open. */
#define NBD_COVER_PARTS 8

/* Zeroed: nothing is covered. */
struct nbd_cover {
	unsigned nr;
	struct {
		uint32_t start, end; /* bytes from the read's start */
	} parts[NBD_COVER_PARTS];
};

/* Adds a part.  Returns false where it overlaps another, or there are too many. */
bool nbd_cover_add(struct nbd_cover *cover, uint32_t start, uint32_t length);

/* Whether all of a read of that length is covered. */
static inline bool nbd_cover_is_whole(const struct nbd_cover *cover, uint32_t length)
{
	return cover->nr == 1 && cover->parts[0].start == 0 && cover->parts[0].end == length;
}

#endif
