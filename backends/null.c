/* SPDX-License-Identifier: MIT */
/*
 * null: reads give zeroes, writes vanish.  For measuring everything around it.
 */
#include "engine/backend.h"

static int null_check(const struct instance *instance, struct error *err)
{
	uint64_t size;

	return instance_size(instance, &size, err);
}

static int null_open(struct instance *instance, struct error *err)
{
	struct backend_limits *l = &instance->limits;

	l->logical_block = instance->block_size ? instance->block_size : 512;
	l->physical_block = 4096;
	l->max_discard = l->max_write_zeroes = 1u << 30;
	l->read_only = instance->read_only;
	return instance_size(instance, &l->size, err);
}

static void null_close(struct instance *instance)
{
	(void)instance;
}

static void null_submit(struct io *io)
{
	if (io->op == IO_READ)
		io_complete_zeroes(io);
	else
		io_complete(io, (int)io->length);
}

static const struct backend null_backend = {
	.scheme = "null",
	.syntax = "null:SIZE",
	.summary = "nothing: reads give zeroes, writes vanish",
	.access = ACCESS_NONE,
	.check = null_check,
	.open = null_open,
	.close = null_close,
	.submit = null_submit,
};
BACKEND_REGISTER(null_backend);
