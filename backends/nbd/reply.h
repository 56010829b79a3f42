/* SPDX-License-Identifier: MIT */
/*
 * The server's replies, simple and structured ones: each finds its command by its cookie, and data
 * gets to its place. No system call here: wire.c receives the bytes.
 *
 * Thread: the queue's.
 */
#ifndef UBLKD_NBD_REPLY_H
#define UBLKD_NBD_REPLY_H

#include <stdbool.h>
#include <stddef.h>

struct nbd_commands;
struct nbd_replies;

/*
 * Replies to commands, which outlive it. *fault is set to the reason when the connection is to be
 * given up, by a command's done too: then no further reply is taken. Returns NULL without memory.
 */
struct nbd_replies *nbd_replies_create(struct nbd_commands *commands, const char **fault);
void nbd_replies_destroy(struct nbd_replies *replies);

/* Forgets what the former socket has sent. structured: the new one has structured replies. */
void nbd_replies_reset(struct nbd_replies *replies, bool structured);

/* Where the next bytes from the server are to go; all: the whole length, at once. */
void *nbd_replies_where(const struct nbd_replies *replies, size_t *length, bool *all);
/* Takes as many bytes, which have come there. */
void nbd_replies_came(struct nbd_replies *replies, size_t bytes);

#endif
