/* SPDX-License-Identifier: MIT */
/*
 * A file behind an NBD server, for backends whose storage is somewhere else.
 */
#ifndef UBLKD_REMOTE_H
#define UBLKD_REMOTE_H

/*
 * The path of a Unix socket at which a server (nbdkit) gives the file at `path`;
 * NULL: there is no nbdkit.  It is started by the first call, fails the test where
 * it does not come up, and stays; each connection opens the file anew.  Not
 * between fake_start() and fake_stop().  Static memory.
 */
const char *remote_file(const char *path);
/* Ends the server, if there is one. */
void remote_end(void);

#endif
