/* SPDX-License-Identifier: MIT */
#include "worker/conditions.h"
#include "common/error.h"

#include <stdio.h>
#include <string.h>

json_t *conditions_to_json(const struct health_condition conditions[CAUSES])
{
	json_t *array = json_array();

	for (unsigned i = 0; i < WORKER_CAUSES; i++) {
		const struct health_condition *c = &conditions[i];
		char detail[sizeof(c->detail)];

		if (!c->set)
			continue;
		/* JSON has no other text. */
		snprintf(detail, sizeof(detail), "%s", c->detail);
		text_make_printable(detail);
		json_array_append_new(array,
				      json_pack("{s:s, s:I, s:s}", "cause", health_causes[i].name,
						"since", (json_int_t)c->since_s, "detail", detail));
	}
	return array;
}

static unsigned cause_of(const char *name)
{
	for (unsigned i = 0; i < WORKER_CAUSES; i++)
		if (!strcmp(health_causes[i].name, name))
			return i;
	return WORKER_CAUSES;
}

void conditions_from_json(const json_t *json, struct health_condition conditions[CAUSES])
{
	memset(conditions, 0, WORKER_CAUSES * sizeof(*conditions));
	for (size_t i = 0; i < json_array_size(json); i++) {
		const json_t *one = json_array_get(json, i);
		const char *name = json_string_value(json_object_get(one, "cause"));
		const char *detail = json_string_value(json_object_get(one, "detail"));
		unsigned cause = name ? cause_of(name) : WORKER_CAUSES;
		struct health_condition *c = &conditions[cause];

		if (cause == WORKER_CAUSES || !detail)
			continue;
		c->set = true;
		c->since_s = json_integer_value(json_object_get(one, "since"));
		snprintf(c->detail, sizeof(c->detail), "%s", detail);
		text_make_printable(c->detail);
	}
}
