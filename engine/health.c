/* SPDX-License-Identifier: MIT */
/*
 * The table of causes. The manual's table (ublkd(8), HEALTH) says the same: test-man compares.
 */
#include "engine/health.h"
#include "common/error.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const struct health_cause_def health_causes[CAUSES] = {
	[CAUSE_CONNECTIONS] = { "connections", HEALTH_DEGRADED,
				"nothing to do: lost connections are made again" },
	[CAUSE_SERVER_AWAY] = { "server-away", HEALTH_WAITING,
				"start the server, or mend the network: I/O goes on by itself" },
	[CAUSE_OLD_CONNECTION] = { "old-connection", HEALTH_WAITING,
				   "restart the server, or set ghost-wait to go on after a time" },
	[CAUSE_OTHER_EXPORT] = { "other-export", HEALTH_REFUSED,
				 "have the server offer the export as it was: I/O goes on by itself" },
	[CAUSE_DEADLINE] = { "deadline", HEALTH_FAILING,
			     "start the server: I/O works again then; check file systems" },
	[CAUSE_MEMORY_FULL] = { "memory-full", HEALTH_FAILING,
				"free memory, or discard blocks (fstrim): writes work again then" },
	[CAUSE_NO_SPACE] = { "no-space", HEALTH_FAILING,
			     "free space there, or discard blocks (fstrim): writes work again then" },
	[CAUSE_FLUSH_FAILED] = { "flush-failed", HEALTH_FAILING,
				 "check the data, then remove the export and create it again" },
	[CAUSE_UPGRADE] = { "upgrade", HEALTH_DEGRADED,
			    "run 'ublkctl upgrade' again; the previous worker keeps serving" },
	[CAUSE_DECLARATION] = { "declaration", HEALTH_DEGRADED,
				"correct the file, or remove the export; then run 'ublkctl reload'" },
	[CAUSE_RECOVERING] = { "recovering", HEALTH_WAITING,
			       "mend what the reason names: recovery is tried again by itself" },
	[CAUSE_SUSPENDED] = { "suspended", HEALTH_WAITING, "run 'ublkctl resume'" },
	[CAUSE_NOT_STARTED] = { "not-started", HEALTH_WAITING,
				"mend what the reason names: the start is tried again by itself" },
	[CAUSE_CONFIGURATION] = { "configuration", HEALTH_REFUSED,
				  "correct the file, then run 'ublkctl reload'" },
	[CAUSE_GIVEN_UP] = { "given-up", HEALTH_REFUSED,
			     "mend what the reason or the log names, then run 'ublkctl resume'" },
};

const char *health_name(enum health health)
{
	static const char *const names[HEALTHS] = {
		[HEALTH_OK] = "ok",           [HEALTH_DEGRADED] = "degraded",
		[HEALTH_WAITING] = "waiting", [HEALTH_REFUSED] = "refused",
		[HEALTH_FAILING] = "failing",
	};

	return names[health];
}

bool health_set(struct health_condition *condition, const char *detail)
{
	bool changed =
		detail ? !condition->set || strcmp(condition->detail, detail) != 0 : condition->set;

	if (detail && !condition->set)
		condition->since_s = time(NULL);
	if (detail && changed)
		snprintf(condition->detail, sizeof(condition->detail), "%s", detail);
	/* It may be cut within a character, and JSON takes whole ones. */
	text_make_printable(condition->detail);
	condition->set = detail;
	return changed;
}

enum health_cause health_worst(const struct health_condition conditions[CAUSES])
{
	enum health_cause worst = CAUSES;

	for (unsigned i = 0; i < CAUSES; i++) {
		enum health health = health_causes[i].health;

		if (!conditions[i].set)
			continue;
		if (worst == CAUSES || health > health_causes[worst].health ||
		    (health == health_causes[worst].health &&
		     conditions[i].since_s < conditions[worst].since_s))
			worst = (enum health_cause)i;
	}
	return worst;
}
