/* SPDX-License-Identifier: MIT */
/*
 * Folders that ublkd makes.  Any thread.
 */
#ifndef UBLKD_FOLDER_H
#define UBLKD_FOLDER_H

#include <sys/types.h>

struct error;

/*
 * Makes the folder with just that mode, whatever the umask is; one that is there
 * already stays as it is.  Returns 0, or what the system said with err filled.
 */
int folder_make(const char *path, mode_t mode, struct error *err);

/*
 * Writes the folder to disk: a file's name, new or gone, is there only with it.
 * Returns 0, or what the system said with err filled.
 */
int folder_sync(const char *path, struct error *err);

#endif
