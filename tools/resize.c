/* SPDX-License-Identifier: MIT */
/*
 * ublkctl resize: asks ublkd to resize an export. For a device of 'ublkctl run' it signals that
 * process, which then adopts the current size of its storage.
 */
#include "common/process.h"
#include "engine/control.h"
#include "tools/client.h"
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

/* SIGUSR1 kills a program that does not handle it: signal only 'ublkctl run'. */
static int ask_server(int pid, struct error *err)
{
	char name[32];

	if (pid <= 0)
		return error_set(err, ESRCH, "no process serves it");
	if (strcmp(process_name(pid, name, sizeof(name)), "ublkctl"))
		return error_set(err, EOPNOTSUPP,
				 "process %d ('%s') serves it, not ublkctl: use the tools of that "
				 "program",
				 pid, name);
	if (kill(pid, SIGUSR1))
		return error_set(err, errno, "process %d: %s", pid, strerror(errno));
	return 0;
}

/* Asks the server to adopt the size of its storage; *before: the device's size so far. */
static int ask_for_size(struct control *control, uint32_t id, uint64_t *before, struct error *err)
{
	struct ublk_dev_info info;
	uint64_t features;
	int ret = control_get_info(control, id, &info, err);

	if (ret)
		return ret;
	ret = control_get_features(control, &features, err);
	if (ret)
		return ret;
	if (!(features & UBLK_FEAT_UPDATE_SIZE))
		return error_set(err, EOPNOTSUPP,
				 "this kernel cannot resize a live device (Linux 6.16 or later is "
				 "required): remove the device and create it again");
	ret = size_of(control, id, before, err);
	return ret ? ret : ask_server(info.server_pid, err);
}

static int resize(struct control *control, uint32_t id, bool json, struct error *err)
{
	uint64_t before = 0, after;
	char was[24], is[24];
	int ret = ask_for_size(control, id, &before, err);

	if (ret)
		return error_prefix(err, UBLK_BLOCK_PREFIX "%u", id);
	after = before;
	for (unsigned ms = 0; ms < WAIT_MS && after == before; ms += STEP_MS) {
		usleep(STEP_MS * 1000);
		ret = size_of(control, id, &after, err);
		if (ret)
			return ret;
	}
	size_format(before, was, sizeof(was));
	if (json)
		cli_print_json(json_pack("{s:I}", "size", (json_int_t)after), false);
	else if (after == before)
		printf(UBLK_BLOCK_PREFIX "%u: still %s; see the log of its 'ublkctl run'\n", id,
		       was);
	else
		printf(UBLK_BLOCK_PREFIX "%u: %s, was %s\n", id, size_format(after, is, sizeof(is)),
		       was);
	return 0;
}

static int resize_device(const char *text, bool json)
{
	struct control control;
	struct error err;
	uint32_t id;
	int ret;

	ret = client_open_driver(text, &control, &id);
	if (ret)
		return ret;
	ret = resize(&control, id, json, &err);
	control_close(&control);
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

/* ---- by ublkd ---- */

struct resize_wish {
	const char *text, *size;
	bool force, json;
	bool grows; /* add the size to the current size */
};

static int resize_export(struct client *client, const struct resize_wish *wish, uint64_t bytes,
			 struct error *err)
{
	json_t *export, *parameters, *reply;
	char name[256], size[24];
	int ret = client_find(client, wish->text, &export, err);

	if (ret)
		return client_fail(client, err);
	if (client_is_foreign(export)) {
		json_decref(export);
		if (!wish->size && !wish->force)
			return resize_device(wish->text, wish->json);
		error_set(err, EINVAL,
			  "%s: ublkd does not serve this device: leave out the size and --force",
			  wish->text);
		return cli_fail(EXIT_USAGE, err);
	}
	parameters = json_pack("{s:O, s:b}", "name", json_object_get(export, "name"), "force",
			       (int)wish->force);
	if (wish->grows)
		bytes += (uint64_t)client_number(export, "size");
	if (wish->size)
		json_object_set_new(parameters, "size", json_integer((json_int_t)bytes));
	client_text(export, "name", "?", name, sizeof(name));
	json_decref(export);
	if (client_call(client, "Resize", parameters, CLIENT_FOR_EVER, &reply, err))
		return client_fail(client, err);
	if (wish->json) {
		cli_print_json(reply, false);
		return EXIT_DONE;
	}
	printf("%s: %s\n", name, client_size(reply, "size", size, sizeof(size)));
	json_decref(reply);
	return EXIT_DONE;
}

static int resize_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = {
		{ "force", OPTION_FLAG, NULL, "off", 0, 0,
		  "allow a smaller size: the data at the end is lost" },
		OPTION_DEF_JSON,
		{ .name = NULL },
	};
	struct resize_wish wish = { .text = NULL };
	const struct client_flag flags[] = { { "force", &wish.force },
					     { "json", &wish.json },
					     { NULL, NULL } };
	struct client_words words = { .flags = flags };
	struct client client;
	struct error err;
	uint64_t bytes = 0;
	int operand, status, ret;

	status = client_parse(verb, options, &words, argc, argv, 1, 2,
			      "one export or device, and a size", &operand);
	if (status)
		return status;
	wish.text = argv[operand];
	wish.size = argv[operand + 1];
	wish.grows = wish.size && *wish.size == '+';
	if (wish.size && (size_parse(wish.size + wish.grows, &bytes) || !bytes)) {
		error_set(&err, EINVAL,
			  "'%s' is not a valid size: use bytes, or a size such as 512M, 10G or +1G",
			  wish.size);
		return cli_fail(EXIT_USAGE, &err);
	}
	ret = client_open(&client, words.socket, &err);
	if (client_is_absent(ret) && !words.socket) {
		if (!wish.size && !wish.force)
			return resize_device(wish.text, wish.json);
		error_set(&err, EINVAL,
			  "ublkd is not running, and only ublkd can set a size: run 'systemctl "
			  "start ublkd', or leave out the size and --force");
		return cli_fail(EXIT_USAGE, &err);
	}
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	status = resize_export(&client, &wish, bytes, &err);
	client_close(&client);
	return status;
}

const struct verb verb_resize = {
	.name = "resize",
	.arguments = "[OPTIONS] NAME|DEVICE [[+]SIZE]",
	.summary = "set the size of a file, or adopt the current size of the storage",
	.main = resize_main,
};
