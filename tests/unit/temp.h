/* SPDX-License-Identifier: MIT */
/*
 * Files of one test, in a directory of its own below that for temporary files.
 */
#ifndef UBLKD_TEMP_H
#define UBLKD_TEMP_H

#include <stdint.h>

/* The directory, made with the first question; valid until temp_remove(). */
const char *temp_directory(void);
/* A path in it; static memory. */
const char *temp_path(const char *name);
/* A file there, of that size, and its path; static memory. */
const char *temp_file(const char *name, uint64_t size);
/* Removes all of them. */
void temp_remove(void);

#endif
