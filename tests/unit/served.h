/* SPDX-License-Identifier: MIT */
/*
 * A device served on the fake kernel, from one line of words.
 */
#ifndef UBLKD_SERVED_H
#define UBLKD_SERVED_H

#include "engine/standalone.h"
#include "engine/spec.h"
#include "tests/unit/fake-kernel.h"

/* How long a command may wait before it counts as lost, where a test does not lose one. */
#define SERVED_DEADLINE_MS 20000u

struct served {
	struct control control;
	struct spec spec;
	struct standalone standalone;
	struct error err; /* of what failed last */
};

/*
 * Opens the control device, and a spec from words parted by blanks: a URI, then
 * options as "depth=4", "read-only" or, of the backend, "-oshard=4K".  Each fails
 * the test by itself if the words are wrong.
 */
void served_open(struct served *s, const char *words);
void served_close(struct served *s);

/* standalone_start(); the result is the caller's to judge. */
int served_start(struct served *s);
/* standalone_stop() and standalone_forget(). */
int served_stop(struct served *s);

/* open and start, and stop and close, that must succeed. */
void served_begin(struct served *s, const char *words);
void served_end(struct served *s);

static inline unsigned served_id(const struct served *s)
{
	return s->standalone.device.info.dev_id;
}

/* Numbers that look random and are the same in every run. */
static inline uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 24;
}

/* Ends the program after so many seconds, whatever hangs. */
void bound_time(unsigned seconds);

#endif
