/* SPDX-License-Identifier: MIT */
#include "engine/state.h"

#define TO(state) (1u << EXPORT_##state)

static const struct {
	const char *name;
	unsigned next; /* TO() of each state that may follow */
} states[EXPORT_STATES] = {
	[EXPORT_DECLARED] = { "declared", TO(OPENING) | TO(GONE) },
	[EXPORT_OPENING] = { "opening", TO(ADDED) | TO(STOPPING) | TO(FAILED) },
	[EXPORT_ADDED] = { "added", TO(STARTING) | TO(STOPPING) | TO(FAILED) },
	[EXPORT_STARTING] = { "starting", TO(LIVE) | TO(STOPPING) | TO(FAILED) },
	[EXPORT_LIVE] = { "live", TO(RECOVERING) | TO(SUSPENDED) | TO(STOPPING) },
	[EXPORT_RECOVERING] = { "recovering",
				TO(LIVE) | TO(SUSPENDED) | TO(STOPPING) | TO(FAILED) },
	[EXPORT_SUSPENDED] = { "suspended", TO(LIVE) | TO(RECOVERING) | TO(STOPPING) },
	[EXPORT_STOPPING] = { "stopping", TO(GONE) | TO(FAILED) | TO(LIVE) },
	[EXPORT_GONE] = { "gone", TO(DECLARED) },
	[EXPORT_FAILED] = { "failed", TO(DECLARED) | TO(RECOVERING) | TO(STOPPING) | TO(GONE) },
};

const char *export_state_name(enum export_state state)
{
	return (unsigned)state < EXPORT_STATES ? states[state].name : "?";
}

bool export_state_may(enum export_state from, enum export_state to)
{
	if ((unsigned)from >= EXPORT_STATES || (unsigned)to >= EXPORT_STATES)
		return false;
	return states[from].next & 1u << to;
}
