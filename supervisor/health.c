/* SPDX-License-Identifier: MIT */
/*
 * An export's health: what its state says, and for a live one what its worker has reported.
 *
 * A worker reports conditions of its storage (engine/health.h); ublkd adds what it knows
 * itself. The worst one is the export's health. A change of a live export's health is logged,
 * noted in the history, and so reported to monitors: an outage that applications see as a hang must
 * show in the log, in list, show and monitor.
 *
 * All changes go through export_note_health(), which compares with what was last reported.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/export.h"
#include "worker/conditions.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static enum health_cause cause_of_live(const struct export *export)
{
	enum health_cause worst = health_worst(export->conditions);

	if (export->storage.lost &&
	    (worst == CAUSES || health_causes[worst].health < HEALTH_FAILING))
		return CAUSE_FLUSH_FAILED;
	return worst;
}

/* CAUSES: all is well, or a start or removal is under way. */
static enum health_cause cause_of(const struct export *export)
{
	switch (export->state) {
	case EXPORT_LIVE:
		return cause_of_live(export);
	case EXPORT_RECOVERING:
		return CAUSE_RECOVERING;
	case EXPORT_SUSPENDED:
		return CAUSE_SUSPENDED;
	case EXPORT_DECLARED:
	case EXPORT_FAILED:
		if (export->reconciler.given_up)
			return CAUSE_GIVEN_UP;
		return export->fault ? CAUSE_NOT_STARTED : CAUSES;
	case EXPORT_OPENING:
	case EXPORT_ADDED:
	case EXPORT_STARTING:
		/* Of the attempt before this one: a start that is tried again is not well meanwhile. */
		return export->fault ? CAUSE_NOT_STARTED : CAUSES;
	default:
		return CAUSES;
	}
}

static void put_reason(const struct export *export, enum health_cause cause,
		       struct export_health *out)
{
	const char *other = cause == CAUSE_SUSPENDED ? "a client suspended I/O"
						     : "the worker is being replaced";

	if (cause == CAUSE_FLUSH_FAILED)
		snprintf(out->reason, sizeof(out->reason),
			 "a flush failed (%s), and every later flush fails",
			 strerror(-export->storage.lost));
	else if (export->state == EXPORT_LIVE)
		snprintf(out->reason, sizeof(out->reason), "%s", export->conditions[cause].detail);
	else
		snprintf(out->reason, sizeof(out->reason), "%s",
			 export->fault ? export->fault->text : other);
}

void export_health(const struct export *export, struct export_health *out)
{
	enum health_cause cause = cause_of(export);

	*out = (struct export_health){ .health = HEALTH_OK, .since_s = export->health_since_s };
	/* All is well, but a request of a client failed: keep the reason without a cause. */
	if (cause == CAUSES && export->fault)
		snprintf(out->reason, sizeof(out->reason), "%s", export->fault->text);
	if (cause == CAUSES)
		return;
	out->health = health_causes[cause].health;
	out->cause = health_causes[cause].name;
	out->cure = health_causes[cause].cure;
	if (export->state == EXPORT_LIVE && export->conditions[cause].set)
		out->since_s = export->conditions[cause].since_s;
	put_reason(export, cause, out);
}

void export_note_health(struct export *export)
{
	enum health_cause before = export->health_cause, cause = cause_of(export);
	int64_t now = time(NULL);
	struct export_health health;
	char line[sizeof(health.reason) + 32];

	if (cause == before)
		return;
	export->health_cause = cause;
	export->health_since_s = now;
	if (before == CAUSES)
		export->trouble_since_s = now;
	/* A change of state is noted by export_move(). */
	if (export->state != EXPORT_LIVE)
		return;
	export_health(export, &health);
	if (cause != CAUSES) {
		log_event(LOG_EVENT_TROUBLE, LOG_LEVEL_WARNING, export->name, "%s: %s: %s",
			  health_name(health.health), health.reason, health.cure);
		snprintf(line, sizeof(line), "%s: %s", health_name(health.health), health.reason);
		export_note(export, line);
	} else if (before < CAUSE_RECOVERING) {
		log_event(LOG_EVENT_WELL, LOG_LEVEL_INFO, export->name, "ok again after %lld s",
			  (long long)(now - export->trouble_since_s));
		export_note(export, "ok again");
	}
}

void export_take_conditions(struct export *export, const json_t *conditions)
{
	conditions_from_json(conditions, export->conditions);
	export_note_health(export);
	export_changed(export);
}

void export_set_condition(struct export *export, enum health_cause cause, const char *detail)
{
	health_set(&export->conditions[cause], detail);
	export_note_health(export);
}
