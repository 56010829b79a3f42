/* SPDX-License-Identifier: MIT */
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "engine/holders.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

static const char *root;
static struct holders holders;
static char line[500];

/* ---- a small /proc and /sys ---- */

static const char *below_root(const char *name)
{
	static char path[600];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	return path;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(below_root(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_link(const char *name, const char *target)
{
	assert_int_equal(symlink(target, below_root(name)), 0);
}

static void put_device(const char *name, const char *number)
{
	char path[100];

	snprintf(path, sizeof(path), "sys/class/block/%s/dev", name);
	put(path, number);
	snprintf(path, sizeof(path), "sys/class/block/%s/holders/", name);
	below_root(path);
}

/* A process whose descriptor 3 is file. */
static void put_process(const char *pid, const char *command, const char *space, const char *file)
{
	char path[100];

	snprintf(path, sizeof(path), "proc/%s/comm", pid);
	put(path, command);
	snprintf(path, sizeof(path), "proc/%s/ns/mnt", pid);
	put_link(path, space);
	snprintf(path, sizeof(path), "proc/%s/fd/0", pid);
	put_link(path, "/dev/null");
	snprintf(path, sizeof(path), "proc/%s/fd/1", pid);
	put_link(path, "socket:[17]");
	snprintf(path, sizeof(path), "proc/%s/fd/3", pid);
	put_link(path, file);
}

static int set_up(void **state)
{
	(void)state;
	root = temp_directory();
	put_device("ublkb0", "259:0\n");
	put_device("ublkb1", "259:5\n");
	put("proc/swaps", "Filename Type Size Used Priority\n/dev/ublkb1 partition 1 1 -1\n");
	put_process("1", "init\n", "mnt:[1]", "/dev/ublkb1");
	put("proc/1/mountinfo", "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	holders_close(&holders);
	temp_remove();
	return 0;
}

/* The kinds in this order, each as they were found. */
static void describe(void)
{
	static const enum holder_kind order[] = { HOLDER_MOUNT, HOLDER_SWAP, HOLDER_DEVICE,
						  HOLDER_PROCESS };
	size_t n = 0;

	line[0] = 0;
	for (unsigned k = 0; k < sizeof(order) / sizeof(*order); k++)
		for (unsigned i = 0; i < holders.nr && n < sizeof(line); i++) {
			const struct holder *h = &holders.list[i];

			if (h->kind != order[k])
				continue;
			n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%s%s%s%s%s",
					      n ? ", " : "", holder_kind_name(h->kind),
					      h->path ? " " : "", h->path ? h->path : "",
					      h->pid ? " " : "", h->command);
		}
}

static void find(void)
{
	holders_close(&holders);
	assert_int_equal(holders_find_in(root, "ublkb0", NULL, 0, &holders), 0);
	describe();
}

static void nobody_is_found(void **state)
{
	(void)state;
	find();
	assert_int_equal(holders.nr, 0);
	holders_close(&holders);
	assert_int_equal(holders_find_in(root, "ublkb9", NULL, 0, &holders), -ENODEV);
	assert_int_equal(holders_find_in(root, "", NULL, 0, &holders), -EINVAL);
	assert_int_equal(holders_find_in(root, "..", NULL, 0, &holders), -EINVAL);
	assert_int_equal(holders_find_in(root, "a/b", NULL, 0, &holders), -EINVAL);
}

static void a_process_is_found(void **state)
{
	static const pid_t ignored[] = { 7, 12 };

	(void)state;
	put_process("12", "fi\x1bo\n", "mnt:[1]", "/dev/ublkb0");
	put_process("13", "other\n", "mnt:[1]", "/dev/ublkb01");
	put_process("14", "gone\n", "mnt:[1]", "/dev/ublkb0 (deleted)");
	put_process("15", "path\n", "mnt:[1]", "/tmp/dev/ublkb0");
	find();
	assert_int_equal(holders.nr, 1);
	assert_int_equal(holders.list[0].kind, HOLDER_PROCESS);
	assert_int_equal(holders.list[0].pid, 12);
	assert_string_equal(holders.list[0].command, "fi\x1bo");
	holders_close(&holders);
	assert_int_equal(holders_find_in(root, "ublkb0", ignored, 2, &holders), 0);
	assert_int_equal(holders.nr, 0);
}

static void mounts_of_all_namespaces_are_found(void **state)
{
	(void)state;
	put("proc/1/mountinfo", "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
				"2 1 259:0 / /my\\040data rw shared:1 - ext4 /dev/ublkb0 rw\n"
				"3 1 259:5 / /other rw - ext4 /dev/ublkb1 rw\n"
				"nonsense\n"
				"\n"
				"4 1 0:55 / /b rw - btrfs /dev/ublkb0 rw\n");
	put_process("20", "bash\n", "mnt:[2]", "/dev/null");
	put("proc/20/mountinfo", "2 1 259:0 / /my\\040data rw - ext4 /dev/ublkb0 rw\n"
				 "3 1 259:0 / /inside rw master:1 - ext4 none rw\n");
	/* Of two that see the same, one is named. */
	put_process("21", "bash\n", "mnt:[2]", "/dev/null");
	put("proc/21/mountinfo", "3 1 259:0 / /inside rw - ext4 none rw\n");
	find();
	assert_int_equal(holders.nr, 3);
	assert_string_equal(line, "mount /my data, mount /b, mount /inside bash");
	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(holders.list[i].device, "ublkb0");
}

static void partitions_are_part_of_it(void **state)
{
	(void)state;
	put_device("ublkb0p1", "259:1\n");
	put("sys/class/block/ublkb0/ublkb0p1/partition", "1\n");
	put_device("ublkb0p2", "259:2\n");
	put("sys/class/block/ublkb0/ublkb0p2/partition", "2\n");
	put("sys/class/block/ublkb0/queue/depth", "2\n");
	put("proc/swaps", "Filename Type Size Used Priority\n/dev/ublkb0p2\tpartition 1 1 -1\n");
	put("proc/1/mountinfo", "2 1 259:1 / /one rw - ext4 /dev/root rw\n");
	find();
	assert_int_equal(holders.nr, 2);
	assert_string_equal(line, "mount /one, swap ublkb0p2");
	assert_string_equal(holders.list[0].device, "ublkb0p2");
	assert_string_equal(holders.list[1].device, "ublkb0p1");
}

/* A mapping on a partition, RAID on that, a loop device on the RAID with a partition. */
static void what_stands_on_it_holds_it(void **state)
{
	(void)state;
	put_device("ublkb0p1", "259:1\n");
	put("sys/class/block/ublkb0/ublkb0p1/partition", "1\n");
	put_device("dm-0", "253:0\n");
	put_link("sys/class/block/ublkb0p1/holders/dm-0", "../../dm-0");
	put_device("md0", "9:0\n");
	put_link("sys/class/block/dm-0/holders/md0", "../../md0");
	put_link("sys/class/block/md0/holders/dm-0", "../../dm-0"); /* no end, and still one */
	put_device("loop3", "7:3\n");
	put("sys/block/loop3/loop/backing_file", "/dev/md0\n");
	put("sys/block/loop4/loop/backing_file", "/dev/sda\n");
	put("sys/block/loop5/size", "0\n");
	put_device("loop3p1", "259:9\n");
	put("sys/class/block/loop3/loop3p1/partition", "1\n");
	put("proc/1/mountinfo", "2 1 259:9 / /deep rw - ext4 /dev/loop3p1 rw\n");
	put_process("30", "reader\n", "mnt:[1]", "/dev/dm-0");
	find();
	assert_int_equal(holders.nr, 5);
	assert_string_equal(line, "mount /deep, device dm-0, device md0, device loop3, "
				  "process reader");
}

static void as_many_as_there_are(void **state)
{
	char pid[20];

	(void)state;
	for (unsigned i = 0; i < HOLDERS_MAX + 5; i++) {
		snprintf(pid, sizeof(pid), "%u", 100 + i);
		put_process(pid, "x\n", "mnt:[1]", "/dev/ublkb0");
	}
	find();
	assert_int_equal(holders.nr, HOLDERS_MAX);
	assert_int_equal(holders.more, 5);
}

/* ---- the real ones, with a loop device ---- */

static int attach_loop(int *device, char name[32])
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, number, ret = -1;
	char path[64];

	*device = -1;
	if (control < 0)
		return -1;
	file = open(below_root("image"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (file >= 0 && !ftruncate(file, 1 << 20) && number >= 0) {
		snprintf(name, 32, "loop%d", number);
		snprintf(path, sizeof(path), "/dev/%s", name);
		*device = open(path, O_RDWR | O_CLOEXEC);
		ret = *device < 0 ? -1 : ioctl(*device, LOOP_SET_FD, file);
	}
	close(file);
	close(control);
	return ret;
}

static bool is_held_by(pid_t pid)
{
	for (unsigned i = 0; i < holders.nr; i++)
		if (holders.list[i].kind == HOLDER_PROCESS && holders.list[i].pid == pid)
			return true;
	return false;
}

static void a_real_device_is_seen(void **state)
{
	char name[32];
	int device = -1;

	(void)state;
	if (geteuid() || attach_loop(&device, name)) {
		if (!geteuid() && device >= 0)
			close(device);
		print_message("no loop device can be made here\n");
		skip();
	}
	assert_int_equal(holders_find(name, NULL, 0, &holders), 0);
	assert_true(is_held_by(getpid()));
	holders_close(&holders);
	assert_int_equal(holders_find(name, &(pid_t){ getpid() }, 1, &holders), 0);
	assert_false(is_held_by(getpid()));
	ioctl(device, LOOP_CLR_FD);
	close(device);
}

int main(void)
{
#define WITH_ROOT(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		WITH_ROOT(nobody_is_found),
		WITH_ROOT(a_process_is_found),
		WITH_ROOT(mounts_of_all_namespaces_are_found),
		WITH_ROOT(partitions_are_part_of_it),
		WITH_ROOT(what_stands_on_it_holds_it),
		WITH_ROOT(as_many_as_there_are),
		WITH_ROOT(a_real_device_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
