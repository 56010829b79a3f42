/* SPDX-License-Identifier: MIT */
/*
 * What the files of the interface io.ublkd share: a call in a fiber, its arguments, its answers.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_API_PARTS_H
#define UBLKD_API_PARTS_H

#include "supervisor/export.h"
#include "varlink/varlink.h"

struct error;

/* ---- a call in a fiber (api_task.c) ---- */

/* Owner: the fiber, which frees it after run. */
struct api_task {
	struct varlink_call *call;
	json_t *parameters;
	void (*run)(struct api_task *task);
};

/* Runs it in a fiber of its own, or answers that there is no memory. */
void api_start(struct varlink_call *call, json_t *parameters, void (*run)(struct api_task *task));

/* A parameter: NULL, or false, where it is missing. */
const char *api_text(const struct api_task *task, const char *key);
bool api_flag(const struct api_task *task, const char *key);
/*
 * Finds and holds the export that the parameter "name" names; NULL: there is none, and the call is
 * answered.
 */
struct export *api_named(const struct api_task *task);
/* The client; files that it names are opened with its rights. */
void api_owner(const struct varlink_call *call, struct owner *owner);

/* ---- answers (api_task.c) ---- */

/* Invalid for EINVAL, else Failed with the errno. */
void api_fail(struct varlink_call *call, const struct error *err);
void api_no_such_export(struct varlink_call *call, const char *name);
/* With who has the device open; looks for them in this fiber. */
void api_busy(struct varlink_call *call, struct export *export, const struct error *err);
/* results: an array that api_add_result() has filled, as its context; taken over. */
void api_answer_results(struct varlink_call *call, json_t *results);
void api_add_result(void *results, const char *name, bool done, const char *message);
/* Why an export is not in the state that a client asked for. */
void api_explain(const struct export *export, struct error *err);

/* ---- methods ---- */

/* api_export.c */
void api_export(struct api_task *task);
/* A reply to each Export with "more" that waits for this export. */
void api_report_progress(struct export *export);

/* api_change.c */
void api_remove(struct api_task *task);
void api_resize(struct api_task *task);
void api_suspend(struct api_task *task);
void api_resume(struct api_task *task);
void api_upgrade(struct api_task *task);
void api_reload(struct api_task *task);
void api_shutdown(struct api_task *task);

/* api_monitor.c */
void api_monitor(struct varlink_call *call, json_t *parameters, void *context);

#endif
