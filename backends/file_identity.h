/* SPDX-License-Identifier: MIT */
/*
 * Identity of a file or block device: the same storage when another worker opens it.
 *
 * The text is "KIND DEV:INO:RDEV" (all that the first version wrote), then facts, KEY=VALUE
 * or KEY, parted by blanks:
 *
 *   fs=       the file system's own identifier, where that is not its device number
 *   handle=   a hash of the kernel's file handle: inode number and generation, of a btrfs
 *             the subvolume too, of NFS what the server calls the file
 *   born=     the birth time, in seconds and nanoseconds
 *   renumbers inode numbers change with each mount, and within one (FAT)
 *   disk=     the identifier of the disk (or partition) that it is, or is on
 *   seq=      of a block device: the kernel's number for this disk, until it goes away
 *   start=    of a partition: its first sector
 */
#ifndef UBLKD_FILE_IDENTITY_H
#define UBLKD_FILE_IDENTITY_H

#include <stddef.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "engine/backend.h"

/* Fills instance->identity for fd, open and with this stat.  Device's thread. */
void file_identity(struct instance *instance, int fd, const struct stat *st);

/* backend->differs. */
const char *file_identity_differs(const char *was, const char *now);

/* The value of a fact ("" where it has none).  Returns whether it is there. */
bool file_identity_fact(const char *identity, const char *key, char *value, size_t size);

#endif
