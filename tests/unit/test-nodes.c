/* SPDX-License-Identifier: MIT */
#include "common/cpus.h"
#include "common/error.h"
#include "common/nodes.h"
#include "tests/unit/test.h"

static char directory[64];

static int make_directory(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/ublkd-test-XXXXXX");
	return !mkdtemp(directory);
}

static int remove_directory(void **state)
{
	char command[80];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

/* A file below the directory, as the kernel writes it. */
static void write_line(const char *name, const char *line)
{
	char command[512];

	snprintf(command, sizeof(command), "f=%s/%s; mkdir -p ${f%%/*} && echo '%s' >$f", directory,
		 name, line);
	assert_int_equal(system(command), 0);
}

static void add_node(const char *name, const char *list)
{
	char path[128];

	snprintf(path, sizeof(path), "node/%s/cpulist", name);
	write_line(path, list);
}

static void add_cache(unsigned cpu, unsigned index, const char *level, const char *shared)
{
	char path[128];

	snprintf(path, sizeof(path), "cpu/cpu%u/cache/index%u/level", cpu, index);
	write_line(path, level);
	snprintf(path, sizeof(path), "cpu/cpu%u/cache/index%u/shared_cpu_list", cpu, index);
	write_line(path, shared);
}

static void widened(const char *submits, const char *expected)
{
	struct cpus cpus;
	struct error err;
	char text[128];

	assert_int_equal(cpus_parse(submits, &cpus, &err), 0);
	nodes_widen(&cpus, directory);
	assert_string_equal(cpus_format(&cpus, text, sizeof(text)), expected);
}

static void test_a_queue_has_the_cpus_of_its_node(void **state)
{
	(void)state;
	add_node("node0", "0-3,8-11");
	add_node("node1", "4-7,12-15");
	add_node("node10", "16-17");
	widened("2", "0-3,8-11");
	widened("15", "4-7,12-15");
	widened("16", "16-17");
	widened("3,4", "0-15");
}

static void test_one_node_is_any_cpu(void **state)
{
	(void)state;
	add_node("node0", "0-7");
	widened("5", "");
	widened("0-7", "");
}

/* One node, and two last-level caches: each core has two CPUs. */
static void add_caches(void)
{
	add_node("node0", "0-7");
	for (unsigned cpu = 0; cpu < 8; cpu++) {
		char core[8];

		snprintf(core, sizeof(core), "%u-%u", cpu & ~1u, cpu | 1u);
		add_cache(cpu, 0, "1", core);
		add_cache(cpu, 1, "1", core);
		add_cache(cpu, 2, "3", cpu < 4 ? "0-3" : "4-7");
		add_cache(cpu, 3, "2", core);
	}
}

static void test_within_one_node_a_queue_has_the_cpus_of_its_cache(void **state)
{
	(void)state;
	add_caches();
	widened("5", "4-7");
	widened("0", "0-3");
	widened("0-1", "0-3");
	widened("3-4", "");
	widened("0-7", "");
}

static void test_nodes_count_before_caches(void **state)
{
	(void)state;
	add_caches();
	add_node("node1", "8-15");
	widened("5", "0-7");
	widened("5,9", "");
}

static void test_a_cache_of_one_cpu_does_not_count(void **state)
{
	(void)state;
	add_node("node0", "0-1");
	add_cache(0, 0, "1", "0");
	add_cache(1, 0, "1", "1");
	widened("1", "");
}

static void test_nodes_of_memory_alone_do_not_count(void **state)
{
	(void)state;
	add_node("node0", "0-7");
	add_node("node1", "");
	widened("5", "");
}

static void test_never_one_cpu_alone(void **state)
{
	(void)state;
	add_node("node0", "0");
	add_node("node1", "1-2");
	widened("0", "");
	widened("1", "1-2");
}

static void test_a_cpu_of_no_node_or_no_nodes(void **state)
{
	(void)state;
	widened("0", "");
	add_node("node0", "0-1");
	add_node("node1", "2-3");
	add_node("node", "7-8");
	add_node("node2x", "7-8");
	widened("7", "");
	snprintf(directory + strlen(directory), 4, "/no");
	widened("0", "");
	directory[strlen(directory) - 3] = 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)
	const struct CMUnitTest tests[] = {
		TEST(test_a_queue_has_the_cpus_of_its_node),
		TEST(test_one_node_is_any_cpu),
		TEST(test_nodes_of_memory_alone_do_not_count),
		TEST(test_never_one_cpu_alone),
		TEST(test_a_cpu_of_no_node_or_no_nodes),
		TEST(test_within_one_node_a_queue_has_the_cpus_of_its_cache),
		TEST(test_nodes_count_before_caches),
		TEST(test_a_cache_of_one_cpu_does_not_count),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
