/* SPDX-License-Identifier: MIT */
#include "engine/ring_policy.h"
#include "common/error.h"
#include "common/small_file.h"

#include <errno.h>
#include <stdio.h>

#define POLICY_DIRECTORY "/proc/sys/kernel"

/* The settings as read last: a worker reads them before it enters a root without /proc. */
static struct {
	int disabled; /* kernel.io_uring_disabled, 6.6 */
	int group;    /* kernel.io_uring_group; -1: none */
} policy = { .group = -1 };

static bool read_setting(const char *directory, const char *name, int *value)
{
	char path[128], text[16];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return small_file_line(path, text, sizeof(text)) > 0 && sscanf(text, "%d", value) == 1;
}

void ring_policy_read(const char *directory)
{
	int disabled, group = -1;

	if (!directory)
		directory = POLICY_DIRECTORY;
	if (!read_setting(directory, "io_uring_disabled", &disabled))
		return;
	read_setting(directory, "io_uring_group", &group);
	policy.disabled = disabled;
	policy.group = group;
}

/* io_uring_allowed() in io_uring/io_uring.c of Linux 6.6 */
bool ring_policy_refuses(gid_t gid, bool privileged, struct error *err)
{
	if (policy.disabled == 2) {
		error_set(err, EPERM,
			  "io_uring is switched off (kernel.io_uring_disabled is 2): "
			  "sysctl kernel.io_uring_disabled=0");
		return true;
	}
	if (policy.disabled != 1 || privileged || (policy.group >= 0 && (gid_t)policy.group == gid))
		return false;
	error_set(err, EPERM,
		  "io_uring is switched off for processes without privilege "
		  "(kernel.io_uring_disabled is 1, kernel.io_uring_group is %d): "
		  "sysctl kernel.io_uring_group=%u, or kernel.io_uring_disabled=0",
		  policy.group, (unsigned)gid);
	return true;
}
