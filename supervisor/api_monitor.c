/* SPDX-License-Identifier: MIT */
/*
 * The method Monitor, and who is told of a change.
 */
#include "supervisor/api.h"
#include "supervisor/api_parts.h"
#include "common/error.h"
#include "supervisor/describe.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <stdlib.h>

static struct monitor {
	struct monitor *next;
	struct varlink_call *call;
} * monitors;

static void end_monitor(struct varlink_call *call, void *context)
{
	struct monitor **at = &monitors;

	while (*at && *at != context)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(context);
	varlink_reply(call, NULL);
}

static void report_change(struct monitor *monitor, struct export *export)
{
	varlink_reply_more(monitor->call,
			   json_pack("{s:o, s:o}", "export", describe_export(export), "change",
				     describe_change(export, export->nr_changes - 1)));
}

void api_report_change(struct export *export)
{
	/* Also called for changes that are not in the history: report each entry once. */
	if (export->nr_reported == export->nr_changes)
		return;
	export->nr_reported = export->nr_changes;
	api_report_progress(export);
	for (struct monitor *monitor = monitors; monitor; monitor = monitor->next)
		report_change(monitor, export);
}

void api_end_monitors(void)
{
	while (monitors) {
		struct monitor *monitor = monitors;

		varlink_on_cancel(monitor->call, NULL, NULL);
		end_monitor(monitor->call, monitor);
	}
}

void api_monitor(struct varlink_call *call, json_t *parameters, void *context)
{
	struct monitor *added = malloc(sizeof(*added));
	struct error err;

	(void)parameters;
	(void)context;
	if (!added) {
		error_set(&err, ENOMEM, "no memory");
		api_fail(call, &err);
		return;
	}
	*added = (struct monitor){ monitors, call };
	monitors = added;
	for (struct export *export = supervisor_exports; export; export = export->next)
		if (export->nr_changes)
			report_change(added, export);
	if (varlink_on_cancel(call, end_monitor, added))
		end_monitor(call, added);
}
