/* SPDX-License-Identifier: MIT */
#include "supervisor/describe_counters.h"
#include "common/error.h"
#include "engine/counters.h"
#include "common/json_set.h"

#include <string.h>

json_t *describe_operations(struct counters *counters)
{
	json_t *array = json_array();

	for (unsigned op = 0; counters && op < IO_OPS; op++) {
		struct op_counters sum;
		json_t *json;

		counters_sum(counters, op, &sum);
		json = json_pack("{s:s}", "name", counters_op_name(op));
		json_set_number(json, "completed", sum.completed);
		json_set_number(json, "failed", sum.failed);
		json_set_number(json, "bytes", sum.bytes);
		json_set_number(json, "meanNsec",
				sum.completed ? sum.latency_ns / sum.completed : 0);
		json_set_number(json, "p50Nsec", counters_percentile(&sum, 50));
		json_set_number(json, "p90Nsec", counters_percentile(&sum, 90));
		json_set_number(json, "p99Nsec", counters_percentile(&sum, 99));
		json_set_number(json, "p999Nsec", counters_percentile(&sum, 99.9));
		json_array_append_new(array, json);
	}
	return array;
}

json_t *describe_errors(struct counters *counters)
{
	json_t *json = json_object();

	for (unsigned kind = 0; counters && kind < COUNTERS_ERRORS; kind++) {
		uint64_t n = counters_sum_errors(counters, kind);

		if (n)
			json_set_number(json, counters_error_name(kind), n);
	}
	return json;
}

json_t *describe_facts(struct counters *counters)
{
	json_t *json = json_object();

	for (unsigned i = 0; counters && i < INSTANCE_GAUGES; i++) {
		char name[sizeof(counters->gauge_names[i])];

		/* A worker has this memory mapped, and may have written anything there. */
		memcpy(name, counters->gauge_names[i], sizeof(name));
		name[sizeof(name) - 1] = 0;
		text_make_printable(name);
		if (*name)
			json_set_number(json, name,
					__atomic_load_n(&counters->gauges[i], __ATOMIC_RELAXED));
	}
	return json;
}
