/* SPDX-License-Identifier: MIT */
/*
 * The commands in flight on a wire. A cookie is an entry's index and how often the entry was used:
 * a reply that is late, comes twice or is made up finds no command.
 *
 * Thread: the queue's.
 */
#ifndef UBLKD_NBD_COMMAND_H
#define UBLKD_NBD_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_DIRECT_BYTES (16u << 10) /* of data that is received into its place */

/* NBD protocol, "Request types" and "Command flags"; flags as LIBNBD_CMD_FLAG_*. */
enum nbd_command_type {
	NBD_COMMAND_READ = 0,
	NBD_COMMAND_WRITE = 1,
	NBD_COMMAND_FLUSH = 3,
	NBD_COMMAND_TRIM = 4,
	NBD_COMMAND_WRITE_ZEROES = 6,
};

struct nbd_command {
	enum nbd_command_type type;
	uint16_t flags;
	uint32_t length;
	uint64_t offset;
	/*
	 * A write's source, or room for a read's data: the wire's until done is called or it is
	 * closed.
	 */
	void *data;
	/*
	 * A read's; data at first.  Set before done is called with 0: where its data has come,
	 * which may be overwritten once done returns; NULL: all of it is zero.
	 */
	const void **came;
	/* Set to queue_now_ns() when the command is given to the kernel. */
	uint64_t *sent_ns;
	/* Called once, with 0 or an errno in *error, unless the wire is closed before. */
	int (*done)(void *context, int *error);
	void *context;
};

struct nbd_command_entry {
	struct nbd_command command;
	uint64_t uses;
	bool in_flight;
	bool is_sent; /* given to the kernel: only then there can be a reply */
};

/* Owner: the wire. */
struct nbd_commands {
	unsigned nr;
	struct nbd_command_entry *entries;
	uint16_t *idle; /* indices of entries that are not in flight */
	unsigned nr_idle;
	unsigned nr_large; /* reads in flight whose data may be received into its place */
	bool last_large;   /* the last read was such a one */
};

/* For nr commands at a time, at most 65,536. Returns 0, or -ENOMEM. */
int nbd_commands_create(struct nbd_commands *commands, unsigned nr);
void nbd_commands_destroy(struct nbd_commands *commands);

/* Forgets all, for a new socket: the cookies of the former one find nothing from now on. */
void nbd_commands_reset(struct nbd_commands *commands);

/* Puts a copy of the command in flight. Returns its index. */
unsigned nbd_commands_add(struct nbd_commands *commands, const struct nbd_command *command);

/* The cookie to send the command at index with. There can be a reply to it from now on. */
static inline uint64_t nbd_commands_cookie(struct nbd_commands *c, unsigned index)
{
	struct nbd_command_entry *e = &c->entries[index];

	e->is_sent = true;
	return e->uses << 16 | index;
}

/* The command that a reply has the cookie of; NULL: none. */
static inline struct nbd_command_entry *nbd_commands_find(struct nbd_commands *c, uint64_t cookie)
{
	struct nbd_command_entry *e = &c->entries[cookie & UINT16_MAX];

	if ((cookie & UINT16_MAX) >= c->nr || !e->in_flight || !e->is_sent ||
	    e->uses != cookie >> 16)
		return NULL;
	return e;
}

/* Ends it, with 0 or an errno. */
void nbd_commands_end(struct nbd_commands *commands, struct nbd_command_entry *entry, int error);

#endif
