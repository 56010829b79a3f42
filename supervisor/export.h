/* SPDX-License-Identifier: MIT */
/*
 * An export in ublkd: its goal, its actual state, and its history. Comments name the writers of
 * each member.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_EXPORT_H
#define UBLKD_EXPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/error.h"
#include "engine/backend.h"
#include "engine/counters.h"
#include "engine/device.h"
#include "engine/health.h"
#include "engine/holders.h"
#include "engine/spec.h"
#include "engine/state.h"
#include "supervisor/fence.h"
#include "supervisor/fiber.h"
#include "supervisor/name.h"
#include "supervisor/rates.h"
#include "supervisor/worker.h"
#include "worker/owner.h"

#define EXPORT_HISTORY 32u

enum export_origin {
	ORIGIN_DECLARED,   /* by a file of the configuration */
	ORIGIN_REQUESTED,  /* by a client, until it is removed or the machine goes down */
	ORIGIN_PERSISTENT, /* by a client with --persist, which also wrote a declaration */
	EXPORT_ORIGINS
};

enum export_goal {
	GOAL_LIVE,
	GOAL_SUSPENDED,
	GOAL_GONE
};

struct export_change {
	int64_t time_us; /* since 1970 */
	enum export_state state;
	char *reason;      /* or NULL */
	unsigned repeated; /* how often it was repeated, see export_note() */
	int64_t last_us;   /* time of the last repetition */
};

/* The goal of an export. Writers: clients' calls and the configuration; the reconciler, which
   gives up a removal or a suspension that was refused. */
struct export_wanted {
	enum export_goal goal;
	bool force;          /* GOAL_GONE: requests in flight may fail */
	bool recreate;       /* GOAL_GONE: declared again meanwhile: create it after the removal */
	bool accept_storage; /* the storage need not be the same as before */
};

/* The storage, as workers found it. Writers: the flows; grown_to also a worker's event. */
struct export_storage {
	struct backend_limits limits;
	char identity[IDENTITY_BYTES];
	uint64_t opened_ms; /* when a worker last opened it; 0: the last one could not */
	uint64_t grown_to;  /* a new size, not yet adopted by the device; 0: none */
	int lost;           /* -errno of a failed flush: all later ones fail, see instance_lost() */
	int memory_fd;      /* content that outlives the worker; or -1 */
};

/* The worker and what outlives it. Writers: the flows; flow_check() writes threads. */
struct export_worker {
	struct worker *handle;         /* or NULL */
	struct worker_process process; /* that serves, or did; on record */
	struct worker_events events;   /* of this export's workers; set at creation */
	bool holding;        /* it no longer serves, but holds the memory for its successor */
	bool command_waits;  /* a control command is to be abandoned if the worker dies */
	struct fence fence;  /* connections of former workers, which may still write */
	bool fence_recorded; /* the record says that they are waited for */
	bool unfenced;       /* an earlier ublkd had them: it is unknown whether they are over */
	struct counters *counters;
	int counters_fd;
	json_t *threads;        /* of its queues */
	uint64_t ended_ms;      /* when the last one was ended; 0: none was by this ublkd */
	uint64_t live_since_ms; /* when the device last became live */
	uint64_t live_served;   /* requests that had been served by then */
};

/* The reconciler's own; flow_adopt() reads recoveries from the record. */
struct export_reconciler {
	bool busy;  /* a fiber is at work on the export */
	bool again; /* and compares once more before it ends */
	uv_timer_t retry;
	uint64_t retry_at_ms;
	uint64_t grown_at_ms; /* when the device last followed its storage */
	unsigned failures;    /* in a row */
	unsigned recoveries;
	bool given_up; /* no more tries until a client asks */
	bool unknown;  /* the kernel did not say what exists: leave the export alone */
};

/* Owner: the supervisor's table. */
struct export
{
	struct export *next;

	/* As asked for; set at creation. */
	char name[NAME_MAX_LENGTH + 1];
	char *uri;
	json_t *options; /* name -> text (null: a flag) */
	struct spec spec;
	enum export_origin origin;
	struct owner owner; /* whose rights its files are opened with */

	/* The state and how it came about. Writers: export_move(), export_note(), export_set_fault(). */
	enum export_state state;
	struct export_change history[EXPORT_HISTORY]; /* of nr_changes the last */
	unsigned nr_changes;
	unsigned first_change; /* the oldest that is kept */
	unsigned nr_reported;  /* of them, to monitors; api.c writes it, too */
	struct error *fault;   /* the last failure; NULL: all is well */
	/* Conditions of a live device: its worker's, and CAUSE_UPGRADE. See export_health(). */
	struct health_condition conditions[CAUSES];
	enum health_cause health_cause; /* as last reported; CAUSES: all is well */
	int64_t health_since_s;
	int64_t trouble_since_s;    /* when the health was last ok; a cause may follow another */
	struct fiber_event changed; /* raised with each change of all this */

	struct export_wanted wanted;
	struct export_request *requests; /* to be carried out, see request.h */

	struct device device;   /* writers: the flows */
	struct control control; /* the device's; of the flow at work */
	struct export_storage storage;
	struct export_worker worker;
	struct export_reconciler reconciler;

	struct {                 /* the heartbeat's */
		uint64_t rounds; /* of all queues, at the last beat */
		unsigned silent; /* beats in a row without a round, requests being there */
	} heartbeat;
	struct rates rates; /* the heartbeat's */

	bool dropped;   /* removed from the table; destroyed with its last user */
	unsigned users; /* fibers that hold it, see supervisor_hold() */
};

/*
 * The events of the workers of all exports, with the export as their context; set once, before
 * the first is created.
 */
extern struct worker_events export_worker_events;

/* Called after each change of state or of its reason; set once. */
extern void (*export_changed)(struct export *export);

/*
 * Creates an export in state declared; checks uri and options (released in any case).
 * Returns 0, or -errno with err filled.
 */
int export_create(struct export **made, const char *name, const char *uri, json_t *options,
		  enum export_origin origin, struct error *err);

/* None of its fibers may be running. */
void export_destroy(struct export *export);

/*
 * Whether uri and options ask for the same export; options that --persist recorded may be missing
 * in them.
 */
bool export_is_same(const struct export *export, const char *uri, const json_t *options);

/*
 * Describes the difference, as in "queues is 2, not 4" (the existing value first), in out, which is
 * returned; "" if export_is_same().
 */
const char *export_difference(const struct export *export, const char *uri, const json_t *options,
			      char *out, size_t size);

/* Sets an option of the backend's `recorded` ones, for later openings too.  -errno. */
int export_record_option(struct export *export, const char *option, const char *value,
			 struct error *err);

/* "declared", "requested", "persistent". */
const char *export_origin_name(enum export_origin origin);

/* A legal transition; reason (may be NULL) is copied. */
void export_move(struct export *export, enum export_state to, const char *reason);

/*
 * Adds the current state with a reason to the history, and reports it. A sequence of up to
 * EXPORT_CYCLE changes that is repeated at once is kept once, with a count: an export whose start
 * is retried for hours keeps its earlier history.
 */
#define EXPORT_CYCLE 4u
void export_note(struct export *export, const char *reason);

/* Keeps the last failure; NULL: all is well. */
void export_set_fault(struct export *export, const struct error *err);

/* An export's health (supervisor/health.c). */
struct export_health {
	enum health health;
	const char *cause; /* "server-away"; NULL: all is well */
	const char *cure;  /* NULL likewise */
	char reason[1024]; /* what is wrong; or "" */
	int64_t since_s;   /* seconds since 1970 */
};
void export_health(const struct export *export, struct export_health *out);
/* Compares with what was last reported, and reports a change. */
void export_note_health(struct export *export);

/* Replaces the worker's conditions (worker/conditions.h; NULL: none). */
void export_take_conditions(struct export *export, const json_t *conditions);
/* Sets a condition that ublkd itself finds (detail; NULL: it is over). */
void export_set_condition(struct export *export, enum health_cause cause, const char *detail);

/* For export_find_holders(), while a client waits for the answer. */
#define EXPORT_HOLDERS_MS 10000u

/*
 * Finds the users of its device, for up to ms milliseconds.  Returns 0, also without a device, or
 * -errno and no holders: then the users are unknown.  From a fiber; holders_close() is due in
 * either case.
 */
int export_find_holders(const struct export *export, struct holders *holders, unsigned ms);

/* Records a failed flush, which all later workers must report.  Returns whether it is a new one. */
bool export_check_lost(struct export *export);

/* Number of the device's queues, as far as the counters have them; 0: no counters. */
unsigned export_nr_queues(const struct export *export);

/* Requests that its workers have answered so far, by their counters. */
uint64_t export_served(const struct export *export);

/* Notes that the worker serves from now on. */
void export_note_live(struct export *export);

#endif
