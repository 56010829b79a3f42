/* SPDX-License-Identifier: MIT */
/*
 * Which storage counts as the one that a device was made for.
 */
#include "backends/file_identity.h"
#include "engine/counters.h"
#include "engine/host_local.h"
#include "engine/serve.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

#define REAL      "2049" /* 8:1 */
#define OTHER     "2065" /* 8:17 */
#define ANONYMOUS "42"   /* 0:42 */
#define MOUNTED   "43"   /* the same, mounted anew */

static void same(const char *was, const char *now)
{
	const char *why = file_identity_differs(was, now);

	if (why)
		fail_msg("'%s', then '%s': %s", was, now, why);
}

static void other(const char *was, const char *now, const char *about)
{
	const char *why = file_identity_differs(was, now);

	if (!why || !strstr(why, about))
		fail_msg("'%s', then '%s': %s", was, now, why ? why : "the same");
}

static void test_another_file_with_the_same_inode_number(void **state)
{
	static const char *const was = "file " REAL ":12:0 fs=01 handle=aa born=5.000000001";

	(void)state;
	same(was, was);
	other(was, "file " REAL ":12:0 fs=01 handle=ab born=5.000000001", "created later");
	other(was, "file " REAL ":12:0 fs=01 handle=aa born=5.000000002", "created later");
	other(was, "file " REAL ":13:0 fs=01 handle=aa born=5.000000001", "another file");
	other(was, "file " REAL ":12:0 fs=02 handle=aa born=5.000000001", "file system");
	/* A fact that was known and is not any more shows nothing. */
	other(was, "file " REAL ":12:0 fs=01 born=5.000000001", "created later");
	other(was, "file " REAL ":12:0 fs=01 handle=aa", "created later");
	other(was, "file " REAL ":12:0", "file system");
	/* A newer version may know more. */
	same(was, "file " REAL ":12:0 fs=01 handle=aa born=5.000000001 colour=red");
	/* A value is compared whole. */
	other("file " REAL ":12:0 born=5.1", "file " REAL ":12:0 born=5.12", "created later");
}

static void test_a_file_system_that_is_mounted_again(void **state)
{
	static const char *const was = "file " ANONYMOUS ":12:0 fs=01 handle=aa born=5.1";

	(void)state;
	same(was, "file " MOUNTED ":12:0 fs=01 handle=aa born=5.1");
	/* A snapshot of the subvolume has its numbers and times. */
	other(was, "file " MOUNTED ":12:0 fs=02 handle=aa born=5.1", "file system");
	other(was, "file " MOUNTED ":12:0 fs=01 handle=ab born=5.1", "created later");
	/* Nothing tells: FUSE. */
	same("file " ANONYMOUS ":12:0", "file " ANONYMOUS ":12:0");
	other("file " ANONYMOUS ":12:0 born=5.1", "file " MOUNTED ":12:0 born=5.1",
	      "nothing proves");
	other("file " ANONYMOUS ":12:0 fs=01", "file " MOUNTED ":12:0 fs=01", "nothing proves");
	/* A clone on another disk has all facts of the file. */
	other("file " REAL ":12:0 fs=01 handle=aa", "file " OTHER ":12:0 fs=01 handle=aa",
	      "nothing proves");
	other("file " REAL ":12:0 fs=01 handle=aa disk=x",
	      "file " REAL ":12:0 fs=01 handle=aa disk=y", "file system");
	/* The same disk has got another number. */
	same("file " REAL ":12:0 fs=01 handle=aa disk=x",
	     "file " OTHER ":12:0 fs=01 handle=aa disk=x");
	other("file " REAL ":12:0 fs=01 disk=x", "file " OTHER ":12:0 fs=01 disk=x",
	      "nothing proves");
	other("file " REAL ":12:0 fs=01 handle=aa", "file " ANONYMOUS ":12:0 fs=01 handle=aa",
	      "nothing proves");
}

static void test_a_file_system_that_renumbers_its_files(void **state)
{
	static const char *const was = "file " REAL ":12:0 renumbers born=5.1";

	(void)state;
	same(was, "file " REAL ":99:0 renumbers born=5.1");
	other(was, "file " REAL ":99:0 renumbers born=5.2", "created later");
	other(was, "file " REAL ":12:0 renumbers born=5.2", "created later");
	other(was, "file " OTHER ":12:0 renumbers born=5.1", "nothing proves");
	/* Without a birth time the number is all that there is. */
	same("file " REAL ":12:0 renumbers", "file " REAL ":12:0 renumbers");
	other("file " REAL ":12:0 renumbers", "file " REAL ":13:0 renumbers", "another file");
}

static void test_disks(void **state)
{
	static const char *const was = "block device 5:8:" REAL " disk=naa.1 seq=9";

	(void)state;
	/* Plugged in again, at another number. */
	same(was, "block device 5:9:" OTHER " disk=naa.1 seq=10");
	other(was, "block device 5:8:" REAL " disk=naa.2 seq=9", "another disk");
	other(was, "block device 5:8:" REAL " seq=9", "another disk");
	/* Without an identifier only the very same one counts. */
	same("block device 5:8:" REAL " seq=9", "block device 5:9:" REAL " seq=9");
	other("block device 5:8:" REAL " seq=9", "block device 5:8:" REAL " seq=10",
	      "another disk");
	other("block device 5:8:" REAL " seq=9", "block device 5:8:" OTHER " seq=9",
	      "another disk");
	other("block device 5:8:" REAL " seq=9", "block device 5:8:" REAL, "another disk");
	/* Partitions. */
	same("block device 5:8:" REAL " disk=x-part1 start=8",
	     "block device 5:9:" OTHER " disk=x-part1 start=8");
	other("block device 5:8:" REAL " disk=x-part1 start=8",
	      "block device 5:8:" REAL " disk=x-part1 start=9", "another partition");
	other("block device 5:8:" REAL " seq=9 start=8", "block device 5:8:" REAL " seq=9",
	      "another partition");
	other("file " REAL ":12:0", was, "block device");
	other(was, "file " REAL ":12:0", "a file");
}

/* Records of the first version have the numbers alone. */
static void test_identities_of_older_versions(void **state)
{
	(void)state;
	same("file " REAL ":12:0", "file " REAL ":12:0 fs=01 handle=aa born=5.1");
	other("file " REAL ":12:0", "file " REAL ":13:0 fs=01 handle=aa born=5.1",
	      "another file or disk");
	other("file " REAL ":12:0", "file " OTHER ":12:0 fs=01 handle=aa", "another file or disk");
	other("file " ANONYMOUS ":12:0", "file " MOUNTED ":12:0 fs=01 handle=aa",
	      "another file or disk");
	same("block device 5:8:" REAL, "block device 5:8:" REAL " disk=x seq=9");
	other("block device 5:8:" REAL, "block device 5:8:" OTHER " disk=x seq=9",
	      "another file or disk");
}

static void test_refuses_bad_identities(void **state)
{
	static const char *const bad[] = { "",           "file",        "file ",
					   "file 1:2",   "file 1:2:3x", "file a:b:c",
					   "tape 1:2:3", "block device" };

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		other("file " REAL ":12:0", bad[i], "another kind");
		if (*bad[i])
			other(bad[i], "file " REAL ":12:0", "another kind");
		same(bad[i], bad[i]);
	}
}

static void test_facts_are_found_by_their_names(void **state)
{
	static const char *const text = "file 1:2:3 seq=9 renumbers disk=a=b born=5.1";
	char value[IDENTITY_BYTES];

	(void)state;
	assert_true(file_identity_fact(text, "disk", value, sizeof(value)));
	assert_string_equal(value, "a=b");
	assert_true(file_identity_fact(text, "renumbers", value, sizeof(value)));
	assert_string_equal(value, "");
	assert_true(file_identity_fact(text, "born", value, sizeof(value)));
	assert_string_equal(value, "5.1");
	assert_false(file_identity_fact(text, "dis", value, sizeof(value)));
	assert_false(file_identity_fact(text, "b", value, sizeof(value)));
	assert_string_equal(value, "");
}

/* ---- of files that are there ---- */

static void identity_of(const char *path, char identity[IDENTITY_BYTES])
{
	struct served s;

	fake_start(&fake_linux_7_2);
	served_begin(&s, path);
	snprintf(identity, IDENTITY_BYTES, "%s", s.standalone.serving.instance.identity);
	served_end(&s);
	fake_stop();
}

/* A file with the inode number of `st`, if the file system gives it out again. */
static bool make_again(const char *path, const struct stat *st)
{
	struct stat again;
	char aside[64];

	for (unsigned i = 0; i < 100; i++) {
		temp_file("disk.img", 1 << 20);
		assert_int_equal(stat(path, &again), 0);
		if (again.st_ino == st->st_ino)
			return true;
		snprintf(aside, sizeof(aside), "aside%u", i);
		assert_int_equal(rename(path, temp_path(aside)), 0);
	}
	return false;
}

static void test_a_removed_file_differs_from_its_successor(void **state)
{
	char was[IDENTITY_BYTES], now[IDENTITY_BYTES], path[300];
	struct stat st;
	bool again;

	(void)state;
	snprintf(path, sizeof(path), "%s", temp_file("disk.img", 1 << 20));
	identity_of(path, was);
	identity_of(path, now);
	same(was, now);
	/* Content, times, links and size are no part of it. */
	assert_int_equal(truncate(path, 2 << 20), 0);
	assert_int_equal(link(path, temp_path("link")), 0);
	identity_of(temp_path("link"), now);
	same(was, now);
	assert_int_equal(unlink(temp_path("link")), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(unlink(path), 0);
	again = make_again(path, &st);
	identity_of(path, now);
	other(was, now, again ? "created later" : "another file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_another_file_with_the_same_inode_number),
		cmocka_unit_test(test_a_file_system_that_is_mounted_again),
		cmocka_unit_test(test_a_file_system_that_renumbers_its_files),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_identities_of_older_versions),
		cmocka_unit_test(test_refuses_bad_identities),
		cmocka_unit_test(test_facts_are_found_by_their_names),
		cmocka_unit_test(test_a_removed_file_differs_from_its_successor),
	};
	int failed;

	bound_time(60);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
