/* SPDX-License-Identifier: MIT */
/*
 * ublkctl resize: asks the 'ublkctl run' that serves a device to look again how
 * big its storage is.
 */
#include "engine/control.h"
#include "tools/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 10000u
#define STEP_MS 50u

static int size_of(struct control *control, uint32_t id, uint64_t *bytes, struct error *err)
{
	struct ublk_dev_params params = { 0 };
	int ret = control_get_params(control, id, &params, err);

	if (!ret)
		*bytes = params.basic.dev_sectors << UBLK_SECTOR_SHIFT;
	return ret;
}

/* A signal to anything but 'ublkctl run' might end it. */
static int ask_server(int pid, struct error *err)
{
	char path[64], name[32] = "";
	FILE *f;

	if (pid <= 0)
		return error_set(err, ESRCH, "nobody serves it");
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (!fgets(name, sizeof(name), f))
			*name = 0;
		fclose(f);
	}
	name[strcspn(name, "\n")] = 0;
	if (strcmp(name, "ublkctl"))
		return error_set(err, EOPNOTSUPP,
				 "process %d ('%s') serves it, not ublkctl: use its own tools", pid,
				 name);
	if (kill(pid, SIGUSR1))
		return error_set(err, errno, "process %d: %s", pid, strerror(errno));
	return 0;
}

static int resize(struct control *control, uint32_t id, struct error *err)
{
	struct ublk_dev_info info;
	uint64_t before, after;
	char was[24], is[24];
	uint64_t features;
	int ret;

	ret = control_get_info(control, id, &info, err);
	if (!ret)
		ret = control_get_features(control, &features, err);
	if (!ret && !(features & UBLK_FEAT_UPDATE_SIZE))
		ret = error_set(
			err, EOPNOTSUPP,
			"this kernel cannot resize a live device (Linux 6.16 can): export it "
			"anew");
	if (!ret)
		ret = size_of(control, id, &before, err);
	if (!ret)
		ret = ask_server(info.server_pid, err);
	if (ret)
		return error_prefix(err, UBLK_BLOCK_PREFIX "%u", id);
	after = before;
	for (unsigned ms = 0; ms < WAIT_MS && after == before && !ret; ms += STEP_MS) {
		usleep(STEP_MS * 1000);
		ret = size_of(control, id, &after, err);
	}
	if (ret)
		return ret;
	size_format(before, was, sizeof(was));
	if (after == before)
		printf(UBLK_BLOCK_PREFIX "%u: %s as before; its server's log tells more\n", id,
		       was);
	else
		printf(UBLK_BLOCK_PREFIX "%u: %s, was %s\n", id, size_format(after, is, sizeof(is)),
		       was);
	return 0;
}

static int resize_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def *const tables[] = { NULL };
	struct cli cli = { .verb = verb, .tables = tables };
	struct control control;
	struct error err;
	uint32_t id;
	int ret;

	if (cli_parse_device(&cli, argc, argv, &id, &err))
		return cli_fail(EXIT_USAGE, &err);
	if (control_open(&control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = resize(&control, id, &err);
	control_close(&control);
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

const struct verb verb_resize = {
	.name = "resize",
	.arguments = "DEVICE",
	.summary = "have a device follow its storage that has grown",
	.main = resize_main,
};
