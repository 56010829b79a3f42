/* SPDX-License-Identifier: MIT */
/*
 * The CPUs that share a NUMA node or, within a single node, a last-level cache.  Any thread.
 */
#ifndef UBLKD_NODES_H
#define UBLKD_NODES_H

struct cpus;

/*
 * Has node/nodeN/cpulist for each node, and cpu/cpuN/cache/indexM/level and shared_cpu_list for
 * each cache (Documentation/ABI/stable/sysfs-devices-node, .../testing/sysfs-devices-system-cpu).
 */
#define NODES_DIRECTORY "/sys/devices/system"

/*
 * Adds to a queue's CPUs, which submit to it, all other CPUs of their nodes; of their last-level
 * caches, if there is one node.  The set is empty afterwards, which means any CPU, where that is
 * as good: all CPUs share what is looked at, it is unknown, or one CPU would be left.
 */
void nodes_widen(struct cpus *cpus, const char *directory);

#endif
