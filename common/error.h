/* SPDX-License-Identifier: MIT */
/*
 * Why something failed, in one line for a person.
 *
 * A function that can fail for reasons a user must hear takes a struct error,
 * fills it where the failure is decided, and returns the negative errno.  The
 * caller that gives up prints it, once.
 */
#ifndef UBLKD_ERROR_H
#define UBLKD_ERROR_H

#include <stddef.h>

struct error {
	int code;        /* errno, positive; 0: nothing failed */
	char text[1020]; /* a line; a longer one has lost its middle */
};

/*
 * Fills err (may be NULL) with code (an errno of either sign) and the line that
 * fmt makes: no newline, the thing and the cause first, then what to do.
 * Control characters in the line become '?'.  Returns -|code|.  Any thread.
 */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts the line that fmt makes and ": " in front of err's.  Returns -err->code. */
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Replaces, in place, each byte of a control character, also one that sets the direction
 * of text, and each byte that is no UTF-8, by '?'.
 */
void text_make_printable(char *text);

/*
 * Writes text to out, at most out_size bytes: control characters, what is no
 * UTF-8, and backslashes as \xNN.  Returns out.
 */
const char *text_escape(const char *text, char *out, size_t out_size);

#endif
