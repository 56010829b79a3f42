/* SPDX-License-Identifier: MIT */
/*
 * The sandbox of a worker, for the rest of its life: a user without rights, a
 * root directory with nothing in it but what its backend needs, and the system calls
 * that it makes.
 *
 *   sandbox.c        the order of it; users and capabilities
 *   sandbox_root.c   the root directory
 *   sandbox_calls.c  the system calls
 */
#ifndef UBLKD_SANDBOX_H
#define UBLKD_SANDBOX_H

#include <sys/types.h>

#include "engine/backend.h"
#include "worker/owner.h"

struct sandbox {
	uid_t uid; /* not root's, either of them */
	gid_t gid;
	struct owner owner;              /* with whose rights files are copied into it */
	const struct instance *instance; /* spec_to_instance(), not open: what its backend needs */
};

/*
 * Confines the process.  Call it as root, from the only thread, once it is known
 * what is to be served, and before anything that comes from elsewhere is looked at.
 * Descriptors that are open stay so, and are all that is left of the host; every
 * signal has its default again and none is blocked, but SIGPIPE is ignored.  The
 * process is prepared for serving, too (common/process.h).
 *
 * In it, files that the backend needs (keys, certificates) are copies, as they were
 * now; they are at the same paths, a relative one's being below the root.
 *
 * A system call that is not allowed ends the process (SIGSYS), and the kernel's log
 * has a line with its number ("type=1326 … syscall=N").  Where this is built with a
 * sanitizer, system calls are not confined: a sanitizer needs many more.
 *
 * Returns 0, or -errno with err filled: the process is confined in part then, and
 * must end.
 */
int sandbox_enter(const struct sandbox *sandbox, struct error *err);

/*
 * Once every queue is there (serving_start()): no further io_uring, which would not
 * be confined as the queues' are, and no further thread is made by this process.  Any
 * thread; it holds for all.  Returns 0, or -errno with err filled.
 */
int sandbox_seal(struct error *err);

/* Whether system calls are limited in this build. */
bool sandbox_limits_calls(void);

#endif
