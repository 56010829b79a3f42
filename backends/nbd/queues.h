/* SPDX-License-Identifier: MIT */
/*
 * The queues of an export, as they find each other.
 */
#ifndef UBLKD_NBD_QUEUES_H
#define UBLKD_NBD_QUEUES_H

#include "backends/nbd/nbd.h"

/* A queue serves from now on; nbd_replay_close_queue() ends that. Its thread. */
void nbd_queues_add(struct nbd_queue *q);
/* Has every queue do a round. Any thread; the gate is held for the second one. */
void nbd_queues_wake(struct nbd *nbd);
void nbd_queues_wake_locked(struct nbd *nbd);

#endif
