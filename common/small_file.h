/* SPDX-License-Identifier: MIT */
/*
 * Small files that the kernel writes: attributes in /sys, settings and facts in /proc.
 * Any thread.
 */
#ifndef UBLKD_SMALL_FILE_H
#define UBLKD_SMALL_FILE_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Reads at most size - 1 bytes, in one read(), and ends them with a NUL byte.  Returns how
 * many bytes, or -errno; out is "" then.
 */
ssize_t small_file_read(const char *path, char *out, size_t size);

/* The same, of the first line and without its end.  Returns the line's length, or -errno. */
ssize_t small_file_line(const char *path, char *out, size_t size);

#endif
