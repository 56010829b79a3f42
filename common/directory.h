/* SPDX-License-Identifier: MIT */
/*
 * Directories that must belong to root alone: made, checked, synced.  Any thread.
 */
#ifndef UBLKD_DIRECTORY_H
#define UBLKD_DIRECTORY_H

#include <stdbool.h>
#include <sys/types.h>

struct error;
struct stat;

/*
 * Whether only root, or the user of this process, can write the file or directory of that
 * status.  The group root is root's own.
 */
bool directory_only_root_writes(const struct stat *status);

/*
 * Makes the directory with just that mode, whatever the umask is; one that is there
 * already stays as it is, and is refused where other users can write it, as they could
 * replace what is in it.  Returns 0, or what the system said (-EPERM: others can write
 * it; -ENOTDIR) with err filled.
 */
int directory_make(const char *path, mode_t mode, struct error *err);

/*
 * Writes the directory to disk: a file's name, new or gone, is there only with it.
 * Returns 0, or what the system said with err filled.
 */
int directory_sync(const char *path, struct error *err);

#endif
