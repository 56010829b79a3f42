/* SPDX-License-Identifier: MIT */
/*
 * One table of fields serves both directions. ublkd believes no worker: a field that is missing, of
 * another type or out of range makes the message invalid.
 */
#include "worker/limits.h"

#include <errno.h>
#include <stdio.h>

enum limit_kind {
	LIMIT_U32,
	LIMIT_U64,
	LIMIT_BOOL
};

static const struct {
	const char *name;
	enum limit_kind kind;
	size_t at;
} fields[] = {
#define FIELD(name, kind, member)                                   \
	{                                                           \
		name, kind, offsetof(struct backend_limits, member) \
	}
	FIELD("size", LIMIT_U64, size),
	FIELD("logical-block", LIMIT_U32, logical_block),
	FIELD("physical-block", LIMIT_U32, physical_block),
	FIELD("min-io", LIMIT_U32, min_io),
	FIELD("opt-io", LIMIT_U32, opt_io),
	FIELD("max-io", LIMIT_U32, max_io),
	FIELD("discard-granularity", LIMIT_U32, discard_granularity),
	FIELD("max-discard", LIMIT_U32, max_discard),
	FIELD("max-write-zeroes", LIMIT_U32, max_write_zeroes),
	FIELD("read-only", LIMIT_BOOL, read_only),
	FIELD("rotational", LIMIT_BOOL, rotational),
	FIELD("volatile-cache", LIMIT_BOOL, volatile_cache),
	FIELD("fua", LIMIT_BOOL, fua),
	FIELD("dma-align", LIMIT_U32, dma_align),
	FIELD("max-segments", LIMIT_U32, max_segments),
	FIELD("max-segment-size", LIMIT_U32, max_segment_size),
	FIELD("seg-boundary-mask", LIMIT_U64, seg_boundary_mask),
	FIELD("max-queues", LIMIT_U32, max_queues),
#undef FIELD
};

json_t *limits_to_json(const struct backend_limits *limits)
{
	json_t *json = json_object();

	for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		const char *at = (const char *)limits + fields[i].at;
		json_t *value = NULL;

		switch (fields[i].kind) {
		case LIMIT_U32:
			value = json_integer(*(const uint32_t *)at);
			break;
		case LIMIT_U64: /* all of its bits, in a signed integer */
			value = json_integer((json_int_t) * (const uint64_t *)at);
			break;
		case LIMIT_BOOL:
			value = json_boolean(*(const bool *)at);
			break;
		}
		json_object_set_new(json, fields[i].name, value);
	}
	return json;
}

int limits_from_json(const json_t *json, struct backend_limits *limits)
{
	*limits = (struct backend_limits){ 0 };
	for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		const json_t *value = json_object_get(json, fields[i].name);
		json_int_t n = json_integer_value(value);
		char *at = (char *)limits + fields[i].at;

		if (fields[i].kind == LIMIT_BOOL ? !json_is_boolean(value)
						 : !json_is_integer(value))
			return -EBADMSG;
		if (fields[i].kind == LIMIT_U32 && (n < 0 || n > UINT32_MAX))
			return -EBADMSG;
		switch (fields[i].kind) {
		case LIMIT_U32:
			*(uint32_t *)at = (uint32_t)n;
			break;
		case LIMIT_U64:
			*(uint64_t *)at = (uint64_t)n;
			break;
		case LIMIT_BOOL:
			*(bool *)at = json_is_true(value);
			break;
		}
	}
	return 0;
}

static int differs(struct error *err, const char *what)
{
	return error_set(err, ESTALE,
			 "the storage does not match the device: %s: restore the right storage, "
			 "or remove the export and create it again",
			 what);
}

int limits_fit(const struct backend_limits *made, const struct backend_limits *now,
	       struct error *err)
{
	char was[24], is[24], text[80];

	if (now->size < made->size) {
		snprintf(text, sizeof(text), "it is smaller (%s, not %s)",
			 size_format(now->size, is, sizeof(is)),
			 size_format(made->size, was, sizeof(was)));
		return differs(err, text);
	}
	if (now->read_only && !made->read_only)
		return differs(err, "it is read-only now");
	if (made->logical_block % now->logical_block)
		return differs(err, "its blocks are larger");
	if (now->volatile_cache && !made->volatile_cache)
		return differs(err, "it has a write cache now, which the device would not flush");
	if (made->fua && !now->fua)
		return differs(err, "it no longer supports FUA");
	if (now->max_discard < made->max_discard || now->max_write_zeroes < made->max_write_zeroes)
		return differs(err, "it supports only smaller discards or write-zeroes, or none");
	if (now->max_io && (!made->max_io || made->max_io > now->max_io))
		return differs(err, "it supports only smaller requests");
	if (made->dma_align < now->dma_align)
		return differs(err, "it requires a larger alignment");
	return 0;
}
