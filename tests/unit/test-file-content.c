/* SPDX-License-Identifier: MIT */
/*
 * Block sizes by an image's first bytes, and bytes that say nothing.
 */
#include "backends/file_content.h"
#include "tests/unit/test.h"

static uint8_t head[CONTENT_HEAD];

static void begin(void)
{
	memset(head, 0, sizeof(head));
}

static void gpt(size_t at)
{
	memcpy(head + at, "EFI PART\0\0\1\0", 12);
	head[at + 12] = 92;
	head[at + 24] = 1;
}

static void xfs(unsigned sector)
{
	memcpy(head, "XFSB", 4);
	head[102] = (uint8_t)(sector >> 8);
	head[103] = (uint8_t)sector;
}

static void boot_signature(void)
{
	head[510] = 0x55;
	head[511] = 0xaa;
}

static uint32_t block_of(size_t length)
{
	const char *reason = "unset";
	uint32_t block = content_block_size(head, length, &reason);

	assert_int_equal(block == 4096, reason != NULL);
	return block;
}

static void test_nothing_and_tables_of_512(void **state)
{
	(void)state;
	begin();
	assert_int_equal(block_of(0), 512);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	boot_signature();
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	gpt(512);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	begin();
	xfs(512);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	memset(head, 0xff, sizeof(head));
	assert_int_equal(block_of(CONTENT_HEAD), 512);
}

static void test_a_gpt_in_the_second_block_of_4096(void **state)
{
	(void)state;
	begin();
	gpt(4096);
	assert_int_equal(block_of(CONTENT_HEAD), 4096);
	boot_signature();
	assert_int_equal(block_of(CONTENT_HEAD), 4096);
	assert_int_equal(block_of(4096 + 92), 4096);
	/* Cut off: nothing behind the end is read. */
	assert_int_equal(block_of(4096 + 91), 512);
	assert_int_equal(block_of(4096), 512);
	/* The disk was partitioned anew, by blocks of 512. */
	gpt(512);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
}

/* Whatever has the signature there by chance, a copy of a header among it. */
static void test_a_damaged_gpt_is_ignored(void **state)
{
	(void)state;
	begin();
	gpt(4096);
	head[4096 + 24] = 2;
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	begin();
	gpt(4096);
	head[4096 + 31] = 1;
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	begin();
	gpt(4096);
	head[4096 + 12] = 91;
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	begin();
	gpt(4096);
	head[4096 + 15] = 0xff;
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	/* A header for 512 may not be larger than its block: it is none, so the other counts. */
	begin();
	gpt(4096);
	gpt(512);
	head[512 + 13] = 4;
	assert_int_equal(block_of(CONTENT_HEAD), 4096);
}

static void test_xfs_names_its_sectors(void **state)
{
	(void)state;
	begin();
	xfs(4096);
	assert_int_equal(block_of(CONTENT_HEAD), 4096);
	assert_int_equal(block_of(512), 4096);
	assert_int_equal(block_of(511), 512);
	boot_signature();
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	begin();
	xfs(2048);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
	xfs(32768);
	assert_int_equal(block_of(CONTENT_HEAD), 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_and_tables_of_512),
		cmocka_unit_test(test_a_gpt_in_the_second_block_of_4096),
		cmocka_unit_test(test_a_damaged_gpt_is_ignored),
		cmocka_unit_test(test_xfs_names_its_sectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
