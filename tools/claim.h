/* SPDX-License-Identifier: MIT */
/*
 * Claims a block device as a mount does (O_EXCL, block/bdev.c, bd_prepare_to_claim()):
 * while the claim is held nothing can mount the device, swap to it or build another
 * device on it. A process of its own opens the device, since the first open may read
 * the partition table and wait for storage that does not answer.
 */
#ifndef UBLKD_CLAIM_H
#define UBLKD_CLAIM_H

#include <sys/types.h>

/* Owner: the caller of claim_take(). One thread. */
struct claim {
	int fd; /* to the process that has the device open; -1: there is none */
	pid_t pid;
};

/*
 * Claims the block device at path, and waits ms milliseconds at most. Returns 0, -EBUSY
 * (somebody else holds it), -ENOENT or -ENXIO (there is no such disk), -ETIMEDOUT (the
 * storage does not answer), or what else open(2), fork(2) or socketpair(2) failed with.
 * claim_release() is due after 0 only.
 */
int claim_take(struct claim *claim, const char *path, unsigned ms);
/* Ends the claim: the device is closed when this returns. */
void claim_release(struct claim *claim);

#endif
