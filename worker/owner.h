/* SPDX-License-Identifier: MIT */
/*
 * The user with whose rights the files of an export are opened: root for an export
 * of the configuration, otherwise the client that asked for the export.
 */
#ifndef UBLKD_OWNER_H
#define UBLKD_OWNER_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define OWNER_GROUPS 64u /* supplementary groups; further ones give no rights */

/* All zero: root, who keeps all rights. */
struct owner {
	uid_t uid;
	gid_t gid;
	unsigned nr_groups;
	gid_t groups[OWNER_GROUPS];
};

json_t *owner_to_json(const struct owner *owner);

/*
 * Returns 0, or -EBADMSG.  A NULL json is root: records and requests had no owner
 * before there were any but root.
 */
int owner_from_json(const json_t *json, struct owner *owner);

/*
 * Whether `caller` may change the storage itself of an export of that owner, as a new size
 * does: root, and the user whose rights opened it for writing.  Any thread.
 */
bool owner_allows(const struct owner *owner, const struct owner *caller);

/*
 * Gives the calling thread, and no other one, the owner's effective user and groups; it
 * loses the effective capabilities.  Returns 0, or -errno: the thread may have a part
 * of them, and must open nothing.
 */
int owner_become(const struct owner *owner);

/* Makes a thread that owner_become() changed root again, without supplementary groups. */
int owner_leave(const struct owner *owner);

#endif
