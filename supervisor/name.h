/* SPDX-License-Identifier: MIT */
/*
 * Names of exports, and the links /dev/ublk/NAME to their devices.
 *
 * A udev makes the same links by deploy/60-ublkd.rules.in, from what stands in
 * NAME_RECORDS; making one twice is harmless.
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
 * A name has letters, digits and . - _ only, at most NAME_MAX_LENGTH; it begins with
 * none of . and -, looks like no device (0, ublkb0, ublkc0, ublk-control), and not like the
 * link of a partition (NAME-part1).  Returns 0, or -EINVAL with err filled.
 */
int name_check(const char *name, struct error *err);

/*
 * The name of an export that was given none: of a file its last component, else all
 * of the URI, with a dash for what no name has.  The same URI has always the same
 * name; two URIs may have one name.
 */
void name_from_uri(const char *uri, char name[NAME_MAX_LENGTH + 1]);

/*
 * Makes NAME_DIRECTORY/name point to device ("/dev/ublkb0"), at once or not at all; it may
 * be there already.  Returns 0, or with err filled: -EEXIST (something stands there
 * that is no link to a ublk device), or what the system said.
 */
int name_link(const char *name, const char *device, struct error *err);

/* Removes that link; 0 where there is none, or one to something else. */
int name_unlink(const char *name, const char *device, struct error *err);

/* The same in a directory of another path. */
int name_link_in(const char *directory, const char *name, const char *device, struct error *err);
int name_unlink_in(const char *directory, const char *name, const char *device, struct error *err);

/*
 * Puts name and backend (a scheme of at most 24 characters) on record as those of device,
 * for udev: before the device is started, and for as long as it is there, or else udev
 * would take its links away.  partitions: udev has the kernel follow the partition table.
 * directory: NAME_RECORDS but in tests.  Returns 0, or what the system said with err filled.
 */
int name_record(const char *directory, const char *device, const char *name, const char *backend,
		bool partitions, struct error *err);

/* Removes that record; 0 where there is none. */
int name_forget(const char *directory, const char *device, struct error *err);

/*
 * The name on record of device ("ublkb0", its path too).  Returns 0, or with err filled:
 * -ENOENT (there is none), -EINVAL (what is there is no name), or what the system said.
 */
int name_lookup(const char *directory, const char *device, char name[NAME_MAX_LENGTH + 1],
		struct error *err);

#endif
