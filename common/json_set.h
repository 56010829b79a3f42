/* SPDX-License-Identifier: MIT */
/*
 * Members of a JSON object.  Any thread.
 */
#ifndef UBLKD_JSON_SET_H
#define UBLKD_JSON_SET_H

#include <jansson.h>
#include <stdint.h>

/* Leaves the member out where text is NULL or empty. */
static inline void json_set_text(json_t *json, const char *key, const char *text)
{
	if (text && *text)
		json_object_set_new(json, key, json_string(text));
}

static inline void json_set_number(json_t *json, const char *key, uint64_t number)
{
	json_object_set_new(json, key, json_integer((json_int_t)number));
}

#endif
