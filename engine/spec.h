/* SPDX-License-Identifier: MIT */
/*
 * A user's wishes: a URI, the options of every export, the backend's own.
 * Checked as far as it can be without opening or making anything.
 */
#ifndef UBLKD_SPEC_H
#define UBLKD_SPEC_H

#include <stdint.h>

#include "engine/backend.h"

/* The options of every export; the command line's and the configuration's. */
extern const struct option_def spec_options[];

enum spec_option {
	SPEC_ID,
	SPEC_QUEUES,
	SPEC_DEPTH,
	SPEC_BLOCK_SIZE,
	SPEC_MAX_IO,
	SPEC_READ_ONLY,
	SPEC_IO_PATH,
	SPEC_CPUS,
	SPEC_POLL_US,
	SPEC_PARTITIONS,
	SPEC_OPTIONS
};

/* Owner: whoever called spec_open(). */
struct spec {
	char *uri;
	const char *locator; /* in uri */
	const struct backend *backend;
	struct option_value values[SPEC_OPTIONS];
	struct option_value *backend_values; /* one for each of backend->options */
	char **strings;                      /* what the values point into */
	unsigned nr_strings;
};

/*
 * Takes "scheme:locator" or a bare path (the file backend's), copied, and sets
 * every option to its default.  Returns 0, or -EINVAL or -ENOMEM with err filled
 * and nothing held.
 */
int spec_open(struct spec *spec, const char *uri, struct error *err);
void spec_close(struct spec *spec);

/* Sets one of spec_options; text (NULL for a flag alone) is copied. */
int spec_set(struct spec *spec, const char *name, const char *text, struct error *err);

/* Sets one of the backend's own options from "KEY=VALUE" or "KEY", copied. */
int spec_set_backend(struct spec *spec, const char *assignment, struct error *err);

/* The same from name and text. */
int spec_set_backend_option(struct spec *spec, const char *name, const char *text,
			    struct error *err);

/* Sets any option by its name, the backend's own too; text as in spec_set(). */
int spec_set_any(struct spec *spec, const char *name, const char *text, struct error *err);

/*
 * Checks what belongs together, with the backend's own check.  Returns 0, or
 * -EINVAL with err filled.
 */
int spec_check(const struct spec *spec, struct error *err);

/* The longest spin of a queue's thread before it sleeps, in microseconds; 0: none. */
uint32_t spec_poll_us(const struct spec *spec);

/*
 * For a new device alone: whether this process may run on any of the CPUs asked for.
 * A device that exists is served wherever its server may run.  Returns 0, or -EINVAL
 * with err filled.
 */
int spec_check_cpus(const struct spec *spec, struct error *err);

/*
 * Facts of a device that are fixed when it is made.  Whoever opens storage for one that exists
 * must not work it out again: CPUs, defaults and limits may have changed.
 */
struct device_shape {
	unsigned nr_queues, depth;
	uint32_t max_io;
};

/*
 * Fills in an export as the spec says it; it points into spec.  The number of queues is
 * that of a new device: "auto" depends on the CPUs of this moment.
 */
void spec_to_instance(const struct spec *spec, struct instance *instance);

#endif
