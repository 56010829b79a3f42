/* SPDX-License-Identifier: MIT */
/*
 * The host of a backend: the process itself, or one that has more rights than the
 * backend's and uses them for what the export names, and for nothing else.
 */
#ifndef UBLKD_HOST_LOCAL_H
#define UBLKD_HOST_LOCAL_H

#include "engine/backend.h"

/* Does each with this process's own rights. */
extern const struct backend_host host_here;

/*
 * memfd_create(2) with flags and close-on-exec, and as vm.memfd_noexec may demand
 * it.  Returns a descriptor or -errno.  Any thread.
 */
int host_memfd(const char *name, unsigned flags);

/*
 * Whether the export needs that (backend.h, needs()), as the backend's host with these
 * arguments.  For a host that is asked by a process which it does not trust: flags and
 * mode that no backend has use for are refused, too.  Any thread.
 */
bool host_may_open(const struct instance *instance, const char *path, int flags, unsigned mode);
bool host_may_remove(const struct instance *instance, const char *path);
bool host_may_connect(const struct instance *instance, const char *path);

#endif
