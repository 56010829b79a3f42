/* SPDX-License-Identifier: MIT */
/*
 * ublkctl features: the features of the kernel's ublk driver, and the I/O path that each backend
 * gets with them.
 */
#include "engine/backend.h"
#include "engine/buffer.h"
#include "engine/control.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/utsname.h>

static const struct {
	const char *name;
	const char *since;
	const char *meaning;
} flags[UBLK_FEAT_COUNT] = {
	{ "zero-copy", "6.15", "a request's pages can be registered as an io_uring buffer" },
	{ "complete-in-task", "6.0", "always set; has no effect" },
	{ "need-get-data", "6.0", "a write asks for its buffer first" },
	{ "recovery", "6.1", "a device can outlive its server" },
	{ "recovery-reissue", "6.1", "requests in flight are sent again to the next server" },
	{ "unprivileged", "6.3", "devices can be created without CAP_SYS_ADMIN" },
	{ "ioctl-encode", "6.4", "commands carry ioctl codes; what ublkd speaks" },
	{ "user-copy", "6.5", "the server copies data with pread and pwrite" },
	{ "zoned", "6.6", "zoned devices" },
	{ "recovery-fail-io", "6.13", "without a server I/O fails instead of waiting" },
	{ "update-size", "6.16", "a live device can be resized" },
	{ "auto-buffer", "6.16",
	  "requests' pages are registered before the server sees the request" },
	{ "quiesce", "6.16", "a server can detach from a live device" },
	{ "per-io-daemon", "6.16", "each tag may have a thread of its own" },
	{ "buffer-off-daemon", "6.17", "any thread may register a request's pages" },
	{ "batch", "7.0", "many commits and fetches in one command" },
	{ "integrity", "7.0", "protection information beside the data" },
	{ "safe-stop", "7.0", "a stop command that fails while the device is open" },
	{ "no-partition-scan", "7.0", "the kernel's partition scan can be turned off" },
	{ "shared-memory", "7.1", "zero copy into memory shared with the client" },
	{ "descriptor-size", "7.3", "request descriptors may be larger" },
};

/* A feature of a newer kernel, which has no name here: print the number of its bit. */
static bool is_unknown(uint64_t features, unsigned bit)
{
	return bit >= UBLK_FEAT_COUNT && features >> bit & 1;
}

static void print_json(uint64_t features, const char *release)
{
	json_t *list = json_array(), *unknown = json_array(), *paths = json_object();
	const struct backend *b;
	const char *reason;
	enum io_path path;
	struct error err;

	for (unsigned i = 0; i < UBLK_FEAT_COUNT; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:b, s:s, s:s}", "name", flags[i].name,
						"available", (int)(features >> i & 1), "since",
						flags[i].since, "meaning", flags[i].meaning));
	for (unsigned i = 0; i < 64; i++)
		if (is_unknown(features, i))
			json_array_append_new(unknown, json_integer(i));
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		io_path_choose(IO_PATH_AUTO, b->access, features, &path, &reason, &err);
		json_object_set_new(paths, b->scheme,
				    json_pack("{s:s, s:s}", "path", io_path_name(path), "reason",
					      reason));
	}
	cli_print_json(json_pack("{s:s, s:s, s:o, s:o, s:o}", "kernel", release, "driver",
				 "ublk_drv", "features", list, "unknownBits", unknown, "ioPaths",
				 paths),
		       false);
}

static void print_text(uint64_t features, const char *release)
{
	const struct backend *b;
	const char *reason;
	enum io_path path;
	struct error err;

	printf("Linux %s\n\n", release);
	for (unsigned i = 0; i < UBLK_FEAT_COUNT; i++)
		printf("%-4s %-18s %-5s %s\n", features >> i & 1 ? "yes" : "no", flags[i].name,
		       flags[i].since, flags[i].meaning);
	for (unsigned i = 0; i < 64; i++)
		if (is_unknown(features, i))
			printf("yes  unknown bit %-6u -     newer than this ublkctl\n", i);
	printf("\nI/O path of each backend:\n");
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		io_path_choose(IO_PATH_AUTO, b->access, features, &path, &reason, &err);
		printf("  %-8s %-10s %s\n", b->scheme, io_path_name(path), reason);
	}
}

static int features_main(const struct verb *verb, int argc, char **argv)
{
	struct control control;
	struct utsname kernel;
	struct error err;
	uint64_t features;
	int operand, status, ret;
	bool json;

	status = cli_parse_json(verb, argc, argv, 0, 0, &json, &operand);
	if (status)
		return status;
	if (control_open(&control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = control_get_features(&control, &features, &err);
	control_close(&control);
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	if (!features) {
		error_set(&err, EOPNOTSUPP,
			  "this kernel's ublk driver does not report its features: Linux 6.5 "
			  "or later is required");
		return cli_fail(EXIT_FAILED, &err);
	}
	uname(&kernel);
	if (json)
		print_json(features, kernel.release);
	else
		print_text(features, kernel.release);
	return EXIT_DONE;
}

const struct verb verb_features = {
	.name = "features",
	.arguments = "[--json]",
	.summary = "show the features of the kernel's ublk driver",
	.main = features_main,
};
