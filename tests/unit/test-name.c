/* SPDX-License-Identifier: MIT */
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "common/error.h"
#include "supervisor/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static char links[300], records[300];
static struct error err;

static int set_up(void **state)
{
	(void)state;
	snprintf(links, sizeof(links), "%s", temp_path("ublk"));
	snprintf(records, sizeof(records), "%s", temp_path("names"));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	temp_remove();
	return 0;
}

/* Target of the symlink directory/name; "" where there is none. */
static const char *target(const char *name)
{
	static char found[200];
	char path[400];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", links, name);
	n = readlink(path, found, sizeof(found) - 1);
	found[n < 0 ? 0 : n] = 0;
	return found;
}

static unsigned files_in(const char *path)
{
	unsigned n = 0;
	DIR *dir = opendir(path);

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void names_are_checked(void **state)
{
	static const char *const good[] = { "a",     "A.b-c_9",  "0a",      "_x",
					    "ublkb", "ublkbx",   "ublkb0a", "a-part",
					    "part1", "disk.img", "a..b" };
	static const char *const bad[] = {
		"0",   "123", "",       ".",       "..",           ".a",      "-a",
		"a/b", "/a",  "a b",    "a\n",     "\xc3\xa4",     "a:b",     "a=b",
		"a*",  "a\\", "ublkb0", "ublkc12", "ublk-control", "a-part1", "\x1b[1m",
		"a%s"
	};
	char name[NAME_MAX_LENGTH + 2];

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(name_check(good[i], &err), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(name_check(bad[i], &err), -EINVAL);
		assert_null(strchr(err.text, '\n'));
		assert_null(strchr(err.text, '\x1b'));
	}
	memset(name, 'n', sizeof(name));
	name[NAME_MAX_LENGTH] = 0;
	assert_int_equal(name_check(name, &err), 0);
	name[NAME_MAX_LENGTH] = 'n';
	name[NAME_MAX_LENGTH + 1] = 0;
	assert_int_equal(name_check(name, &err), -EINVAL);
}

static void a_uri_gives_a_name(void **state)
{
	static const struct {
		const char *uri, *name;
	} cases[] = {
		{ "/var/lib/disk.img", "disk.img" },
		{ "file:/var/lib/disk.img", "disk.img" },
		{ "disk", "disk" },
		{ "/dev/sdb", "sdb" },
		{ "/var/lib/a b.img", "a-b.img" },
		{ "/var/lib/.hidden", "hidden" },
		{ "memory:1G", "memory-1G" },
		{ "null:10G", "null-10G" },
		{ "nbd://storage/disk1", "nbd-storage-disk1" },
		{ "nbd+unix:///?socket=/run/nbd", "nbd-unix-socket-run-nbd" },
		{ "./a:b", "a-b" },
	};
	static const char *const odd[] = {
		"",      "/", "...",  "/dev/ublkb0",  "/x-part1", "\xff\xfe",
		"file:", ":", "----", "ublk-control", "nbd://"
	};
	char name[NAME_MAX_LENGTH + 1], again[NAME_MAX_LENGTH + 1], other[NAME_MAX_LENGTH + 1];
	char longest[300];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		name_from_uri(cases[i].uri, name);
		assert_string_equal(name, cases[i].name);
	}
	for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		name_from_uri(odd[i], name);
		assert_int_equal(name_check(name, &err), 0);
		name_from_uri(odd[i], again);
		assert_string_equal(name, again);
	}
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	name_from_uri(longest, name);
	assert_int_equal(name_check(name, &err), 0);
	longest[sizeof(longest) - 2] = 'y';
	name_from_uri(longest, other);
	assert_string_not_equal(name, other);
	longest[NAME_MAX_LENGTH] = 0;
	name_from_uri(longest, name);
	assert_string_equal(name, longest);
}

/* Whatever bytes there are. */
static void any_uri_gives_a_name(void **state)
{
	uint64_t seed = 1;
	char uri[100], name[NAME_MAX_LENGTH + 1];

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		unsigned n = round % sizeof(uri);

		for (unsigned i = 0; i < n; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			uri[i] = (round & 1) ? "ab-.:/_\xc3p1"[seed >> 60 & 7] : (char)(seed >> 56);
		}
		uri[n] = 0;
		name_from_uri(uri, name);
		assert_int_equal(name_check(name, &err), 0);
	}
}

static void a_link_comes_and_goes(void **state)
{
	(void)state;
	assert_int_equal(name_link_in(links, "data", "/dev/ublkb3", &err), 0);
	assert_string_equal(target("data"), "../ublkb3");
	assert_int_equal(name_link_in(links, "data", "/dev/ublkb3", &err), 0);
	assert_int_equal(name_link_in(links, "data", "/dev/ublkb4", &err), 0);
	assert_string_equal(target("data"), "../ublkb4");
	/* Another device's link is not taken away. */
	assert_int_equal(name_unlink_in(links, "data", "/dev/ublkb3", &err), 0);
	assert_string_equal(target("data"), "../ublkb4");
	assert_int_equal(name_unlink_in(links, "data", "/dev/ublkb4", &err), 0);
	assert_int_equal(name_unlink_in(links, "data", "/dev/ublkb4", &err), 0);
	assert_int_equal(files_in(links), 0);
}

static void what_is_not_ours_stays(void **state)
{
	char path[400];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/foreign", links);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(name_link_in(links, "foreign", "/dev/ublkb3", &err), -EEXIST);
	assert_int_equal(name_unlink_in(links, "foreign", "/dev/ublkb3", &err), 0);
	assert_string_equal(target("foreign"), "/etc/passwd");
	snprintf(path, sizeof(path), "%s/file", links);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(name_link_in(links, "file", "/dev/ublkb3", &err), -EEXIST);
	assert_int_equal(name_unlink_in(links, "file", "/dev/ublkb3", &err), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(name_link_in(links, "../x", "/dev/ublkb3", &err), -EINVAL);
	assert_int_equal(name_link_in(links, "x", "/dev/sda", &err), -EINVAL);
	assert_int_equal(files_in(links), 2);
}

/* A crash between the two steps leaves the temporary link, which harms no later one. */
static void a_half_made_link_is_no_hindrance(void **state)
{
	char path[400];

	(void)state;
	snprintf(path, sizeof(path), "%s/.half", links);
	assert_int_equal(symlink("../ublkb9", path), 0);
	assert_int_equal(name_link_in(links, "half", "/dev/ublkb3", &err), 0);
	assert_string_equal(target("half"), "../ublkb3");
	assert_int_equal(name_unlink_in(links, "half", "/dev/ublkb3", &err), 0);
}

static void a_name_is_on_record(void **state)
{
	char name[NAME_MAX_LENGTH + 1], path[400];
	int fd;

	(void)state;
	assert_int_equal(name_lookup(records, "ublkb0", name, &err), -ENOENT);
	assert_int_equal(name_record(records, "/dev/ublkb0", "data", "file", true, &err), 0);
	assert_int_equal(name_lookup(records, "ublkb0", name, &err), 0);
	assert_string_equal(name, "data");
	assert_int_equal(name_record(records, "/dev/ublkb0", "other", "file", true, &err), 0);
	assert_int_equal(name_lookup(records, "/dev/ublkb0", name, &err), 0);
	assert_string_equal(name, "other");
	assert_int_equal(files_in(records), 1);
	assert_int_equal(name_record(records, "/dev/ublkb0", "a/b", "file", true, &err), -EINVAL);
	assert_int_equal(name_record(records, "../x", "a", "file", true, &err), -EINVAL);
	assert_int_equal(name_lookup(records, "../passwd", name, &err), -EINVAL);
	assert_int_equal(name_forget(records, "/dev/ublkb0", &err), 0);
	assert_int_equal(name_forget(records, "/dev/ublkb0", &err), 0);
	assert_int_equal(name_lookup(records, "ublkb0", name, &err), -ENOENT);
	assert_int_equal(files_in(records), 0);
	/* Records for udev are checked, whoever wrote them. */
	snprintf(path, sizeof(path), "%s/ublkb7", records);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "UBLKD_NAME=../sda\n", 18), 18);
	close(fd);
	assert_int_equal(name_lookup(records, "ublkb7", name, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(a_uri_gives_a_name),
		cmocka_unit_test(any_uri_gives_a_name),
		cmocka_unit_test(a_link_comes_and_goes),
		cmocka_unit_test(what_is_not_ours_stays),
		cmocka_unit_test(a_half_made_link_is_no_hindrance),
		cmocka_unit_test(a_name_is_on_record),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
