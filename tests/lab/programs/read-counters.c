/* SPDX-License-Identifier: MIT */
/*
 * read-counters PID [NAME]: the counters of a server, read as any other program
 * can: its memfd is found among /proc/PID/fd and mapped read-only.  One line
 * "NAME VALUE" each; with a NAME its value alone.
 */
#include "engine/counters.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *wanted;
static bool found;

static void show(const char *of, const char *name, uint64_t value)
{
	char full[80];

	snprintf(full, sizeof(full), "%s%s%s", of, *of ? "." : "", name);
	if (wanted && strcmp(wanted, full) != 0)
		return;
	found = true;
	if (wanted)
		printf("%" PRIu64 "\n", value);
	else
		printf("%s %" PRIu64 "\n", full, value);
}

static int open_counters(const char *pid)
{
	char directory[64], path[384], target[256];
	struct dirent *entry;
	int fd = -1;
	ssize_t n;
	DIR *dir;

	snprintf(directory, sizeof(directory), "/proc/%s/fd", pid);
	dir = opendir(directory);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		if (!strncmp(target, "/memfd:" COUNTERS_NAME, strlen("/memfd:" COUNTERS_NAME)))
			fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static struct counters *map_counters(const char *pid)
{
	int fd = open_counters(pid);
	struct counters *counters = fd < 0 ? NULL : counters_map(fd, false);

	if (fd >= 0)
		close(fd);
	return counters;
}

static void show_queue(struct counters *counters, unsigned index)
{
	const struct queue_counters *q = counters_queue(counters, index);
	char of[32];

	snprintf(of, sizeof(of), "queue%u", index);
	show(of, "started", q->started);
	show(of, "completed", q->completed);
	show(of, "rounds", q->rounds);
	show(of, "fallbacks", q->fallbacks);
}

static void show_op(struct counters *counters, enum io_op op)
{
	const char *of = counters_op_name(op);
	uint64_t measured = 0;
	struct op_counters sum;

	counters_sum(counters, op, &sum);
	show(of, "completed", sum.completed);
	show(of, "bytes", sum.bytes);
	show(of, "failed", sum.failed);
	show(of, "latency-ns", sum.latency_ns);
	for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
		measured += sum.latency[i];
	show(of, "measured", measured);
}

int main(int argc, char **argv)
{
	struct counters *counters = argc > 1 ? map_counters(argv[1]) : NULL;

	if (!counters) {
		fprintf(stderr, "read-counters: no counters to be mapped\n");
		return 1;
	}
	wanted = argc > 2 ? argv[2] : NULL;
	show("", "queues", counters_nr_queues(counters));
	for (unsigned i = 0; i < counters_nr_queues(counters); i++)
		show_queue(counters, i);
	for (unsigned op = 0; op < IO_OPS; op++)
		show_op(counters, op);
	for (unsigned kind = 0; kind < COUNTERS_ERRORS; kind++)
		show("error", counters_error_name(kind), counters_sum_errors(counters, kind));
	for (unsigned i = 0; i < INSTANCE_GAUGES && counters->gauge_names[i][0]; i++)
		show("gauge", counters->gauge_names[i], counters->gauges[i]);
	if (wanted && !found) {
		fprintf(stderr, "read-counters: there is no '%s'\n", wanted);
		return 1;
	}
	return 0;
}
