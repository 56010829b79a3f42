/* SPDX-License-Identifier: MIT */
/*
 * The record of an export: a file in the state directory that is written before and after
 * each step that leaves something in the kernel or in a process, so that the next ublkd
 * finds it.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_RECORD_H
#define UBLKD_RECORD_H

#include <stdbool.h>

struct error;
struct export;

/* The directory of the records; set once. */
extern const char *record_directory;

/* Writes the record, whole or not at all.  Returns 0, or -errno with err filled. */
int record_write(const struct export *export, struct error *err);
void record_remove(const struct export *export);
/*
 * Removes a file of the records' directory that an earlier ublkd left incomplete when it died.
 * Returns whether the file was one.
 */
bool record_remove_unfinished(const char *file);
bool record_exists(const struct export *export);

/*
 * Creates an export from its record, in the state of that time, without its worker and memory.
 * Returns 0, or -errno with err filled.
 */
int record_read(struct export **made, const char *name, struct error *err);

#endif
