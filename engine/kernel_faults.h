/* SPDX-License-Identifier: MIT */
/*
 * Known faults of the kernel that users of ublk meet, by release.  Pure: any thread.
 */
#ifndef UBLKD_KERNEL_FAULTS_H
#define UBLKD_KERNEL_FAULTS_H

struct kernel_fault {
	const char *command; /* of the driver, as "START_DEV"; NULL: of none in particular */
	const char *text;    /* what happens, and what helps; a sentence without its period */
	const char *source;  /* where it is reported */
};

/*
 * The next fault that the release (as uname -r gives it) probably has: NULL begins, and
 * NULL is the end.
 */
const struct kernel_fault *kernel_fault_next(const char *release, const struct kernel_fault *after);

/* The first of them that this command may hang or crash by; NULL: none is known. */
const struct kernel_fault *kernel_fault_find(const char *release, const char *command);

#endif
