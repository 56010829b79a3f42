/* SPDX-License-Identifier: MIT */
#include "common/cpus.h"
#include "common/error.h"
#include "common/nodes.h"
#include "tests/unit/test.h"

#include <sys/stat.h>

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

/* A node with that cpulist, as the kernel writes it. */
static void add_node(const char *name, const char *list)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/%s/cpulist", directory, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", list);
	fclose(f);
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
		TEST(test_a_queue_has_the_cpus_of_its_node),   TEST(test_one_node_is_any_cpu),
		TEST(test_nodes_of_memory_alone_do_not_count), TEST(test_never_one_cpu_alone),
		TEST(test_a_cpu_of_no_node_or_no_nodes),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
