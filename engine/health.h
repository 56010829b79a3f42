/* SPDX-License-Identifier: MIT */
/*
 * How an export fares, beside its state: a live device may wait for its server, or fail its
 * I/O. Each cause of trouble is a row of one table, with what it means and what to do.
 *
 * A condition is a cause that is there now: since when, and in detail.
 */
#ifndef UBLKD_HEALTH_H
#define UBLKD_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

/* From good to bad. */
enum health {
	HEALTH_OK,
	HEALTH_DEGRADED, /* I/O works, with less than there should be */
	HEALTH_WAITING,  /* I/O is blocked, and goes on by itself once the cause is over */
	HEALTH_REFUSED,  /* I/O is blocked, and somebody has to act */
	HEALTH_FAILING,  /* I/O fails */
	HEALTHS
};

enum health_cause {
	/* Backends report these. */
	CAUSE_CONNECTIONS,    /* some of several connections are lost */
	CAUSE_SERVER_AWAY,    /* the server cannot be reached */
	CAUSE_OLD_CONNECTION, /* some I/O waits for the end of an old connection */
	CAUSE_OTHER_EXPORT,   /* the server offers something else */
	CAUSE_DEADLINE,       /* the server is away for longer than I/O waits */
	CAUSE_MEMORY_FULL,    /* memory is at its limit */
	CAUSE_NO_SPACE,       /* the file system under a file is full */
	/* ublkd knows these. */
	CAUSE_FLUSH_FAILED,  /* a flush failed, and so does every later one */
	CAUSE_UPGRADE,       /* an upgrade was not possible */
	CAUSE_DECLARATION,   /* the configuration has by now another declaration, or a wrong one */
	CAUSE_RECOVERING,    /* no worker serves the device */
	CAUSE_SUSPENDED,     /* a client asked for it */
	CAUSE_NOT_STARTED,   /* there is no device yet */
	CAUSE_CONFIGURATION, /* its declaration is wrong: nothing is made */
	CAUSE_GIVEN_UP,      /* nothing is tried any more */
	CAUSES
};
#define WORKER_CAUSES CAUSE_FLUSH_FAILED /* the first that no worker reports */

struct health_cause_def {
	const char *name; /* "server-away" */
	enum health health;
	const char *cure; /* one sentence, no full stop */
};
extern const struct health_cause_def health_causes[CAUSES];

/* "ok", "waiting" ... */
const char *health_name(enum health health);

/* A cause that comes and goes with requests counts as over after so long without it. */
#define HEALTH_SETTLE_MS 10000u

struct health_condition {
	bool set;
	int64_t since_s;  /* since 1970 */
	char detail[512]; /* what is wrong: one sentence, no full stop */
};

/* Sets the condition (detail) or ends it (NULL). Returns whether that changes something. */
bool health_set(struct health_condition *condition, const char *detail);

/* The worst of the conditions, of equals the oldest; CAUSES: there is none. */
enum health_cause health_worst(const struct health_condition conditions[CAUSES]);

#endif
