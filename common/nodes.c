/* SPDX-License-Identifier: MIT */
/*
 * Where a queue's thread runs by default: on any CPU of the node that submits to it, or, where
 * there is one node, on any CPU that shares a last-level cache with those that do.
 *
 * With as many queues as CPUs the kernel's mask of a queue is a single CPU.  A thread
 * pinned there takes turns with the application that waits for it, while the other CPUs
 * idle: one job at depth 64 on a two-queue file export then reached a third of what it
 * reaches unpinned.  Memory and caches are what ties a thread to a place, so they are the limit.
 */
#include "common/nodes.h"
#include "common/cpus.h"
#include "common/error.h"
#include "common/small_file.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* A file with a list of CPUs; false where it is missing or empty. */
static bool read_list(const char *path, struct cpus *cpus)
{
	char list[4096];
	struct error ignored;

	return small_file_line(path, list, sizeof(list)) >= 0 && !cpus_parse(list, cpus, &ignored);
}

/* Adds the nodes of from to wide, and all nodes to all. */
static void add_nodes(const char *directory, const struct cpus *from, struct cpus *wide,
		      struct cpus *all)
{
	char path[320];
	const struct dirent *entry;
	DIR *nodes;
	unsigned n;

	snprintf(path, sizeof(path), "%.40s/node", directory);
	nodes = opendir(path);
	while (nodes && (entry = readdir(nodes))) {
		struct cpus node;
		char rest;

		if (sscanf(entry->d_name, "node%u%c", &n, &rest) != 1)
			continue;
		snprintf(path, sizeof(path), "%.40s/node/node%u/cpulist", directory, n);
		/* A node without CPUs has memory only. */
		if (!read_list(path, &node))
			continue;
		cpus_add(all, &node);
		if (cpus_overlap(&node, from))
			cpus_add(wide, &node);
	}
	if (nodes)
		closedir(nodes);
}

/* Adds the CPUs that share the cache of the highest level with this one; false: it is unknown. */
static bool add_cache(const char *directory, unsigned cpu, struct cpus *wide)
{
	int highest = 0, level;
	char path[128], text[16];
	struct cpus shared, last = { 0 };

	for (unsigned i = 0;; i++) {
		snprintf(path, sizeof(path), "%.40s/cpu/cpu%u/cache/index%u/level", directory, cpu,
			 i);
		if (small_file_line(path, text, sizeof(text)) < 0)
			break;
		level = atoi(text);
		snprintf(path, sizeof(path), "%.40s/cpu/cpu%u/cache/index%u/shared_cpu_list",
			 directory, cpu, i);
		if (level > highest && read_list(path, &shared)) {
			highest = level;
			last = shared;
		}
	}
	cpus_add(wide, &last);
	return highest;
}

/* Adds the last-level caches of all CPUs of from to wide; false: one is unknown. */
static bool add_caches(const char *directory, const struct cpus *from, struct cpus *wide)
{
	for (unsigned cpu = 0; cpu < CPUS_MAX; cpu++)
		if (cpus_has(from, cpu) && !cpus_has(wide, cpu) && !add_cache(directory, cpu, wide))
			return false;
	return true;
}

static bool divides(const struct cpus *wide, const struct cpus *all)
{
	unsigned n = cpus_count(wide);

	return n > 1 && n < cpus_count(all);
}

void nodes_widen(struct cpus *cpus, const char *directory)
{
	struct cpus all = { 0 }, nodes = { 0 }, caches = { 0 };
	bool every_node;

	add_nodes(directory, cpus, &nodes, &all);
	every_node = cpus_count(&nodes) == cpus_count(&all);
	if (divides(&nodes, &all))
		*cpus = nodes;
	else if (every_node && add_caches(directory, cpus, &caches) && divides(&caches, &all))
		*cpus = caches;
	else
		*cpus = (struct cpus){ 0 };
}
