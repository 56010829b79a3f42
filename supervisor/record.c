/* SPDX-License-Identifier: MIT */
/*
 * A record is JSON: the request as it was made (URI, options, owner), the goal, the state,
 * and what there is in the kernel (device, limits, worker). It is written to a file of
 * another name and renamed, so that a reader finds the old or the new one, whole. A record
 * that cannot be read is never removed: a device may depend on it.
 *
 * No fsync(): the directory is a tmpfs, and neither device nor worker outlives the machine.
 *
 * Read to_json() and read_device() side by side: each key is in both.
 */
#include "supervisor/record.h"
#include "common/error.h"
#include "supervisor/export.h"
#include "worker/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD_VERSION 1
#define UNFINISHED     ".new" /* behind a record's name, while it is written */

const char *record_directory;

static const char *const goals[] = {
	[GOAL_LIVE] = "live",
	[GOAL_SUSPENDED] = "suspended",
	[GOAL_GONE] = "gone",
};
#define GOALS (sizeof(goals) / sizeof(*goals))

static void record_path(const struct export *export, const char *suffix, char *out, size_t size)
{
	snprintf(out, size, "%s/%s.json%s", record_directory, export->name, suffix);
}

static json_t *to_json(const struct export *export)
{
	char cookie[24];
	json_t *json;

	snprintf(cookie, sizeof(cookie), "%016" PRIx64, export->device.cookie);
	json = json_pack("{s:i, s:s, s:s, s:O, s:s, s:s, s:s, s:s}", "version", RECORD_VERSION,
			 "name", export->name, "uri", export->uri, "options", export->options,
			 "origin", export_origin_name(export->origin), "want",
			 goals[export->wanted.goal], "state", export_state_name(export->state),
			 "cookie", cookie);
	json_object_set_new(json, "owner", owner_to_json(&export->owner));
	if (export->device.exists) {
		json_object_set_new(json, "id", json_integer(export->device.info.dev_id));
		json_object_set_new(json, "queues", json_integer(export->device.info.nr_hw_queues));
		json_object_set_new(json, "depth", json_integer(export->device.info.queue_depth));
		json_object_set_new(json, "limits", limits_to_json(&export->storage.limits));
		json_object_set_new(json, "identity", json_string(export->storage.identity));
		json_object_set_new(json, "path", json_string(io_path_name(export->device.path)));
		json_object_set_new(json, "max-io", json_integer(export->device.max_io));
		json_object_set_new(json, "recoveries",
				    json_integer(export->reconciler.recoveries));
		json_object_set_new(json, "lost", json_integer(export->storage.lost));
		if (export->worker.unfenced ||
		    (export->worker.fence_recorded && export->worker.fence.nr))
			json_object_set_new(json, "unfenced", json_true());
		json_object_set_new(json, "worker",
				    json_pack("{s:i, s:I}", "pid", (int)export->worker.process.pid,
					      "started",
					      (json_int_t) export->worker.process.started));
	}
	return json;
}

int record_write(const struct export *export, struct error *err)
{
	char path[200], fresh[208], *text;
	json_t *json = to_json(export);
	int fd, ret = 0;
	size_t length;

	record_path(export, "", path, sizeof(path));
	record_path(export, UNFINISHED, fresh, sizeof(fresh));
	text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	if (!text)
		return error_set(err, ENOMEM, "no memory for a record");
	length = strlen(text);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		ret = -(errno ? errno : EIO);
	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	if (!ret && rename(fresh, path))
		ret = -errno;
	free(text);
	if (!ret)
		return 0;
	unlink(fresh);
	return error_set(err, ret, "cannot write %s: %s: free space in /run", path, strerror(-ret));
}

bool record_remove_unfinished(const char *file)
{
	size_t length = strlen(file), suffix = strlen(UNFINISHED);
	char path[200];

	if (length < suffix || strcmp(file + length - suffix, UNFINISHED) != 0)
		return false;
	snprintf(path, sizeof(path), "%s/%s", record_directory, file);
	unlink(path);
	return true;
}

void record_remove(const struct export *export)
{
	char path[200];

	record_path(export, "", path, sizeof(path));
	unlink(path);
}

bool record_exists(const struct export *export)
{
	char path[200];

	record_path(export, "", path, sizeof(path));
	return !access(path, F_OK);
}

static int word_of(const json_t *json, const char *key, const char *const *words, int nr)
{
	const char *word = json_string_value(json_object_get(json, key));

	for (int i = 0; word && i < nr; i++)
		if (!strcmp(words[i], word))
			return i;
	return -1;
}

static int origin_of(const json_t *json)
{
	const char *names[EXPORT_ORIGINS];

	for (unsigned i = 0; i < EXPORT_ORIGINS; i++)
		names[i] = export_origin_name((enum export_origin)i);
	return word_of(json, "origin", names, EXPORT_ORIGINS);
}

static int state_of(const json_t *json)
{
	const char *names[EXPORT_STATES];

	for (unsigned i = 0; i < EXPORT_STATES; i++)
		names[i] = export_state_name((enum export_state)i);
	return word_of(json, "state", names, EXPORT_STATES);
}

static void read_process(struct export *export, const json_t *json)
{
	json_int_t pid = json_integer_value(json_object_get(json, "pid"));

	if (pid <= 0 || pid > INT_MAX)
		return;
	export->worker.process.pid = (pid_t)pid;
	export->worker.process.started =
		(uint64_t)json_integer_value(json_object_get(json, "started"));
}

static int read_device(struct export *export, const json_t *json)
{
	static const char *paths[IO_PATHS];
	const char *identity = json_string_value(json_object_get(json, "identity"));
	const json_t *id = json_object_get(json, "id");
	int path;

	if (!id)
		return 0;
	for (unsigned i = 0; i < IO_PATHS; i++)
		paths[i] = io_path_name((enum io_path)i);
	path = word_of(json, "path", paths, IO_PATHS);
	if (path < 0 || !identity ||
	    limits_from_json(json_object_get(json, "limits"), &export->storage.limits) ||
	    !export->storage.limits.logical_block)
		return -EBADMSG;
	export->device.exists = true;
	export->device.info.dev_id = (uint32_t)json_integer_value(id);
	export->device.info.nr_hw_queues =
		(uint16_t)json_integer_value(json_object_get(json, "queues"));
	export->device.info.queue_depth =
		(uint16_t)json_integer_value(json_object_get(json, "depth"));
	export->device.max_io = (uint32_t)json_integer_value(json_object_get(json, "max-io"));
	export->reconciler.recoveries =
		(unsigned)json_integer_value(json_object_get(json, "recoveries"));
	export->storage.lost = (int)json_integer_value(json_object_get(json, "lost"));
	export->worker.unfenced = json_is_true(json_object_get(json, "unfenced"));
	read_process(export, json_object_get(json, "worker"));
	export->device.path = (enum io_path)path;
	export->device.path_reason = "as chosen when the device was created";
	snprintf(export->storage.identity, sizeof(export->storage.identity), "%s", identity);
	return 0;
}

int record_read(struct export **made, const char *name, struct error *err)
{
	const char *uri, *cookie;
	char path[200];
	json_t *json, *options;
	json_error_t where;
	struct owner owner;
	int origin, goal, state, ret;

	snprintf(path, sizeof(path), "%s/%s.json", record_directory, name);
	json = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
	if (!json)
		return error_set(err, EBADMSG, "%s: line %d: %s", path, where.line, where.text);
	uri = json_string_value(json_object_get(json, "uri"));
	cookie = json_string_value(json_object_get(json, "cookie"));
	options = json_object_get(json, "options");
	origin = origin_of(json);
	goal = word_of(json, "want", goals, GOALS);
	state = state_of(json);
	ret = -EBADMSG;
	if (uri && cookie && json_is_object(options) && origin >= 0 && goal >= 0 && state >= 0 &&
	    !owner_from_json(json_object_get(json, "owner"), &owner))
		ret = export_create(made, name, uri, json_incref(options),
				    (enum export_origin)origin, err);
	else
		error_set(err, EBADMSG, "%s is not a record of ublkd", path);
	if (!ret) {
		struct export *export = *made;

		export->wanted.goal = (enum export_goal)goal;
		export->state = (enum export_state)state;
		export->device.cookie = strtoull(cookie, NULL, 16);
		export->owner = owner;
		ret = read_device(export, json);
		if (ret) {
			error_set(err, ret, "%s is not a record of ublkd", path);
			export_destroy(export);
		}
	}
	json_decref(json);
	return ret;
}
