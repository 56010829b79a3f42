/* SPDX-License-Identifier: MIT */
/*
 * ublkctl remove: asks ublkd to remove one of its exports; stops and deletes any other ublk
 * device by itself, with or without a server that lives.
 *
 * A device in use is refused: its holders are looked for, the device is claimed (O_EXCL, as a
 * mount does), and they are looked for again; the driver's own check comes last (Linux 7.0).
 * Processes that only probe a new device let go of it at once, so such a refusal is tried again
 * for a second.
 *
 * --force stops the device whoever holds it, and ends the server that serves it: a server that
 * hangs would keep the kernel waiting for its requests. It is ended only if it has ublkcN open,
 * since a process number may be another's by now.
 *
 * Read remove_main() first: remove_export() is ublkd's way, remove_target() the other.
 */
#include "common/log.h"
#include "common/process.h"
#include "engine/control.h"
#include "engine/holders.h"
#include "tools/claim.h"
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAIT_STEP_MS 500u
/* udev opens a new device for a moment: retry for BRIEF_STEPS before refusing. */
#define BRIEF_STEP_MS 100u
#define BRIEF_STEPS   10u
#define CLAIM_MS      5000u
/* By force: for the kernel to stop it; for its server to end by a signal. */
#define FORCED_MS    5000u
#define END_FIRST_MS 1000u
#define END_MS       10000u

static const struct option_def remove_options[] = {
	{ "force", OPTION_FLAG, NULL, "off", 0, 0,
	  "remove the device even while it is in use: all I/O to it then fails with EIO, and "
	  "unwritten data is lost" },
	{ "wait", OPTION_FLAG, NULL, "off", 0, 0,
	  "wait until the device is no longer in use, then remove it" },
	{ .name = NULL },
};

/* A ublk device, whichever program serves it. */
struct target {
	struct control control;
	uint64_t features; /* the driver's */
	uint32_t id;
	char path[32];
	bool brief; /* refused because of processes alone: they may close it soon */
};

/* Fails with -EBUSY if a process other than this one and `own` uses the device. */
static int check_holders(struct target *t, pid_t own, struct error *err)
{
	const pid_t ignored[] = { getpid(), own };
	struct holders holders;
	char text[400];
	int ret = holders_find(t->path + strlen("/dev/"), ignored, 2, &holders);

	if (ret == -ENODEV)
		return 0; /* it has no disk */
	if (ret)
		return error_set(
			err, -ret,
			"cannot determine what uses %s: %s: stop its users, then use --force",
			t->path, strerror(-ret));
	if (holders.nr)
		ret = error_set(
			err, EBUSY,
			"%s is in use by %s: stop or unmount that first, or use --wait or --force",
			t->path, holders_text(&holders, text, sizeof(text)));
	t->brief = holders_are_processes(&holders);
	holders_close(&holders);
	return ret;
}

static int refuse_unseen(struct target *t, struct error *err)
{
	t->brief = true;
	return error_set(err, EBUSY,
			 "%s is in use by a mount or device that is not visible here: stop or "
			 "unmount that first, or use --wait or --force",
			 t->path);
}

/*
 * Before Linux 7.0 the driver stops a device that is in use. So the device is claimed
 * first: from then on nothing can mount it.
 */
static int stop_claimed(struct target *t, struct error *err)
{
	struct claim claim;
	int ret = claim_take(&claim, t->path, CLAIM_MS);

	if (ret == -ENOENT || ret == -ENXIO)
		return control_stop(&t->control, t->id, err);
	if (ret == -EBUSY)
		return check_holders(t, 0, err) ? -EBUSY : refuse_unseen(t, err);
	if (ret)
		return error_set(err, -ret,
				 "cannot open %s for exclusive use: %s: use --force to remove it "
				 "anyway",
				 t->path, strerror(-ret));
	ret = check_holders(t, claim.pid, err);
	if (!ret)
		ret = control_stop(&t->control, t->id, err);
	claim_release(&claim);
	return ret;
}

/* -EBUSY: it is in use. */
static int stop_unused(struct target *t, struct error *err)
{
	int ret = check_holders(t, 0, err);

	if (ret)
		return ret;
	if (!(t->features & UBLK_FEAT_SAFE_STOP))
		return stop_claimed(t, err);
	ret = control_try_stop(&t->control, t->id, err);
	if (ret == -EBUSY)
		return refuse_unseen(t, err);
	/* The device was never started. */
	return ret == -ENODEV ? control_stop(&t->control, t->id, err) : ret;
}

static int stop_when_unused(struct target *t, bool wait, struct error *err)
{
	struct ublk_dev_info info;
	unsigned tries = 0;
	int ret;

	while ((ret = stop_unused(t, err)) == -EBUSY) {
		if (!wait && (!t->brief || ++tries > BRIEF_STEPS))
			return ret;
		if (wait && !tries++)
			log_info(NULL, "waiting: %s", err->text);
		usleep((wait ? WAIT_STEP_MS : BRIEF_STEP_MS) * 1000);
		ret = control_get_info(&t->control, t->id, &info, err);
		if (ret)
			return ret;
	}
	return ret;
}

static bool has_ended(int process, unsigned ms)
{
	struct pollfd end = { .fd = process, .events = POLLIN };

	return poll(&end, 1, (int)ms) == 1;
}

/* Ends the server, if that is the process which has ublkcN open.  Returns whether it did. */
static bool end_server(const struct target *t, pid_t pid)
{
	/* The second SIGTERM makes 'ublkctl run' give up on requests in flight. */
	static const int signals[] = { SIGTERM, SIGTERM, SIGKILL };
	char path[32];
	int process;
	bool ended = false;

	snprintf(path, sizeof(path), UBLK_CHAR_PREFIX "%u", t->id);
	process = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	if (process < 0)
		return false;
	/* Check after pidfd_open(): the kernel may have reused the pid before. */
	if (process_has_open(pid, path))
		for (unsigned i = 0; !ended && i < sizeof(signals) / sizeof(*signals); i++) {
			syscall(SYS_pidfd_send_signal, process, signals[i], NULL, 0);
			ended = has_ended(process, i ? END_MS : END_FIRST_MS);
		}
	close(process);
	return ended;
}

/*
 * STOP_DEV waits for the requests that the server holds. If the server does not answer, they
 * end only with the server's process.
 */
static int stop_forced(struct target *t, pid_t server, struct error *err)
{
	int ret;

	t->control.deadline_ms = FORCED_MS;
	ret = control_stop(&t->control, t->id, err);
	if (ret == -ETIMEDOUT && end_server(t, server)) {
		log_warning(
			NULL,
			"%s: its server (process %d) did not answer requests in flight, and was terminated",
			t->path, (int)server);
		ret = control_stop(&t->control, t->id, err);
		/* The server may have removed its device as it ended. */
		if (ret == -ENODEV)
			ret = 0;
	}
	t->control.deadline_ms = CONTROL_DEADLINE_MS;
	return ret;
}

static int remove_target(struct target *t, bool force, bool wait, struct error *err)
{
	struct ublk_dev_info info;
	int ret = control_get_features(&t->control, &t->features, err);

	if (!ret)
		ret = control_get_info(&t->control, t->id, &info, err);
	if (!ret)
		ret = force ? stop_forced(t, info.server_pid, err) : stop_when_unused(t, wait, err);
	if (ret)
		return ret;
	/* Forced: delete without waiting for those who still have the device open. */
	ret = force ? control_delete_async(&t->control, t->id, err) : -EOPNOTSUPP;
	if (ret == -EOPNOTSUPP)
		ret = control_delete(&t->control, t->id, err);
	/* 'ublkctl run' deletes its device itself when that stops, and may be faster. */
	return ret == -ENODEV ? 0 : ret;
}

static int remove_device(const char *text, bool force, bool wait)
{
	struct target t = { 0 };
	struct error err;
	int ret = client_open_driver(text, &t.control, &t.id);

	if (ret)
		return ret;
	snprintf(t.path, sizeof(t.path), UBLK_BLOCK_PREFIX "%u", t.id);
	ret = remove_target(&t, force, wait, &err);
	control_close(&t.control);
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

/* The name that text means to ublkd, or (*device) the path of a foreign device; NULL: none. */
static json_t *find_name(struct client *client, const char *text, bool *device, struct error *err)
{
	json_t *export, *name;
	struct error ignored;
	uint32_t id;

	*device = false;
	/* Text that cannot mean a device is a name. */
	if (!strchr(text, '/') && cli_device_id(text, &id, &ignored)) {
		name = json_string(text);
		if (!name)
			error_set(err, ENOENT, "there is no export of that name: it is not UTF-8");
		return name;
	}
	if (client_find(client, text, &export, err))
		return NULL;
	*device = client_is_foreign(export);
	name = json_incref(json_object_get(export, *device ? "device" : "name"));
	json_decref(export);
	return name;
}

static int call_remove(struct client *client, json_t *name, bool force, bool wait,
		       struct error *err)
{
	json_t *parameters =
		json_pack("{s:O, s:b, s:b}", "name", name, "force", (int)force, "wait", (int)wait);
	char shown[256], file[1000];
	json_t *reply;
	int ret = client_call(client, "Remove", parameters, CLIENT_FOR_EVER, &reply, err);

	if (ret)
		return ret;
	if (*client_text(reply, "declaredIn", "", file, sizeof(file)))
		log_warning(NULL,
			    "%s declares %s: the next start or reload of ublkd creates it again, "
			    "unless you remove that file",
			    file, text_escape(json_string_value(name), shown, sizeof(shown)));
	json_decref(reply);
	return 0;
}

/* With wait: tries without first, to print what it waits for. */
static int remove_export(struct client *client, const char *text, bool force, bool wait)
{
	struct error err;
	bool device;
	int ret, status = EXIT_DONE;
	json_t *name = find_name(client, text, &device, &err);

	if (!name)
		return client_fail(client, &err);
	if (device) {
		status = remove_device(json_string_value(name), force, wait);
		json_decref(name);
		return status;
	}
	ret = call_remove(client, name, force, false, &err);
	if (ret == -EBUSY && wait) {
		log_info(NULL, "waiting: %s", err.text);
		ret = call_remove(client, name, force, true, &err);
	}
	json_decref(name);
	return ret ? client_fail(client, &err) : status;
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
			      "one export or device", &operand);
	if (status)
		return status;
	if (force && wait) {
		error_set(&err, EINVAL, "use --force or --wait, not both");
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
