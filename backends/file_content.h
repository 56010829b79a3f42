/* SPDX-License-Identifier: MIT */
/*
 * The block size that a disk image was made for, as far as its content tells.
 */
#ifndef UBLKD_FILE_CONTENT_H
#define UBLKD_FILE_CONTENT_H

#include <stddef.h>
#include <stdint.h>

/* Bytes for content_block_size(): the first sector and a GPT header at either place. */
#define CONTENT_HEAD 8192u

/*
 * Reads the first `length` bytes (CONTENT_HEAD at most; fewer where the image is smaller)
 * of an image.  Returns 4096 where its content is readable with blocks of 4096 only, or
 * was made for them: *reason (a constant) names it.  Returns 512, *reason NULL, for
 * everything else, an empty image too.  Pure; trusts nothing in the content.
 */
uint32_t content_block_size(const uint8_t *head, size_t length, const char **reason);

#endif
