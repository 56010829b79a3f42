/* SPDX-License-Identifier: MIT */
/*
 * The host of a backend, where it is the process itself.
 */
#ifndef UBLKD_HOST_H
#define UBLKD_HOST_H

#include "engine/backend.h"

/* Does each with this process's own rights. */
extern const struct backend_host host_here;

/*
 * memfd_create(2) with flags and close-on-exec, and as vm.memfd_noexec may demand
 * it.  Returns a descriptor or -errno.  Any thread.
 */
int host_memfd(const char *name, unsigned flags);

#endif
