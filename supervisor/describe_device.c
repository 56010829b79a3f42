/* SPDX-License-Identifier: MIT */
#include "supervisor/describe_device.h"
#include "common/error.h"
#include "common/process.h"
#include "engine/control.h"
#include "engine/device_list.h"
#include "engine/holders.h"
#include "common/json_set.h"

#include <stdio.h>

json_t *describe_kernel_flags(uint64_t flags)
{
	static const char *const names[UBLK_FEAT_COUNT] = {
		"SUPPORT_ZERO_COPY",
		"URING_CMD_COMP_IN_TASK",
		"NEED_GET_DATA",
		"USER_RECOVERY",
		"USER_RECOVERY_REISSUE",
		"UNPRIVILEGED_DEV",
		"CMD_IOCTL_ENCODE",
		"USER_COPY",
		"ZONED",
		"USER_RECOVERY_FAIL_IO",
		"UPDATE_SIZE",
		"AUTO_BUF_REG",
		"QUIESCE",
		"PER_IO_DAEMON",
		"BUF_REG_OFF_DAEMON",
		"BATCH_IO",
		"INTEGRITY",
		"SAFE_STOP_DEV",
		"NO_AUTO_PART_SCAN",
		"SHMEM_ZC",
	};
	json_t *array = json_array();

	for (unsigned i = 0; i < UBLK_FEAT_COUNT; i++)
		if (flags & 1ull << i)
			json_array_append_new(array, json_string(names[i]));
	return array;
}

/* Where the kernel's state says that the device is not served. */
static void set_trouble(json_t *json, const struct ublk_dev_info *info)
{
	char reason[200];

	if (info->state == UBLK_DEV_LIVE)
		return;
	snprintf(reason, sizeof(reason), "no program serves the device: its state is %s",
		 devices_state_name(info->state));
	json_set_text(json, "reason", reason);
}

static json_t *describe(const struct ublk_dev_info *info, const struct ublk_dev_params *params)
{
	char device[32], program[32];
	json_t *json;

	snprintf(device, sizeof(device), UBLK_BLOCK_PREFIX "%u", info->dev_id);
	json = json_pack("{s:s, s:s, s:s, s:s}", "name", device, "origin", "foreign", "state",
			 "foreign", "device", device);
	json_set_number(json, "id", info->dev_id);
	json_set_text(json, "kernelState", devices_state_name(info->state));
	set_trouble(json, info);
	if (params->basic.dev_sectors) {
		json_set_number(json, "size", params->basic.dev_sectors << UBLK_SECTOR_SHIFT);
		json_object_set_new(json, "readOnly",
				    json_boolean(params->basic.attrs & UBLK_DEVATTR_READ_ONLY));
	}
	if (info->server_pid > 0) {
		json_set_number(json, "pid", (uint64_t)info->server_pid);
		process_name(info->server_pid, program, sizeof(program));
		text_make_printable(program);
		json_set_text(json, "program", program);
	}
	return json;
}

json_t *describe_device(struct control *control, uint32_t id)
{
	struct ublk_dev_params params = { 0 };
	struct ublk_dev_info info;
	struct error err;

	if (control_get_info(control, id, &info, &err))
		return NULL;
	if (control_get_params(control, id, &params, &err))
		params = (struct ublk_dev_params){ 0 };
	return describe(&info, &params);
}

static json_t *limits(const struct ublk_dev_params *params)
{
	const struct ublk_basic_params *b = &params->basic;
	const struct ublk_discard_params *d = &params->discard;
	bool discards = params->types & UBLK_PARAMS_DISCARD;

	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b}", "logicalBlock",
		(json_int_t)1 << b->logical_bs_shift, "physicalBlock",
		(json_int_t)1 << b->physical_bs_shift, "minIo", (json_int_t)1 << b->io_min_shift,
		"optimalIo", b->io_opt_shift ? (json_int_t)1 << b->io_opt_shift : (json_int_t)0,
		"maxIo", (json_int_t)b->max_sectors << UBLK_SECTOR_SHIFT, "discardGranularity",
		(json_int_t)(discards ? d->granularity : 0), "maxDiscard",
		(json_int_t)(discards ? d->max_discard_sectors : 0) << UBLK_SECTOR_SHIFT,
		"maxWriteZeroes",
		(json_int_t)(discards ? d->max_write_zeroes_sectors : 0) << UBLK_SECTOR_SHIFT,
		"readOnly", (int)!!(b->attrs & UBLK_DEVATTR_READ_ONLY), "rotational",
		(int)!!(b->attrs & UBLK_DEVATTR_ROTATIONAL), "volatileCache",
		(int)!!(b->attrs & UBLK_DEVATTR_VOLATILE_CACHE), "fua",
		(int)!!(b->attrs & UBLK_DEVATTR_FUA));
}

json_t *describe_device_details(struct control *control, uint32_t id)
{
	struct ublk_dev_params params = { 0 };
	struct ublk_dev_info info;
	struct error err;
	json_t *json;

	if (control_get_info(control, id, &info, &err))
		return NULL;
	if (control_get_params(control, id, &params, &err))
		params = (struct ublk_dev_params){ 0 };
	json = json_pack("{s:o, s:[], s:[], s:{}, s:i, s:[], s:[]}", "export",
			 describe(&info, &params), "options", "queues", "facts", "recoveries", 0,
			 "history", "holders");
	json_set_number(json, "depth", info.queue_depth);
	json_set_text(json, "kernelState", devices_state_name(info.state));
	json_object_set_new(json, "kernelFlags", describe_kernel_flags(info.flags));
	if (params.basic.dev_sectors)
		json_object_set_new(json, "limits", limits(&params));
	return json;
}

json_t *describe_holders(const struct holders *holders)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < holders->nr; i++) {
		const struct holder *h = &holders->list[i];
		json_t *json = json_pack("{s:s}", "kind", holder_kind_name(h->kind));
		char text[400];

		if (h->pid) {
			json_set_number(json, "pid", (uint64_t)h->pid);
			json_set_text(json, "command", text_escape(h->command, text, sizeof(text)));
		}
		if (h->path)
			json_set_text(json, "path", text_escape(h->path, text, sizeof(text)));
		json_array_append_new(array, json);
	}
	return array;
}
