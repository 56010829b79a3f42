/* SPDX-License-Identifier: MIT */
/*
 * A table of known kernel faults, to be named when a command of the driver is not answered
 * within its deadline, and wherever else a kernel is judged.
 *
 * A row has a first and a last release, both included, as their first three numbers, and
 * where a distribution's build alone is concerned, words that its name has.  Distributions
 * add and remove faults without a change of these numbers: a row says "probably".
 */
#include "engine/kernel_faults.h"

#include <fnmatch.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define RELEASE(major, minor, patch) ((major)*1000000l + (minor)*1000l + (patch))
#define ANY_PATCH                    999

/* Text and source of a fault that several rows have. */
#define CHURN                                                                                    \
	"Linux 6.18 and Ubuntu's 7.0.0-28 may never answer START_DEV when devices come and go, " \
	"and then no other command either: restart the machine with another kernel",             \
		"e2b-dev/ublk-churn-repro"
#define LATE_CANCEL                                                                              \
	"before Linux 6.16 a dead server's commands are cancelled late, which may hit the next " \
	"server: use 6.16 or later",                                                             \
		"ublk_quiesce_work_fn() of 6.12"

static const struct row {
	struct kernel_fault fault;
	long first, last;
	const char *names; /* a pattern of the whole release; NULL: any */
} rows[] = {
	{ { "START_DEV", CHURN }, RELEASE(6, 18, 0), RELEASE(6, 18, ANY_PATCH), NULL },
	{ { "START_DEV", CHURN }, RELEASE(7, 0, 0), RELEASE(7, 0, 0), "7.0.0-28-*" },
	{ { "ADD_DEV",
	    "Ubuntu's 6.17 for clouds crashes in ADD_DEV (ublk_init_queues), which then never "
	    "returns: restart the machine with another kernel",
	    "longhorn/longhorn#13509, actions/runner-images#14175" },
	  RELEASE(6, 17, 0),
	  RELEASE(6, 17, 0),
	  "6.17.0-*-a[wz][su]*" },
	{ { "UPDATE_SIZE",
	    "Linux 6.16 and 6.17 crash when the size of a stopped device is changed: "
	    "use 6.18 or later",
	    "ublk_ctrl_set_size() of 6.17" },
	  RELEASE(6, 16, 0),
	  RELEASE(6, 17, ANY_PATCH),
	  NULL },
	{ { "START_USER_RECOVERY", LATE_CANCEL },
	  RELEASE(6, 1, 0),
	  RELEASE(6, 15, ANY_PATCH),
	  NULL },
	{ { "END_USER_RECOVERY", LATE_CANCEL }, RELEASE(6, 1, 0), RELEASE(6, 15, ANY_PATCH), NULL },
	{ { "STOP_DEV",
	    "Linux 6.8 may panic when a server ends with I/O in flight (CVE-2025-37906): "
	    "use a kernel that has its fix, as 6.15 has",
	    "CVE-2025-37906" },
	  RELEASE(6, 8, 0),
	  RELEASE(6, 8, ANY_PATCH),
	  NULL },
};

#define ROWS (sizeof(rows) / sizeof(*rows))

/* "6.12.107+deb13-amd64", "6.8.0-52-generic", "7.3-rc1" */
static long number_of(const char *release)
{
	unsigned major = 0, minor = 0, patch = 0;

	if (sscanf(release, "%3u.%3u.%3u", &major, &minor, &patch) < 2)
		return 0;
	return RELEASE((long)major, (long)minor, (long)patch);
}

static bool applies(const struct row *row, const char *release)
{
	long number = number_of(release);

	return number >= row->first && number <= row->last &&
	       (!row->names || !fnmatch(row->names, release, 0));
}

const struct kernel_fault *kernel_fault_next(const char *release, const struct kernel_fault *after)
{
	const struct row *row = rows;

	if (after)
		row = (const struct row *)((const char *)after - offsetof(struct row, fault)) + 1;
	for (; row < rows + ROWS; row++)
		if (applies(row, release))
			return &row->fault;
	return NULL;
}

const struct kernel_fault *kernel_fault_find(const char *release, const char *command)
{
	const struct kernel_fault *fault = NULL;

	while ((fault = kernel_fault_next(release, fault)))
		if (fault->command && !strcmp(fault->command, command))
			return fault;
	return NULL;
}
