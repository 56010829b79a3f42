/* SPDX-License-Identifier: MIT */
/*
 * Names of exports, and the symlinks /dev/ublk/NAME to their devices.
 *
 * udev makes the same symlinks by deploy/60-ublkd.rules.in, from the records in NAME_RECORDS; both
 * may make one.
 * Any thread.
 */
#ifndef UBLKD_NAME_H
#define UBLKD_NAME_H

#include <stdbool.h>

struct error;

#define NAME_MAX_LENGTH 64u
#define NAME_DIRECTORY  "/dev/ublk"        /* the links: NAME -> ../ublkbN */
#define NAME_RECORDS    "/run/ublkd/names" /* files ublkbN: UBLKD_NAME=NAME */

/*
 * A name has at most NAME_MAX_LENGTH letters, digits, dots, dashes and underscores. It does not
 * begin with a dot or a dash, and cannot be mistaken for a device (0, ublkb0, ublkc0, ublk-control)
 * or the link of a partition (NAME-part1).  Returns 0, or -EINVAL with err filled.
 */
int name_check(const char *name, struct error *err);

/*
 * Makes a name from a URI: of a file its last component, else the whole URI, with a dash for
 * characters that a name cannot have.  The same URI always gives the same name; two URIs may give
 * the same name.
 */
void name_from_uri(const char *uri, char name[NAME_MAX_LENGTH + 1]);

/*
 * Makes NAME_DIRECTORY/name point to device ("/dev/ublkb0"), atomically, in place of a symlink to
 * another ublk device.  Returns 0, or with err filled: -EEXIST (the path exists and is no link to a
 * ublk device), or another -errno.
 */
int name_link(const char *name, const char *device, struct error *err);

/* Removes that symlink; 0 also if there is none, or one to another device. */
int name_unlink(const char *name, const char *device, struct error *err);

/* The same in another directory, for tests. */
int name_link_in(const char *directory, const char *name, const char *device, struct error *err);
int name_unlink_in(const char *directory, const char *name, const char *device, struct error *err);

/*
 * Records name and backend (a scheme of at most 24 characters) of a device for udev.  The record
 * must exist before the device starts and as long as the device, or udev would remove its symlinks.
 * partitions: udev has the kernel follow the partition table.  directory: NAME_RECORDS except in
 * tests.  Returns 0, or -errno with err filled.
 */
int name_record(const char *directory, const char *device, const char *name, const char *backend,
		bool partitions, struct error *err);

/* Removes that record; 0 where there is none. */
int name_forget(const char *directory, const char *device, struct error *err);

/*
 * The recorded name of a device ("ublkb0", or its path).  Returns 0, or with err filled: -ENOENT
 * (no record), -EINVAL (no valid name in it), or another -errno.
 */
int name_lookup(const char *directory, const char *device, char name[NAME_MAX_LENGTH + 1],
		struct error *err);

#endif
