/* SPDX-License-Identifier: MIT */
/*
 * A member of control-group may name any path, and ublkd is root: a path must not open
 * more to a member than the member could open alone.  Comparing permission bits
 * would miss access lists, security modules and races, so the kernel decides: the open
 * runs in a thread that has the effective user and groups of the member, which takes
 * the effective capabilities from that thread as well.
 *
 * The C library's functions change all threads of a process; the system calls below
 * change one.
 */
#include "worker/owner.h"

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where user numbers once had 16 bits the calls of this name still take those. */
#ifdef SYS_setresuid32
#define CALL_SETRESUID SYS_setresuid32
#define CALL_SETRESGID SYS_setresgid32
#define CALL_SETGROUPS SYS_setgroups32
#else
#define CALL_SETRESUID SYS_setresuid
#define CALL_SETRESGID SYS_setresgid
#define CALL_SETGROUPS SYS_setgroups
#endif

json_t *owner_to_json(const struct owner *owner)
{
	json_t *groups = json_array();

	for (unsigned i = 0; i < owner->nr_groups; i++)
		json_array_append_new(groups, json_integer(owner->groups[i]));
	return json_pack("{s:I, s:I, s:o}", "uid", (json_int_t)owner->uid, "gid",
			 (json_int_t)owner->gid, "groups", groups);
}

static int read_id(const json_t *json, uint32_t *id)
{
	json_int_t number = json_integer_value(json);

	/* The last one means "no change" to the kernel. */
	if (!json_is_integer(json) || number < 0 || number >= UINT32_MAX)
		return -EBADMSG;
	*id = (uint32_t)number;
	return 0;
}

int owner_from_json(const json_t *json, struct owner *owner)
{
	const json_t *groups = json_object_get(json, "groups");

	*owner = (struct owner){ 0 };
	if (!json)
		return 0;
	if (read_id(json_object_get(json, "uid"), &owner->uid) ||
	    read_id(json_object_get(json, "gid"), &owner->gid) || !json_is_array(groups) ||
	    json_array_size(groups) > OWNER_GROUPS)
		return -EBADMSG;
	for (unsigned i = 0; i < json_array_size(groups); i++)
		if (read_id(json_array_get(groups, i), &owner->groups[i]))
			return -EBADMSG;
	owner->nr_groups = (unsigned)json_array_size(groups);
	return 0;
}

bool owner_allows(const struct owner *owner, const struct owner *caller)
{
	return !caller->uid || caller->uid == owner->uid;
}

static int change(const struct owner *to)
{
	/* The user last: with it the right to change the others goes. */
	if (syscall(CALL_SETGROUPS, to->nr_groups, to->groups) ||
	    syscall(CALL_SETRESGID, -1, to->gid, -1) || syscall(CALL_SETRESUID, -1, to->uid, -1))
		return -errno;
	return 0;
}

int owner_become(const struct owner *owner)
{
	return owner->uid ? change(owner) : 0;
}

int owner_leave(const struct owner *owner)
{
	static const struct owner root;

	if (!owner->uid)
		return 0;
	/* The user first: it brings the right to change the others back. */
	if (syscall(CALL_SETRESUID, -1, 0, -1))
		return -errno;
	return change(&root);
}
