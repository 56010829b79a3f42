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
 * Removes the file of the records' directory, if an earlier ublkd has died while it wrote
 * it, and tells whether that is so.
 */
bool record_remove_unfinished(const char *file);
bool record_exists(const struct export *export);

/*
 * Makes one from a record, as it was when that was written; its worker and memory
 * are not there.  Returns 0, or -errno with err filled.
 */
int record_read(struct export **made, const char *name, struct error *err);

#endif
