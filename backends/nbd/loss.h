/* SPDX-License-Identifier: MIT */
/*
 * Whether acknowledged writes may be lost: what no flush has covered, and whether the server
 * may have forgotten it. A loss that is certain is for good: every flush fails from then on.
 * Any thread.
 */
#ifndef UBLKD_NBD_LOSS_H
#define UBLKD_NBD_LOSS_H

#include "backends/nbd/nbd.h"

/* Whether there may be writes that only a flush makes durable. */
bool nbd_flush_matters(const struct nbd *nbd);
/* 1 while a connection was lost whose acknowledged writes no flush has covered since. */
uint64_t *nbd_suspect_gauge(const struct nbd *nbd);
/* Whether an earlier worker's writes are not flushed yet, which last as long as its connection. */
static inline bool nbd_has_inherited(struct nbd *nbd)
{
	return nbd->has_predecessor && atomic_load(&nbd->journal.stable) <= NBD_INHERITED;
}
/* A connection is lost: whether with the server, only a flush will tell. */
void nbd_suspect_loss(struct nbd *nbd);
/* A flush has succeeded that covers so much, or an earlier loss was reported. */
void nbd_flushed(struct nbd *nbd, uint64_t covered);
/* A flush or replay failed for good: what was acknowledged may be lost. */
void nbd_set_lost(struct nbd *nbd, int code, const char *what);

#endif
