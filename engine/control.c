/* SPDX-License-Identifier: MIT */
/*
 * The commands of /dev/ublk-control. A table says each command's name and patience; control_run()
 * carries one out; the functions below it only fill in what is particular to a command.
 *
 * Commands go through an io_uring, and their buffers live on the heap: a command that misses its
 * deadline may still be carried out, and the kernel writes then. How a command waits is the
 * caller's (hooks of control.h): blocking in ublkctl, in a fiber in ublkd.
 *
 * A refusal is translated once, in explain(): what it means and what to do, by command and errno,
 * with the kernel function that it comes from. Quirks of kernel versions are noted at the
 * command that they belong to.
 */
#include "engine/control.h"
#include "common/error.h"
#include "common/log.h"
#include "common/small_file.h"
#include "engine/attribute.h"
#include "engine/kernel_faults.h"
#include "engine/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CONTROL_SQE_BYTES    128
#define CONTROL_RING_ENTRIES 8
#define CONTROL_SLICE_MS     200u  /* between two looks at control->abort */
#define CONTROL_PATIENT_MS   5000u /* then a long STOP_DEV is explained */
#define CONTROL_CANCEL_MS    1000u /* to let a cancelled command come back */

enum command {
	CMD_ADD,
	CMD_DELETE,
	CMD_DELETE_ASYNC,
	CMD_START,
	CMD_STOP,
	CMD_SET_PARAMS,
	CMD_GET_PARAMS,
	CMD_GET_INFO,
	CMD_GET_INFO2,
	CMD_GET_AFFINITY,
	CMD_GET_FEATURES,
	CMD_START_RECOVERY,
	CMD_END_RECOVERY,
	CMD_UPDATE_SIZE,
	CMD_TRY_STOP,
};

static const struct command_def {
	uint32_t op;
	const char *name;
	bool waits; /* for a server or a user of the device */
	const char *since;
} commands[] = {
	[CMD_ADD] = { UBLK_CTRL_ADD_DEV, "ADD_DEV", false, "6.0" },
	[CMD_DELETE] = { UBLK_CTRL_DEL_DEV, "DEL_DEV", true, "6.0" },
	[CMD_DELETE_ASYNC] = { UBLK_CTRL_DEL_DEV_ASYNC, "DEL_DEV_ASYNC", true, "6.9" },
	[CMD_START] = { UBLK_CTRL_START_DEV, "START_DEV", true, "6.0" },
	[CMD_STOP] = { UBLK_CTRL_STOP_DEV, "STOP_DEV", true, "6.0" },
	[CMD_SET_PARAMS] = { UBLK_CTRL_SET_PARAMS, "SET_PARAMS", false, "6.0" },
	[CMD_GET_PARAMS] = { UBLK_CTRL_GET_PARAMS, "GET_PARAMS", false, "6.0" },
	[CMD_GET_INFO] = { UBLK_CTRL_GET_DEV_INFO, "GET_DEV_INFO", false, "6.0" },
	[CMD_GET_INFO2] = { UBLK_CTRL_GET_DEV_INFO2, "GET_DEV_INFO2", false, "6.3" },
	[CMD_GET_AFFINITY] = { UBLK_CTRL_GET_QUEUE_AFFINITY, "GET_QUEUE_AFFINITY", false, "6.0" },
	[CMD_GET_FEATURES] = { UBLK_CTRL_GET_FEATURES, "GET_FEATURES", false, "6.5" },
	[CMD_START_RECOVERY] = { UBLK_CTRL_START_USER_RECOVERY, "START_USER_RECOVERY", true,
				 "6.1" },
	[CMD_END_RECOVERY] = { UBLK_CTRL_END_USER_RECOVERY, "END_USER_RECOVERY", true, "6.1" },
	[CMD_UPDATE_SIZE] = { UBLK_CTRL_UPDATE_SIZE, "UPDATE_SIZE", false, "6.16" },
	[CMD_TRY_STOP] = { UBLK_CTRL_TRY_STOP_DEV, "TRY_STOP_DEV", true, "7.0" },
};

/* Lives on the heap: the kernel may write to it after a deadline has passed. */
struct call {
	uint64_t number; /* user_data */
	union {
		struct ublk_dev_info info;
		struct ublk_dev_params params;
		uint64_t features;
		uint8_t mask[UBLK_QUEUES_MAX / 8];
	} buffer;
	/* A command on an unprivileged device: the path of ublkcN, then the buffer. */
	char wire[32 + UBLK_QUEUES_MAX / 8];
};

int control_open(struct control *control, unsigned deadline_ms, struct error *err)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQE128 };
	int ret;

	*control =
		(struct control){ .fd = -1, .deadline_ms = deadline_ms, .path_id = UBLK_ID_AUTO };
	control->fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (control->fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return error_set(err, ENOENT,
				 UBLK_CONTROL_PATH
				 ": the ublk driver is not loaded: modprobe ublk_drv "
				 "(Linux 6.4 or later, built with CONFIG_BLK_DEV_UBLK)");
	if (control->fd < 0 && (errno == EACCES || errno == EPERM))
		return error_set(err, EACCES, UBLK_CONTROL_PATH ": no permission: run as root");
	if (control->fd < 0)
		return error_set(err, errno, UBLK_CONTROL_PATH ": %s", strerror(errno));

	control->uring = &control->own;
	ret = io_uring_queue_init_params(CONTROL_RING_ENTRIES, control->uring, &params);
	if (ret == -EINVAL)
		ret = error_set(err, EINVAL,
				"this kernel's io_uring is too old for ublk: Linux 6.4 or "
				"later is needed");
	else if (ret < 0)
		ret = ring_error(err, ret);
	if (ret < 0)
		close(control->fd);
	return ret < 0 ? ret : 0;
}

void control_pause(struct control *control, unsigned ms)
{
	if (control->pause)
		control->pause(control, ms);
	else
		usleep(ms * 1000);
}

int control_write_attribute(struct control *control, const char *path, const char *value)
{
	return control->write_attribute ? control->write_attribute(control, path, value)
					: attribute_write_file(path, value);
}

void control_share(struct control *control, struct control *of)
{
	*control = (struct control){
		.uring = of->uring,
		.fd = of->fd,
		.deadline_ms = of->deadline_ms,
		.path_id = UBLK_ID_AUTO,
		.wait = of->wait,
		.write_attribute = of->write_attribute,
		.pause = of->pause,
	};
}

int control_event(const struct control *control)
{
	return control->uring->ring_fd;
}

int control_set_max_inflight(struct control *control, unsigned nr)
{
	unsigned values[2] = { nr, 0 };

	return io_uring_register_iowq_max_workers(control->uring, values);
}

bool control_take(struct control *control, uint64_t *number, int *result)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(control->uring, &cqe))
		return false;
	*number = cqe->user_data;
	*result = cqe->res;
	io_uring_cqe_seen(control->uring, cqe);
	return true;
}

void control_close(struct control *control)
{
	io_uring_queue_exit(control->uring);
	close(control->fd);
}

/*
 * Waits for the completion of number for one slice; other completions are late
 * ones: dropped.  Returns 0, -ETIME, or what io_uring says.
 */
static int wait_slice(struct control *control, uint64_t number, unsigned ms, int *result)
{
	struct __kernel_timespec slice = { .tv_nsec = ms * 1000000ll };
	struct io_uring_cqe *cqe;
	uint64_t found;
	int ret;

	do {
		ret = io_uring_wait_cqe_timeout(control->uring, &cqe, &slice);
		if (ret)
			return ret;
	} while (control_take(control, &found, result) && found != number);
	return 0;
}

/*
 * Waits for the completion of number until the deadline, which begins again with
 * progress (if asked).
 */
static int wait_answer(struct control *control, uint64_t number, unsigned ms, bool progress,
		       int *result)
{
	uint64_t now, last = progress ? control->progress(control->progress_context) : 0;
	unsigned waited = 0, total = 0;
	int ret;

	for (;;) {
		ret = control->wait ? control->wait(control, number, CONTROL_SLICE_MS, result)
				    : wait_slice(control, number, CONTROL_SLICE_MS, result);
		if (ret == -EINTR)
			continue;
		if (ret != -ETIME || control->abort)
			return ret;
		waited += CONTROL_SLICE_MS;
		total += CONTROL_SLICE_MS;
		now = progress ? control->progress(control->progress_context) : last;
		if (now != last)
			waited = 0;
		last = now;
		if (waited >= ms)
			return ret;
		if (progress && total == CONTROL_PATIENT_MS)
			log_info(NULL, "still flushing the device; another signal ends it without");
	}
}

static const char *first_line(const char *path, char *out, size_t size)
{
	return small_file_line(path, out, size) > 0 ? out : "unknown";
}

/* The meaning and the cure of a refusal; source: ublk_drv.c, 6.0 to 7.2. */
static int explain(enum command command, uint32_t id, int code, unsigned ms, struct error *err)
{
	const struct command_def *def = &commands[command];
	char limit[16], device[24] = "a new device";
	const struct kernel_fault *fault;
	struct utsname kernel;

	if (id != UBLK_ID_AUTO)
		snprintf(device, sizeof(device), "device %u", id);

	switch (code) {
	case EPERM:
		return error_set(err, code,
				 "%s: not permitted: ublk needs CAP_SYS_ADMIN in the initial user "
				 "namespace: run as root, outside of an unprivileged container",
				 def->name);
	case EACCES:
		if (command == CMD_ADD)
			return error_set(
				err, code,
				"%s: the driver's limit of devices is reached (ublks_max is %s): "
				"remove one, or raise it in "
				"/sys/module/ublk_drv/parameters/ublks_max",
				def->name,
				first_line("/sys/module/ublk_drv/parameters/ublks_max", limit,
					   sizeof(limit)));
		if (command == CMD_SET_PARAMS)
			return error_set(err, code,
					 "%s: device %u is already started: its parameters cannot "
					 "change",
					 def->name, id);
		break;
	case EEXIST:
		if (command == CMD_ADD && id == UINT32_MAX)
			return error_set(err, code,
					 "%s: the kernel is still removing a device: try again",
					 def->name);
		if (command == CMD_ADD)
			return error_set(err, code,
					 "device id %u is taken: use another id, or none, or first "
					 "'ublkctl remove " UBLK_BLOCK_PREFIX "%u'",
					 id, id);
		break;
	case ENODEV:
	case ENOENT:
		if (command == CMD_ADD)
			break;
		return error_set(err, code,
				 "there is no ublk device %u: 'ublkctl list' shows the devices",
				 id);
	case EOPNOTSUPP:
	case 524: /* ENOTSUPP, which 6.8 and older let out */
		return error_set(err, EOPNOTSUPP,
				 "%s: this kernel's ublk driver does not support it: Linux %s or "
				 "later is needed",
				 def->name, def->since);
	case EBUSY:
		if (command == CMD_START_RECOVERY)
			return error_set(err, code,
					 "device %u still has a server: its process has not "
					 "let go of " UBLK_CHAR_PREFIX "%u yet",
					 id, id);
		return error_set(err, code, "device %u is in use", id);
	case EINVAL:
		if (command == CMD_START || command == CMD_END_RECOVERY)
			return error_set(
				err, code,
				"%s: device %u: the kernel refuses this process as its server: "
				"the device lacks parameters, or the process runs in a PID "
				"namespace (Linux 6.17 cannot serve ublk from one)",
				def->name, id);
		if (command == CMD_ADD)
			return error_set(err, code,
					 "%s: the kernel refuses this combination of queues, "
					 "depth, max-io and features: leave some of them out",
					 def->name);
		break;
	case ETIMEDOUT:
		uname(&kernel);
		fault = kernel_fault_find(kernel.release, def->name);
		return error_set(err, code,
				 "%s: %s: the kernel has not answered within %u s: something still "
				 "uses the device, or its server does not answer%s%s",
				 def->name, device, ms / 1000,
				 fault ? "; or a fault of the kernel: " : "",
				 fault ? fault->text : "");
	case EINTR:
		return error_set(err, code, "%s: %s: interrupted", def->name, device);
	}
	return error_set(err, code, "%s: %s: %s", def->name, device, strerror(code));
}

static struct io_uring_sqe *empty_sqe(struct control *control, uint8_t opcode, int fd,
				      uint64_t number)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(control->uring);

	assert(sqe); /* each is submitted before the next is taken */
	memset(sqe, 0, CONTROL_SQE_BYTES);
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->user_data = number;
	return sqe;
}

/* An SQE that could not be submitted is in the ring still, and would go with the next. */
static void empty_again(struct io_uring_sqe *sqe)
{
	memset(sqe, 0, CONTROL_SQE_BYTES);
	sqe->opcode = IORING_OP_NOP;
}

/* source: ublk_ctrl_uring_cmd_permission() of ublk_drv.c, 6.3 to 7.2 */
static void put_path(struct call *call, struct ublk_ctrl_cmd *payload)
{
	int length =
		snprintf(call->wire, sizeof(call->wire), UBLK_CHAR_PREFIX "%u", payload->dev_id) +
		1;

	memcpy(call->wire + length, &call->buffer, payload->len);
	payload->addr = (uint64_t)(uintptr_t)call->wire;
	payload->dev_path_len = (uint16_t)length;
	payload->len = (uint16_t)(payload->len + length);
}

/*
 * Carries one command out.  call is on the heap; it is freed here when the
 * kernel will not touch it any more, unless the caller keeps it (returns 0).
 */
static int control_run(struct control *control, enum command command, struct ublk_ctrl_cmd payload,
		       struct call *call, struct error *err)
{
	static uint64_t next_number;
	const struct command_def *def = &commands[command];
	unsigned ms = def->waits ? control->deadline_ms : CONTROL_SHORT_MS;
	struct io_uring_sqe *sqe;
	int result = 0, ret;

	if (!call)
		return explain(command, payload.dev_id, ENOMEM, ms, err);
	call->number = ++next_number;
	sqe = empty_sqe(control, IORING_OP_URING_CMD, control->fd, call->number);
	/*
	 * The driver has all of them done by a thread of the ring's, and Linux 6.12 (uring_cmd.c:
	 * io_uring_cmd()) then reads the SQE once more, whatever is in its place by now: another
	 * device's command.  Asked for from the start, it is copied.
	 */
	sqe->flags = IOSQE_ASYNC;
	sqe->cmd_op = def->op;
	if (command != CMD_ADD && payload.dev_id == control->path_id)
		put_path(call, &payload);
	memcpy(sqe->cmd, &payload, sizeof(payload));

	ret = io_uring_submit(control->uring);
	if (ret >= 0)
		ret = wait_answer(control, call->number, ms,
				  command == CMD_STOP && control->progress, &result);
	else
		empty_again(sqe);
	if (ret == -ETIME) {
		uint64_t stuck = call->number;

		sqe = empty_sqe(control, IORING_OP_ASYNC_CANCEL, -1, ++next_number);
		sqe->addr = stuck;
		io_uring_submit(control->uring);
		ret = wait_answer(control, stuck, CONTROL_CANCEL_MS, false, &result);
		if (ret) {
			control->nr_abandoned++;
			return explain(command, payload.dev_id, ETIMEDOUT, ms, err);
		}
		/* Cancelled, unless it was done in that very moment. */
		if (result == -EINTR || result == -ECANCELED)
			result = -ETIMEDOUT;
	} else if (ret) {
		result = ret;
	}
	if (result < 0) {
		free(call);
		return explain(command, payload.dev_id, -result, ms, err);
	}
	if (payload.dev_path_len)
		memcpy(&call->buffer, call->wire + payload.dev_path_len,
		       (size_t)(payload.len - payload.dev_path_len));
	return 0;
}

static struct ublk_ctrl_cmd payload_for(uint32_t id, struct call *call, unsigned len)
{
	return (struct ublk_ctrl_cmd){
		.dev_id = id,
		.queue_id = UBLK_QUEUE_NONE,
		.len = (uint16_t)len,
		.addr = len && call ? (uint64_t)(uintptr_t)&call->buffer : 0,
	};
}

/* A command with no buffer and at most one inline argument. */
static int control_simple(struct control *control, enum command command, uint32_t id, uint64_t data,
			  struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	struct ublk_ctrl_cmd payload = payload_for(id, call, 0);
	int ret;

	payload.data = data;
	ret = control_run(control, command, payload, call, err);
	if (!ret)
		free(call);
	return ret;
}

int control_get_features(struct control *control, uint64_t *features, struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	int ret = control_run(control, CMD_GET_FEATURES, payload_for(0, call, sizeof(uint64_t)),
			      call, err);

	*features = 0;
	/* Before 6.5 the driver looks for device 0 first: both answers mean the same. */
	if (ret == -EOPNOTSUPP || ret == -ENODEV || ret == -524)
		return 0;
	if (ret)
		return ret;
	*features = call->buffer.features;
	free(call);
	return 0;
}

int control_add(struct control *control, struct ublk_dev_info *info, struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	int ret;

	if (call)
		call->buffer.info = *info;
	ret = control_run(control, CMD_ADD, payload_for(info->dev_id, call, sizeof(*info)), call,
			  err);
	if (ret)
		return ret;
	*info = call->buffer.info;
	free(call);
	return 0;
}

int control_get_info(struct control *control, uint32_t id, struct ublk_dev_info *info,
		     struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	int ret;

	ret = control_run(control, CMD_GET_INFO, payload_for(id, call, sizeof(*info)), call, err);
	if (ret == -EINVAL && control->path_id != id) {
		/* An unprivileged device: this, and all that follows, needs its path. */
		control->path_id = id;
		call = calloc(1, sizeof(*call));
		ret = control_run(control, CMD_GET_INFO2, payload_for(id, call, sizeof(*info)),
				  call, err);
	}
	if (ret) {
		control->path_id = UBLK_ID_AUTO;
		return ret;
	}
	*info = call->buffer.info;
	free(call);
	return 0;
}

int control_set_params(struct control *control, uint32_t id, const struct ublk_dev_params *params,
		       struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	int ret;

	if (call)
		call->buffer.params = *params;
	ret = control_run(control, CMD_SET_PARAMS, payload_for(id, call, sizeof(*params)), call,
			  err);
	if (!ret)
		free(call);
	return ret;
}

int control_get_params(struct control *control, uint32_t id, struct ublk_dev_params *params,
		       struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	int ret;

	if (call)
		call->buffer.params.len = sizeof(*params);
	ret = control_run(control, CMD_GET_PARAMS, payload_for(id, call, sizeof(*params)), call,
			  err);
	if (ret)
		return ret;
	*params = call->buffer.params;
	free(call);
	return 0;
}

int control_get_affinity(struct control *control, uint32_t id, unsigned queue, void *mask,
			 unsigned size, struct error *err)
{
	struct call *call = calloc(1, sizeof(*call));
	struct ublk_ctrl_cmd payload = payload_for(id, call, size);
	int ret;

	payload.data = queue;
	ret = control_run(control, CMD_GET_AFFINITY, payload, call, err);
	if (ret)
		return ret;
	memcpy(mask, call->buffer.mask, size);
	free(call);
	return 0;
}

int control_delete(struct control *control, uint32_t id, struct error *err)
{
	return control_simple(control, CMD_DELETE, id, 0, err);
}

int control_delete_async(struct control *control, uint32_t id, struct error *err)
{
	return control_simple(control, CMD_DELETE_ASYNC, id, 0, err);
}

int control_start(struct control *control, uint32_t id, int tgid, struct error *err)
{
	return control_simple(control, CMD_START, id, (uint64_t)tgid, err);
}

int control_stop(struct control *control, uint32_t id, struct error *err)
{
	return control_simple(control, CMD_STOP, id, 0, err);
}

int control_start_recovery(struct control *control, uint32_t id, struct error *err)
{
	return control_simple(control, CMD_START_RECOVERY, id, 0, err);
}

int control_end_recovery(struct control *control, uint32_t id, int tgid, struct error *err)
{
	return control_simple(control, CMD_END_RECOVERY, id, (uint64_t)tgid, err);
}

int control_update_size(struct control *control, uint32_t id, uint64_t sectors, struct error *err)
{
	return control_simple(control, CMD_UPDATE_SIZE, id, sectors, err);
}

int control_try_stop(struct control *control, uint32_t id, struct error *err)
{
	return control_simple(control, CMD_TRY_STOP, id, 0, err);
}
