/* SPDX-License-Identifier: MIT */
/*
 * A peer that never stops sending: recv() of one descriptor always has bytes.
 */
#ifndef UBLKD_TESTS_ENDLESS_H
#define UBLKD_TESTS_ENDLESS_H

/* The descriptor, or -1; set it to -1 again. */
extern int endless_fd;

/* How often it was read since it was set to 0. */
extern unsigned endless_reads;

#endif
