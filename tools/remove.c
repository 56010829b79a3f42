/* SPDX-License-Identifier: MIT */
/*
 * ublkctl remove: has ublkd remove an export.  A device that is none of its
 * exports, and each where there is no ublkd, is stopped and removed from here, with or
 * without a server left.
 */
#include "engine/control.h"
#include "engine/log.h"
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WAIT_STEP_MS 500u

static const struct option_def remove_options[] = {
	{ "force", OPTION_FLAG, NULL, "off", 0, 0,
	  "even if it is mounted or held by another device" },
	{ "wait", OPTION_FLAG, NULL, "off", 0, 0, "wait until it is not, and then do it" },
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
				 "it first, or give --force or --wait",
				 path);
	return 0;
}

static int remove_device(const char *text, bool force, bool wait)
{
	struct ublk_dev_info info;
	struct control control;
	struct error err;
	int ret;
	uint32_t id;

	ret = client_open_driver(text, &control, &id);
	if (ret)
		return ret;
	ret = control_get_info(&control, id, &info, &err);
	while (!ret && !force) {
		ret = check_unused(id, &err);
		if (ret != -EBUSY || !wait)
			break;
		usleep(WAIT_STEP_MS * 1000);
		ret = control_get_info(&control, id, &info, &err);
	}
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

/* What text means to ublkd: a name, or (*device) a device of another server; NULL: nothing. */
static json_t *find_name(struct client *client, const char *text, bool *device, struct error *err)
{
	json_t *export, *name;
	struct error ignored;
	uint32_t id;

	*device = false;
	/* What can only be a name goes as it is. */
	if (!strchr(text, '/') && cli_device_id(text, &id, &ignored))
		return json_string(text);
	if (client_find(client, text, &export, err))
		return NULL;
	*device = client_is_foreign(export);
	name = json_incref(json_object_get(export, *device ? "device" : "name"));
	json_decref(export);
	return name;
}

static int remove_export(struct client *client, const char *text, bool force, bool wait)
{
	struct error err;
	bool device;
	json_t *name = find_name(client, text, &device, &err);
	int status = EXIT_DONE;

	if (!name) {
		/* What is not there is removed already; the path of something else is a mistake. */
		if (err.code != ENOENT || (strchr(text, '/') && !access(text, F_OK)))
			status = client_fail(client, &err);
	} else if (device) {
		status = remove_device(json_string_value(name), force, wait);
		json_decref(name);
	} else if (client_call(client, "Remove",
			       json_pack("{s:o, s:b, s:b}", "name", name, "force", (int)force,
					 "wait", (int)wait),
			       CLIENT_FOR_EVER, NULL, &err)) {
		status = client_fail(client, &err);
	}
	return status;
}

static int remove_main(const struct verb *verb, int argc, char **argv)
{
	bool force = false, wait = false;
	const struct client_flag flags[] = { { "force", &force },
					     { "wait", &wait },
					     { NULL, NULL } };
	struct client_words words = { .flags = flags };
	struct client client;
	struct error err;
	int operand, status, ret;

	status = client_parse(verb, remove_options, &words, argc, argv, 1, 1,
			      "one device or export", &operand);
	if (status)
		return status;
	if (force && wait) {
		error_set(&err, EINVAL, "give --force or --wait, not both");
		return cli_fail(EXIT_USAGE, &err);
	}
	ret = client_open(&client, words.socket, &err);
	if (client_is_absent(ret) && !words.socket)
		return remove_device(argv[operand], force, wait);
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	status = remove_export(&client, argv[operand], force, wait);
	client_close(&client);
	return status;
}

const struct verb verb_remove = {
	.name = "remove",
	.arguments = "[OPTIONS] NAME|DEVICE",
	.summary = "remove an export, or another ublk device",
	.main = remove_main,
};
