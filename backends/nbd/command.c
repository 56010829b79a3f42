/* SPDX-License-Identifier: MIT */
#include "backends/nbd/command.h"

#include <errno.h>
#include <stdlib.h>

static bool is_large(const struct nbd_command *c)
{
	return c->type == NBD_COMMAND_READ && c->length >= NBD_DIRECT_BYTES;
}

unsigned nbd_commands_add(struct nbd_commands *c, const struct nbd_command *command)
{
	unsigned index = c->idle[--c->nr_idle];
	struct nbd_command_entry *e = &c->entries[index];

	e->command = *command;
	e->uses++;
	e->in_flight = true;
	e->is_sent = false;
	c->nr_large += is_large(command);
	if (command->type == NBD_COMMAND_READ)
		c->last_large = is_large(command);
	return index;
}

void nbd_commands_end(struct nbd_commands *c, struct nbd_command_entry *e, int error)
{
	c->nr_large -= is_large(&e->command);
	e->in_flight = false;
	c->idle[c->nr_idle++] = (uint16_t)(e - c->entries);
	e->command.done(e->command.context, &error);
}

int nbd_commands_create(struct nbd_commands *c, unsigned nr)
{
	*c = (struct nbd_commands){
		.nr = nr,
		.entries = calloc(nr, sizeof(*c->entries)),
		.idle = calloc(nr, sizeof(*c->idle)),
	};
	if (c->entries && c->idle)
		return 0;
	nbd_commands_destroy(c);
	return -ENOMEM;
}

void nbd_commands_destroy(struct nbd_commands *c)
{
	free(c->idle);
	free(c->entries);
	c->idle = NULL;
	c->entries = NULL;
}

void nbd_commands_reset(struct nbd_commands *c)
{
	c->nr_large = c->nr_idle = 0;
	/* uses goes on: a reply to a command of the former socket finds none. */
	for (unsigned i = 0; i < c->nr; i++) {
		c->entries[i].in_flight = false;
		c->idle[c->nr_idle++] = (uint16_t)i;
	}
}
