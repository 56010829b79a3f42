/* SPDX-License-Identifier: MIT */
/*
 * An NBD server (nbdkit) of the test's own, at a Unix socket.  One at a time; the
 * thread that starts it must not end before it.
 */
#ifndef UBLKD_REMOTE_H
#define UBLKD_REMOTE_H

#include <stdbool.h>

/*
 * Starts `nbdkit WORDS` at the socket (NULL-terminated words, 14 at most).  Returns
 * the socket's path; NULL: there is no nbdkit.  Fails the test where it does not
 * come up.
 */
const char *remote_start(const char *socket, const char *const *words);
/* Gives the file at `path`, which each connection opens anew; the first call starts it. */
const char *remote_file(const char *path);
/* Kills it, as a crash would. */
void remote_kill(void);
/* Stops it where it stands; then lets it go on. */
void remote_freeze(bool on);
/* Ends it, if there is one. */
void remote_end(void);

#endif
