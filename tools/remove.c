/* SPDX-License-Identifier: MIT */
/*
 * ublkctl remove: stops a device and removes it, with or without a server left.
 */
#include "engine/control.h"
#include "engine/log.h"
#include "tools/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct option_def remove_options[] = {
	{ "force", OPTION_FLAG, NULL, "off", 0, 0,
	  "even if it is mounted or held by another device" },
	{ .name = NULL },
};

/* An exclusive open is refused while a mount, swap or another device holds it. */
static int check_unused(uint32_t id, struct error *err)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), UBLK_BLOCK_PREFIX "%u", id);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	else if (errno == EBUSY)
		return error_set(err, EBUSY,
				 "%s is in use (mounted, or held by another device): let go of "
				 "it first, or give --force",
				 path);
	return 0;
}

static int remove_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def *const tables[] = { remove_options, NULL };
	bool force = false;
	struct cli cli = { .verb = verb, .tables = tables, .set = cli_set_flag, .context = &force };
	struct ublk_dev_info info;
	struct control control;
	struct error err;
	int ret;
	uint32_t id;

	if (cli_parse_device(&cli, argc, argv, &id, &err))
		return cli_fail(EXIT_USAGE, &err);
	if (control_open(&control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = control_get_info(&control, id, &info, &err);
	if (!ret && !force)
		ret = check_unused(id, &err);
	if (!ret)
		ret = control_stop(&control, id, &err);
	if (!ret) {
		/* By force it goes now, and the rest of it when its user lets go. */
		ret = force ? control_delete_async(&control, id, &err) : -EOPNOTSUPP;
		if (ret == -EOPNOTSUPP)
			ret = control_delete(&control, id, &err);
		/* A server that sees its device stop removes it by itself, and may be first. */
		if (ret == -ENODEV)
			ret = 0;
	}
	control_close(&control);
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

const struct verb verb_remove = {
	.name = "remove",
	.arguments = "[--force] DEVICE",
	.summary = "stop a ublk device and remove it",
	.main = remove_main,
};
