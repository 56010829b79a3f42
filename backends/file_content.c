/* SPDX-License-Identifier: MIT */
/*
 * An image has to read the same wherever it lies, so its block size cannot follow the
 * disk below it: a partition table counts in blocks.  As with loop devices and QEMU an
 * image has blocks of 512 bytes, except where its content was made on a disk with blocks
 * of 4096: a GPT header lies in block 1, and XFS names the sector size that it was made
 * with.  An MBR alone does not tell, nor do file systems that count in their own blocks.
 *
 * Whoever uses the device writes this content.  All that a forged header achieves is the
 * other block size at the next export, which its writer could choose in other ways.
 */
#include "backends/file_content.h"

#include <stdbool.h>
#include <string.h>

/* UEFI 2.10, 5.3.2: "GPT Header". */
#define GPT_SIGNATURE  "EFI PART"
#define GPT_SIZE       12 /* le32: of the header, 92 to one block */
#define GPT_MY_LBA     24 /* le64: 1 in the primary header */
#define GPT_HEADER_MIN 92u

/* fs/xfs/libxfs/xfs_format.h, struct xfs_dsb; big-endian. */
#define XFS_SIGNATURE   "XFSB"
#define XFS_SECTOR_SIZE 102 /* be16 */
#define XFS_SB_BYTES    512u

#define BOOT_SIGNATURE 510 /* 0x55 0xaa: a partition table or a boot sector */

static uint64_t little_endian(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | at[bytes];
	return value;
}

static bool has_gpt_at(const uint8_t *head, size_t length, size_t at)
{
	uint64_t size;

	if (length < at + GPT_HEADER_MIN || memcmp(head + at, GPT_SIGNATURE, 8) != 0)
		return false;
	size = little_endian(head + at + GPT_SIZE, 4);
	return size >= GPT_HEADER_MIN && size <= at &&
	       little_endian(head + at + GPT_MY_LBA, 8) == 1;
}

static bool is_xfs_of_4096(const uint8_t *head, size_t length)
{
	return length >= XFS_SB_BYTES && !memcmp(head, XFS_SIGNATURE, 4) &&
	       (head[XFS_SECTOR_SIZE] << 8 | head[XFS_SECTOR_SIZE + 1]) == 4096 &&
	       !(head[BOOT_SIGNATURE] == 0x55 && head[BOOT_SIGNATURE + 1] == 0xaa);
}

uint32_t content_block_size(const uint8_t *head, size_t length, const char **reason)
{
	*reason = NULL;
	if (has_gpt_at(head, length, 4096) && !has_gpt_at(head, length, 512))
		*reason = "a GPT for blocks of 4096";
	else if (is_xfs_of_4096(head, length))
		*reason = "XFS with sectors of 4096";
	return *reason ? 4096 : 512;
}
