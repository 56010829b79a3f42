/* SPDX-License-Identifier: MIT */
/*
 * Folders that ublkd makes.  Any thread.
 */
#ifndef UBLKD_FOLDER_H
#define UBLKD_FOLDER_H

#include <stdbool.h>
#include <sys/types.h>

struct error;
struct stat;

/*
 * Whether only root, or the user of this process, can write the file or folder of that
 * status.  The group root is root's own.
 */
bool folder_only_root_writes(const struct stat *status);

/*
 * Makes the folder with just that mode, whatever the umask is; one that is there
 * already stays as it is, and is refused where other users can write it, as they could
 * replace what is in it.  Returns 0, or what the system said (-EPERM: others can write
 * it; -ENOTDIR) with err filled.
 */
int folder_make(const char *path, mode_t mode, struct error *err);

/*
 * Writes the folder to disk: a file's name, new or gone, is there only with it.
 * Returns 0, or what the system said with err filled.
 */
int folder_sync(const char *path, struct error *err);

#endif
