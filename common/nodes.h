/* SPDX-License-Identifier: MIT */
/*
 * The CPUs that share a NUMA node.  Any thread.
 */
#ifndef UBLKD_NODES_H
#define UBLKD_NODES_H

struct cpus;

/* A directory nodeN with a file cpulist for each node. */
#define NODES_DIRECTORY "/sys/devices/system/node"

/*
 * Adds to a queue's CPUs, which submit to it, all other CPUs of their nodes.  The set is
 * empty afterwards, which means any CPU, where that is as good: all CPUs are in one node,
 * the nodes are unknown, or one CPU would be left.
 */
void nodes_widen(struct cpus *cpus, const char *directory);

#endif
