/* SPDX-License-Identifier: MIT */
/*
 * An export that ublkd keeps: what is wanted of it, what there is of it, and how
 * that came about.
 *
 * Its record, a file, is written before and after each step that leaves something
 * in the kernel or in a process, so that the next ublkd finds it.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_MANAGED_H
#define UBLKD_MANAGED_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/error.h"
#include "engine/backend.h"
#include "engine/counters.h"
#include "engine/device.h"
#include "engine/holders.h"
#include "engine/spec.h"
#include "engine/state.h"
#include "supervisor/fence.h"
#include "supervisor/fiber.h"
#include "supervisor/name.h"
#include "supervisor/worker.h"
#include "worker/owner.h"

#define MANAGED_HISTORY 32u

enum managed_origin {
	ORIGIN_DECLARED,  /* by a file of the configuration */
	ORIGIN_REQUESTED, /* by a client, until it is removed or the machine goes down */
	ORIGIN_PERSISTENT /* by a client, who had it declared as well */
};

enum managed_want {
	WANT_LIVE,
	WANT_SUSPENDED,
	WANT_GONE
};

struct managed_change {
	int64_t time_us; /* since 1970 */
	enum export_state state;
	char *reason; /* or NULL */
};

/* Counters at the last query, for rates. */
struct managed_rates {
	uint64_t at_ms, reads, writes, read_bytes, written_bytes;
	double reads_s, writes_s, read_bytes_s, written_bytes_s;
};

/* Owner: the supervisor's table. */
struct managed {
	struct managed *next;
	char name[NAME_MAX_LENGTH + 1];
	char *uri;
	json_t *options; /* name -> text (null: a flag), as asked for */
	struct spec spec;
	enum managed_origin origin;
	struct owner owner; /* whose rights its files are opened with */

	enum managed_want want;
	bool force;       /* WANT_GONE: requests may fail */
	bool accept;      /* other storage than before may serve it */
	bool anew;        /* WANT_GONE: it was declared since, and is made once it is gone */
	bool upgrade;     /* a new server is wanted */
	bool look;        /* its worker may be stuck */
	uint64_t grow_to; /* bytes that its storage has by now; 0: no news */
	uint64_t grown_at_ms;
	bool resize, shrink; /* another size is wanted, resize_to; then there is a result */
	uint64_t resize_to;
	int resize_result;
	struct error *resize_error; /* who asked has it */

	enum export_state state;
	struct managed_change history[MANAGED_HISTORY]; /* of nr_changes the last */
	unsigned nr_changes;
	struct error *fault;      /* the last failure; NULL: all is well */
	bool keeping;             /* a fiber is at work on it */
	bool again;               /* and will look once more what is to be done */
	struct fiber_event moved; /* something of all this has changed */
	uv_timer_t retry;
	unsigned failures; /* in a row */
	bool given_up;     /* no more tries by itself */
	bool unknown;      /* what it has is not known: nothing is done to it */
	bool dropped;      /* gone from the table; goes when its last user lets go */
	unsigned users;    /* fibers that have it in their hands */
	uint64_t retry_at_ms, live_since_ms;
	uint64_t live_served; /* requests that had been served when it became live */
	unsigned recoveries;

	/* The device. */
	struct device device;
	struct control control; /* the device's; of the fiber at work */
	struct backend_limits limits;
	char identity[IDENTITY_BYTES];

	/* Its server. */
	struct worker *worker;         /* or NULL */
	struct worker_process process; /* that serves, or did; on record */
	bool holding;        /* it serves no more, and keeps the memory for the next one */
	struct fence fence;  /* connections of former workers, which may still write */
	bool fence_told;     /* that they are waited for, on record, too */
	bool unfenced;       /* they were an earlier ublkd's: nothing tells whether they are over */
	uint64_t reached_ms; /* when a worker has last opened the storage */
	bool failing;        /* its death is to be noticed by the command under way */
	struct counters *counters;
	int counters_fd;
	int lost;             /* what the counters have of it: flushes fail, see instance_lost() */
	int memory_fd;        /* content that outlives it; or -1 */
	json_t *threads;      /* of its queues */
	uint64_t seen_rounds; /* the heartbeat's */
	unsigned silent;      /* heartbeats in a row without a round */
	struct managed_rates rates;
};

/* Where records are; set once. */
extern const char *managed_folder;

/* Called after each change of state or of what is told of it. */
extern void (*managed_changed)(struct managed *m);

/*
 * Makes one that is declared; uri and options (released in any case) are checked.
 * Returns 0, or -errno with err filled.
 */
int managed_create(struct managed **managed, const char *name, const char *uri, json_t *options,
		   enum managed_origin origin, struct error *err);

/* Nothing of it may be at work. */
void managed_destroy(struct managed *m);

/*
 * Whether uri and options ask for the same; options that --persist has recorded may be
 * missing among those.
 */
bool managed_is_same(const struct managed *m, const char *uri, const json_t *options);

/* Sets an option of the backend's `recorded` ones, for later openings too.  -errno. */
int managed_record(struct managed *m, const char *option, const char *value, struct error *err);

/* "declared", "requested", "persistent". */
const char *managed_origin_name(enum managed_origin origin);

/* A legal transition; reason (may be NULL) is copied. */
void managed_move(struct managed *m, enum export_state to, const char *reason);

/* Notes in the history, and tells, that it is in its state for that reason. */
void managed_note(struct managed *m, const char *reason);

/* Keeps why it is not as it should be; NULL: it is. */
void managed_set_fault(struct managed *m, const struct error *err);

/* For managed_holders(), where somebody waits to be told. */
#define MANAGED_TELL_MS 10000u

/*
 * Who has its device open, looked for up to ms milliseconds.  Returns 0, also where there
 * is none, or -errno and nobody: then it is not known.  From a fiber; holders_close() is
 * due in either case.
 */
int managed_holders(const struct managed *m, struct holders *holders, unsigned ms);

/* Looks whether a flush has failed, which no later server may forget.  Whether that is news. */
bool managed_look_lost(struct managed *m);

/* Requests that its workers have answered so far, by their counters. */
uint64_t managed_served(const struct managed *m);

/* Its worker serves from now on. */
void managed_note_live(struct managed *m);

/* Writes the record, whole or not at all.  Returns 0, or -errno with err filled. */
int managed_write(const struct managed *m, struct error *err);
void managed_unwrite(const struct managed *m);
/*
 * Removes the file of the records' folder, if an earlier ublkd has died while it wrote
 * it, and tells whether that is so.
 */
bool managed_unwrite_unfinished(const char *file);
bool managed_has_record(const struct managed *m);

/*
 * Makes one from a record, as it was when that was written; its worker and memory
 * are not there.  Returns 0, or -errno with err filled.
 */
int managed_read(struct managed **managed, const char *name, struct error *err);

#endif
