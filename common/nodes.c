/* SPDX-License-Identifier: MIT */
/*
 * Where a queue's thread runs by default: on any CPU of the node that submits to it.
 *
 * With as many queues as CPUs the kernel's mask of a queue is a single CPU.  A thread
 * pinned there takes turns with the application that waits for it, while the other CPUs
 * idle: one job at depth 64 on a two-queue file export then reached a third of what it
 * reaches unpinned.  Memory is what ties a thread to a place, so the node is the limit.
 */
#include "common/nodes.h"
#include "common/cpus.h"
#include "common/error.h"
#include "common/small_file.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The CPUs of one node that are online; false where it has memory only. */
static bool read_node(const char *directory, const char *name, struct cpus *cpus)
{
	char path[320], list[4096];
	struct error ignored;

	snprintf(path, sizeof(path), "%.40s/%.255s/cpulist", directory, name);
	return small_file_line(path, list, sizeof(list)) >= 0 && !cpus_parse(list, cpus, &ignored);
}

void nodes_widen(struct cpus *cpus, const char *directory)
{
	struct cpus all = { 0 }, wide = { 0 };
	const struct dirent *entry;
	DIR *nodes = opendir(directory);
	unsigned n;

	while (nodes && (entry = readdir(nodes))) {
		struct cpus node;
		char rest;

		if (sscanf(entry->d_name, "node%u%c", &n, &rest) != 1 ||
		    !read_node(directory, entry->d_name, &node))
			continue;
		cpus_add(&all, &node);
		if (cpus_overlap(&node, cpus))
			cpus_add(&wide, &node);
	}
	if (nodes)
		closedir(nodes);
	n = cpus_count(&wide);
	*cpus = n > 1 && n < cpus_count(&all) ? wide : (struct cpus){ 0 };
}
