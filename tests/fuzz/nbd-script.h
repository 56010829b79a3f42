/* SPDX-License-Identifier: MIT */
/*
 * An NBD server that does what a script of bytes says, and serves as it should
 * when the script has ended.
 *
 * Each message that it is about to send takes the next step of the script: it is
 * sent as it is, cut, changed, replaced by other bytes, sent twice or not at all;
 * or the server falls silent, is slow, or dies and comes back without what was not
 * flushed.  So a script of a few bytes reaches each place of the protocol, and
 * any bytes are a script.
 *
 * It runs in steps on its caller's thread, in the stage's time.
 */
#ifndef UBLKD_NBD_SCRIPT_H
#define UBLKD_NBD_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRIPT_BLOCK  4096u
#define SCRIPT_BLOCKS 64u
#define SCRIPT_SIZE   (SCRIPT_BLOCK * SCRIPT_BLOCKS)

/* A step is a byte, the act in its low half; what an act needs follows. */
enum script_act {
	ACT_SEND = 0, /* it, and as many more messages as the high half says, as they are */
	ACT_CUT = 6,  /* 2 bytes: so much of it, modulo its length; then the end */
	ACT_HANG,    /* 2 bytes: so much of it, and nothing any more; the high half: nor reads on */
	ACT_PATCH,   /* 1 byte: where; high half: how many bytes follow, to be added (xor) */
	ACT_REPLACE, /* 1 byte: how many bytes follow, which are sent instead */
	ACT_APPEND,  /* 1 byte: how many bytes follow, which are sent after it */
	ACT_TWICE,
	ACT_DROP,
	ACT_DIE,   /* high half: for how many times 100 ms; 1 byte: which blocks are lost */
	ACT_PAUSE, /* 1 byte: for how many times 10 ms this connection is not served */
	ACT_FIELD, /* 1 byte: which of the well-known lies */
};

struct script_setup {
	const char *socket;
	const uint8_t *data; /* the script */
	size_t size;
	bool honest;  /* only acts that a good server on a bad day may be seen to do */
	bool verbose; /* tell on stderr what it does */
	bool durable; /* what it acknowledges survives its death */
	bool multi_conn, structured, read_only, no_zeroes, no_fua;
};

/* Begins to serve.  One at a time. */
void script_start(const struct script_setup *setup);
/* Does what there is to do.  Returns whether that was anything. */
bool script_step(void);
/* When it will go on by itself; UINT64_MAX: it waits for others. */
uint64_t script_next_ns(void);
void script_end(void);

/* How often something was done that loses a connection, or holds it up. */
unsigned script_mishaps(void);
/* Its stable storage: SCRIPT_SIZE bytes. */
const uint8_t *script_stable(void);

#endif
