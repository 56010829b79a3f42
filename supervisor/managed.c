/* SPDX-License-Identifier: MIT */
#include "supervisor/managed.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/blocking.h"
#include "worker/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define RECORD_VERSION 1
#define UNFINISHED     ".new" /* behind a record's name, while it is written */

const char *managed_folder;
void (*managed_changed)(struct managed *m);

static const char *const origins[] = {
	[ORIGIN_DECLARED] = "declared",
	[ORIGIN_REQUESTED] = "requested",
	[ORIGIN_PERSISTENT] = "persistent",
};
static const char *const wants[] = {
	[WANT_LIVE] = "live",
	[WANT_SUSPENDED] = "suspended",
	[WANT_GONE] = "gone",
};

const char *managed_origin_name(enum managed_origin origin)
{
	return origins[origin];
}

static void note_relative(void *context, enum backend_need need, const char *path)
{
	(void)need;
	if (path && *path != '/')
		*(bool *)context = true;
}

/* ublkd's own folder is nobody's. */
static int check_paths(const struct managed *m, struct error *err)
{
	struct instance instance;
	bool relative = false;

	spec_to_instance(&m->spec, &instance);
	if (m->spec.backend->needs)
		m->spec.backend->needs(&instance, note_relative, &relative);
	return relative ? error_set(err, EINVAL, "'%s': its paths must begin with /", m->uri) : 0;
}

static int read_options(struct managed *m, struct error *err)
{
	const char *name;
	json_t *value;
	int ret;

	json_object_foreach(m->options, name, value) {
		ret = spec_set_any(&m->spec, name, json_string_value(value), err);
		if (ret)
			return ret;
	}
	ret = spec_check(&m->spec, err);
	return ret ? ret : check_paths(m, err);
}

int managed_create(struct managed **managed, const char *name, const char *uri, json_t *options,
		   enum managed_origin origin, struct error *err)
{
	struct managed *m = calloc(1, sizeof(*m));
	int ret;

	if (!m || !options) {
		free(m);
		json_decref(options);
		return error_set(err, ENOMEM, "no memory for an export");
	}
	m->options = options;
	m->origin = origin;
	m->device.name = m->name;
	m->device.control = &m->control;
	m->device.outlives_server = true;
	m->counters_fd = m->memory_fd = -1;
	m->retry.data = m;
	m->uri = strdup(uri);
	ret = m->uri ? name_check(name, err) : error_set(err, ENOMEM, "no memory for an export");
	if (ret)
		goto free;
	snprintf(m->name, sizeof(m->name), "%s", name);
	ret = spec_open(&m->spec, uri, err);
	if (ret)
		goto free;
	ret = read_options(m, err);
	if (ret)
		goto close;
	m->device.partitions = m->spec.values[SPEC_PARTITIONS].set
				       ? !m->spec.values[SPEC_PARTITIONS].word
				       : m->spec.backend->partitions;
	uv_timer_init(uv_default_loop(), &m->retry);
	*managed = m;
	return 0;

close:
	spec_close(&m->spec);
free:
	json_decref(m->options);
	free(m->uri);
	free(m);
	return ret;
}

static void timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void managed_destroy(struct managed *m)
{
	worker_forget(m->worker);
	fence_close(&m->fence);
	if (m->counters)
		counters_destroy(m->counters);
	if (m->counters_fd >= 0)
		close(m->counters_fd);
	if (m->memory_fd >= 0)
		close(m->memory_fd);
	for (unsigned i = 0; i < MANAGED_HISTORY; i++)
		free(m->history[i].reason);
	spec_close(&m->spec);
	json_decref(m->options);
	json_decref(m->threads);
	free(m->fault);
	free(m->uri);
	uv_close((uv_handle_t *)&m->retry, timer_closed);
}

bool managed_is_same(const struct managed *m, const char *uri, const json_t *options)
{
	const char *const *recorded = m->spec.backend->recorded;
	json_t *asked = json_copy(m->options);
	bool same;

	for (unsigned i = 0; recorded && recorded[i]; i++)
		if (!json_object_get(options, recorded[i]))
			json_object_del(asked, recorded[i]);
	same = !strcmp(m->uri, uri) && json_equal(asked, options);
	json_decref(asked);
	return same;
}

int managed_record(struct managed *m, const char *option, const char *value, struct error *err)
{
	int ret = spec_set_any(&m->spec, option, value, err);

	if (!ret && json_object_set_new(m->options, option, json_string(value)))
		ret = error_set(err, ENOMEM, "no memory for an option");
	return ret;
}

void managed_note(struct managed *m, const char *reason)
{
	struct managed_change *change = &m->history[m->nr_changes % MANAGED_HISTORY];
	struct timeval now;

	gettimeofday(&now, NULL);
	free(change->reason);
	*change = (struct managed_change){
		.time_us = (int64_t)now.tv_sec * 1000000 + now.tv_usec,
		.state = m->state,
		.reason = reason ? strdup(reason) : NULL,
	};
	m->nr_changes++;
	managed_changed(m);
	fiber_raise(&m->moved);
}

void managed_move(struct managed *m, enum export_state to, const char *reason)
{
	assert(export_state_may(m->state, to));
	log_debug(m->name, "%s -> %s%s%s", export_state_name(m->state), export_state_name(to),
		  reason ? ": " : "", reason ? reason : "");
	m->state = to;
	managed_note(m, reason);
}

void managed_set_fault(struct managed *m, const struct error *err)
{
	free(m->fault);
	m->fault = NULL;
	if (err) {
		m->fault = malloc(sizeof(*m->fault));
		if (m->fault)
			*m->fault = *err;
	}
	managed_changed(m);
}

int managed_holders(const struct managed *m, struct holders *holders, unsigned ms)
{
	char block[32];
	int ret;

	*holders = (struct holders){ 0 };
	if (!m->device.exists)
		return 0;
	snprintf(block, sizeof(block), "ublkb%u", m->device.info.dev_id);
	ret = blocking_find_holders(m->name, block, holders, ms);
	/* Not started, or stopped already: there is nothing to be open. */
	return ret == -ENODEV ? 0 : ret;
}

/* ---- the record ---- */

static void record_path(const struct managed *m, const char *suffix, char *out, size_t size)
{
	snprintf(out, size, "%s/%s.json%s", managed_folder, m->name, suffix);
}

static json_t *to_json(const struct managed *m)
{
	char cookie[24];
	json_t *json;

	snprintf(cookie, sizeof(cookie), "%016" PRIx64, m->device.cookie);
	json = json_pack("{s:i, s:s, s:s, s:O, s:s, s:s, s:s, s:s}", "version", RECORD_VERSION,
			 "name", m->name, "uri", m->uri, "options", m->options, "origin",
			 origins[m->origin], "want", wants[m->want], "state",
			 export_state_name(m->state), "cookie", cookie);
	json_object_set_new(json, "owner", owner_to_json(&m->owner));
	if (m->device.exists) {
		json_object_set_new(json, "id", json_integer(m->device.info.dev_id));
		json_object_set_new(json, "queues", json_integer(m->device.info.nr_hw_queues));
		json_object_set_new(json, "depth", json_integer(m->device.info.queue_depth));
		json_object_set_new(json, "limits", limits_to_json(&m->limits));
		json_object_set_new(json, "identity", json_string(m->identity));
		json_object_set_new(json, "path", json_string(io_path_name(m->device.path)));
		json_object_set_new(json, "max-io", json_integer(m->device.max_io));
		json_object_set_new(json, "recoveries", json_integer(m->recoveries));
		json_object_set_new(json, "lost", json_integer(m->lost));
		if (m->unfenced || (m->fence_told && m->fence.nr))
			json_object_set_new(json, "unfenced", json_true());
		json_object_set_new(json, "worker",
				    json_pack("{s:i, s:I}", "pid", (int)m->process.pid, "started",
					      (json_int_t)m->process.started));
	}
	return json;
}

bool managed_look_lost(struct managed *m)
{
	int lost = m->counters ? __atomic_load_n(&m->counters->lost, __ATOMIC_RELAXED) : 0;

	if (!lost || m->lost)
		return false;
	m->lost = lost < 0 && lost >= -4095 ? lost : -EIO;
	return true;
}

uint64_t managed_served(const struct managed *m)
{
	struct op_counters sum;
	uint64_t served = 0;

	/* Not the queues' sums: a new worker adds to them what the last one did not answer. */
	for (unsigned op = 0; m->counters && op < IO_OPS; op++) {
		counters_sum(m->counters, (enum io_op)op, &sum);
		served += sum.completed;
	}
	return served;
}

void managed_note_live(struct managed *m)
{
	m->live_since_ms = clock_ms();
	m->live_served = managed_served(m);
}

int managed_write(const struct managed *m, struct error *err)
{
	char path[200], fresh[208], *text;
	json_t *json = to_json(m);
	int fd, ret = 0;
	size_t length;

	record_path(m, "", path, sizeof(path));
	record_path(m, UNFINISHED, fresh, sizeof(fresh));
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
	return error_set(err, ret, "%s: its state cannot be written: %s: make room in /run", path,
			 strerror(-ret));
}

bool managed_unwrite_unfinished(const char *file)
{
	size_t length = strlen(file), suffix = strlen(UNFINISHED);
	char path[200];

	if (length < suffix || strcmp(file + length - suffix, UNFINISHED) != 0)
		return false;
	snprintf(path, sizeof(path), "%s/%s", managed_folder, file);
	unlink(path);
	return true;
}

void managed_unwrite(const struct managed *m)
{
	char path[200];

	record_path(m, "", path, sizeof(path));
	unlink(path);
}

bool managed_has_record(const struct managed *m)
{
	char path[200];

	record_path(m, "", path, sizeof(path));
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

static int state_of(const json_t *json)
{
	const char *names[EXPORT_STATES];

	for (unsigned i = 0; i < EXPORT_STATES; i++)
		names[i] = export_state_name((enum export_state)i);
	return word_of(json, "state", names, EXPORT_STATES);
}

static void read_process(struct managed *m, const json_t *json)
{
	json_int_t pid = json_integer_value(json_object_get(json, "pid"));

	if (pid <= 0 || pid > INT_MAX)
		return;
	m->process.pid = (pid_t)pid;
	m->process.started = (uint64_t)json_integer_value(json_object_get(json, "started"));
}

static int read_device(struct managed *m, const json_t *json)
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
	    limits_from_json(json_object_get(json, "limits"), &m->limits) ||
	    !m->limits.logical_block)
		return -EBADMSG;
	m->device.exists = true;
	m->device.info.dev_id = (uint32_t)json_integer_value(id);
	m->device.info.nr_hw_queues = (uint16_t)json_integer_value(json_object_get(json, "queues"));
	m->device.info.queue_depth = (uint16_t)json_integer_value(json_object_get(json, "depth"));
	m->device.max_io = (uint32_t)json_integer_value(json_object_get(json, "max-io"));
	m->recoveries = (unsigned)json_integer_value(json_object_get(json, "recoveries"));
	m->lost = (int)json_integer_value(json_object_get(json, "lost"));
	m->unfenced = json_is_true(json_object_get(json, "unfenced"));
	read_process(m, json_object_get(json, "worker"));
	m->device.path = (enum io_path)path;
	m->device.path_reason = "as the device was made";
	snprintf(m->identity, sizeof(m->identity), "%s", identity);
	return 0;
}

int managed_read(struct managed **managed, const char *name, struct error *err)
{
	const char *uri, *cookie;
	char path[200];
	json_t *json, *options;
	json_error_t where;
	struct owner owner;
	int origin, want, state, ret;

	snprintf(path, sizeof(path), "%s/%s.json", managed_folder, name);
	json = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
	if (!json)
		return error_set(err, EBADMSG, "%s: line %d: %s", path, where.line, where.text);
	uri = json_string_value(json_object_get(json, "uri"));
	cookie = json_string_value(json_object_get(json, "cookie"));
	options = json_object_get(json, "options");
	origin = word_of(json, "origin", origins, 3);
	want = word_of(json, "want", wants, 3);
	state = state_of(json);
	ret = -EBADMSG;
	if (uri && cookie && json_is_object(options) && origin >= 0 && want >= 0 && state >= 0 &&
	    !owner_from_json(json_object_get(json, "owner"), &owner))
		ret = managed_create(managed, name, uri, json_incref(options),
				     (enum managed_origin)origin, err);
	else
		error_set(err, EBADMSG, "%s: it is no record of ublkd's", path);
	if (!ret) {
		(*managed)->want = (enum managed_want)want;
		(*managed)->state = (enum export_state)state;
		(*managed)->device.cookie = strtoull(cookie, NULL, 16);
		(*managed)->owner = owner;
		ret = read_device(*managed, json);
		if (ret) {
			error_set(err, ret, "%s: it is no record of ublkd's", path);
			managed_destroy(*managed);
		}
	}
	json_decref(json);
	return ret;
}
