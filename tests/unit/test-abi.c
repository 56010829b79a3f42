/* SPDX-License-Identifier: MIT */
/*
 * engine/ublk_abi.h against the system's own header, for all that it has.
 */
#include "engine/ublk_abi.h"
#include "tests/unit/system-abi.h"
#include "tests/unit/test.h"

#define OURS(name, value)                         \
	{                                         \
		name, (unsigned long long)(value) \
	}
#define RAW(name, value)  OURS("UBLK_" name, _IOC_NR(value))
#define CODE(name, value) OURS("UBLK_U_" name, value)
#define SIZE(theirs, ours)                  \
	{                                   \
		theirs, sizeof(struct ours) \
	}
#define AT(theirs, ours, member)                      \
	{                                             \
		theirs, offsetof(struct ours, member) \
	}

static const struct abi_fact ours[] = {
	RAW("CMD_GET_QUEUE_AFFINITY", UBLK_CTRL_GET_QUEUE_AFFINITY),
	RAW("CMD_GET_DEV_INFO", UBLK_CTRL_GET_DEV_INFO),
	RAW("CMD_ADD_DEV", UBLK_CTRL_ADD_DEV),
	RAW("CMD_DEL_DEV", UBLK_CTRL_DEL_DEV),
	RAW("CMD_START_DEV", UBLK_CTRL_START_DEV),
	RAW("CMD_STOP_DEV", UBLK_CTRL_STOP_DEV),
	RAW("CMD_SET_PARAMS", UBLK_CTRL_SET_PARAMS),
	RAW("CMD_GET_PARAMS", UBLK_CTRL_GET_PARAMS),
	RAW("CMD_START_USER_RECOVERY", UBLK_CTRL_START_USER_RECOVERY),
	RAW("CMD_END_USER_RECOVERY", UBLK_CTRL_END_USER_RECOVERY),
	RAW("CMD_GET_DEV_INFO2", UBLK_CTRL_GET_DEV_INFO2),
	CODE("CMD_GET_QUEUE_AFFINITY", UBLK_CTRL_GET_QUEUE_AFFINITY),
	CODE("CMD_GET_DEV_INFO", UBLK_CTRL_GET_DEV_INFO),
	CODE("CMD_ADD_DEV", UBLK_CTRL_ADD_DEV),
	CODE("CMD_DEL_DEV", UBLK_CTRL_DEL_DEV),
	CODE("CMD_START_DEV", UBLK_CTRL_START_DEV),
	CODE("CMD_STOP_DEV", UBLK_CTRL_STOP_DEV),
	CODE("CMD_SET_PARAMS", UBLK_CTRL_SET_PARAMS),
	CODE("CMD_GET_PARAMS", UBLK_CTRL_GET_PARAMS),
	CODE("CMD_START_USER_RECOVERY", UBLK_CTRL_START_USER_RECOVERY),
	CODE("CMD_END_USER_RECOVERY", UBLK_CTRL_END_USER_RECOVERY),
	CODE("CMD_GET_DEV_INFO2", UBLK_CTRL_GET_DEV_INFO2),
	CODE("CMD_GET_FEATURES", UBLK_CTRL_GET_FEATURES),
	CODE("CMD_DEL_DEV_ASYNC", UBLK_CTRL_DEL_DEV_ASYNC),
	CODE("CMD_UPDATE_SIZE", UBLK_CTRL_UPDATE_SIZE),
	CODE("CMD_QUIESCE_DEV", UBLK_CTRL_QUIESCE_DEV),
	CODE("CMD_TRY_STOP_DEV", UBLK_CTRL_TRY_STOP_DEV),
	CODE("CMD_REG_BUF", UBLK_CTRL_REG_BUF),
	CODE("CMD_UNREG_BUF", UBLK_CTRL_UNREG_BUF),
	OURS("UBLK_FEATURES_LEN", sizeof(uint64_t)),

	RAW("IO_FETCH_REQ", UBLK_IO_FETCH),
	RAW("IO_COMMIT_AND_FETCH_REQ", UBLK_IO_COMMIT_AND_FETCH),
	RAW("IO_NEED_GET_DATA", UBLK_IO_GET_DATA),
	CODE("IO_FETCH_REQ", UBLK_IO_FETCH),
	CODE("IO_COMMIT_AND_FETCH_REQ", UBLK_IO_COMMIT_AND_FETCH),
	CODE("IO_NEED_GET_DATA", UBLK_IO_GET_DATA),
	CODE("IO_REGISTER_IO_BUF", UBLK_IO_REGISTER_BUF),
	CODE("IO_UNREGISTER_IO_BUF", UBLK_IO_UNREGISTER_BUF),
	CODE("IO_PREP_IO_CMDS", UBLK_IO_PREP_BATCH),
	CODE("IO_COMMIT_IO_CMDS", UBLK_IO_COMMIT_BATCH),
	CODE("IO_FETCH_IO_CMDS", UBLK_IO_FETCH_BATCH),
	OURS("UBLK_IO_RES_OK", UBLK_RES_OK),
	OURS("UBLK_IO_RES_NEED_GET_DATA", UBLK_RES_GET_DATA),
	OURS("UBLK_IO_RES_ABORT", UBLK_RES_ABORT),

	OURS("UBLKSRV_IO_BUF_OFFSET", UBLK_USER_COPY_BASE),
	OURS("UBLK_IO_BUF_BITS", __builtin_ctz(UBLK_IO_MAX)),
	OURS("UBLK_TAG_OFF", __builtin_ctzll(UBLK_USER_COPY_OFFSET(0, 1, 0) - UBLK_USER_COPY_BASE)),
	OURS("UBLK_QID_OFF", __builtin_ctzll(UBLK_USER_COPY_OFFSET(1, 0, 0) - UBLK_USER_COPY_BASE)),
	OURS("UBLKSRV_IO_INTEGRITY_FLAG", UBLK_USER_COPY_INTEGRITY),
	OURS("UBLK_MAX_QUEUE_DEPTH", UBLK_DEPTH_MAX),
	OURS("UBLK_MAX_NR_QUEUES", UBLK_QUEUES_MAX),

	OURS("UBLK_F_SUPPORT_ZERO_COPY", UBLK_FEAT_ZERO_COPY),
	OURS("UBLK_F_URING_CMD_COMP_IN_TASK", UBLK_FEAT_COMP_IN_TASK),
	OURS("UBLK_F_NEED_GET_DATA", UBLK_FEAT_NEED_GET_DATA),
	OURS("UBLK_F_USER_RECOVERY", UBLK_FEAT_RECOVERY),
	OURS("UBLK_F_USER_RECOVERY_REISSUE", UBLK_FEAT_RECOVERY_REISSUE),
	OURS("UBLK_F_UNPRIVILEGED_DEV", UBLK_FEAT_UNPRIVILEGED),
	OURS("UBLK_F_CMD_IOCTL_ENCODE", UBLK_FEAT_IOCTL_ENCODE),
	OURS("UBLK_F_USER_COPY", UBLK_FEAT_USER_COPY),
	OURS("UBLK_F_ZONED", UBLK_FEAT_ZONED),
	OURS("UBLK_F_USER_RECOVERY_FAIL_IO", UBLK_FEAT_RECOVERY_FAIL_IO),
	OURS("UBLK_F_UPDATE_SIZE", UBLK_FEAT_UPDATE_SIZE),
	OURS("UBLK_F_AUTO_BUF_REG", UBLK_FEAT_AUTO_BUF_REG),
	OURS("UBLK_F_QUIESCE", UBLK_FEAT_QUIESCE),
	OURS("UBLK_F_PER_IO_DAEMON", UBLK_FEAT_PER_IO_DAEMON),
	OURS("UBLK_F_BUF_REG_OFF_DAEMON", UBLK_FEAT_BUF_REG_OFF_DAEMON),
	OURS("UBLK_F_BATCH_IO", UBLK_FEAT_BATCH_IO),
	OURS("UBLK_F_INTEGRITY", UBLK_FEAT_INTEGRITY),
	OURS("UBLK_F_SAFE_STOP_DEV", UBLK_FEAT_SAFE_STOP),
	OURS("UBLK_F_NO_AUTO_PART_SCAN", UBLK_FEAT_NO_PART_SCAN),
	OURS("UBLK_F_SHMEM_ZC", UBLK_FEAT_SHMEM_ZC),

	OURS("UBLK_S_DEV_DEAD", UBLK_DEV_DEAD),
	OURS("UBLK_S_DEV_LIVE", UBLK_DEV_LIVE),
	OURS("UBLK_S_DEV_QUIESCED", UBLK_DEV_QUIESCED),
	OURS("UBLK_S_DEV_FAIL_IO", UBLK_DEV_FAIL_IO),

	OURS("UBLK_IO_OP_READ", UBLK_OP_READ),
	OURS("UBLK_IO_OP_WRITE", UBLK_OP_WRITE),
	OURS("UBLK_IO_OP_FLUSH", UBLK_OP_FLUSH),
	OURS("UBLK_IO_OP_DISCARD", UBLK_OP_DISCARD),
	OURS("UBLK_IO_OP_WRITE_SAME", UBLK_OP_WRITE_SAME),
	OURS("UBLK_IO_OP_WRITE_ZEROES", UBLK_OP_WRITE_ZEROES),
	OURS("UBLK_IO_OP_ZONE_OPEN", UBLK_OP_ZONE_OPEN),
	OURS("UBLK_IO_OP_ZONE_CLOSE", UBLK_OP_ZONE_CLOSE),
	OURS("UBLK_IO_OP_ZONE_FINISH", UBLK_OP_ZONE_FINISH),
	OURS("UBLK_IO_OP_ZONE_APPEND", UBLK_OP_ZONE_APPEND),
	OURS("UBLK_IO_OP_ZONE_RESET_ALL", UBLK_OP_ZONE_RESET_ALL),
	OURS("UBLK_IO_OP_ZONE_RESET", UBLK_OP_ZONE_RESET),
	OURS("UBLK_IO_OP_REPORT_ZONES", UBLK_OP_REPORT_ZONES),

	OURS("UBLK_IO_F_FAILFAST_DEV", UBLK_REQ_FAILFAST_DEV),
	OURS("UBLK_IO_F_FAILFAST_TRANSPORT", UBLK_REQ_FAILFAST_TRANSPORT),
	OURS("UBLK_IO_F_FAILFAST_DRIVER", UBLK_REQ_FAILFAST_DRIVER),
	OURS("UBLK_IO_F_META", UBLK_REQ_META),
	OURS("UBLK_IO_F_FUA", UBLK_REQ_FUA),
	OURS("UBLK_IO_F_NOUNMAP", UBLK_REQ_NOUNMAP),
	OURS("UBLK_IO_F_SWAP", UBLK_REQ_SWAP),
	OURS("UBLK_IO_F_NEED_REG_BUF", UBLK_REQ_NEED_REG_BUF),
	OURS("UBLK_IO_F_INTEGRITY", UBLK_REQ_INTEGRITY),
	OURS("UBLK_IO_F_SHMEM_ZC", UBLK_REQ_SHMEM_ZC),
	OURS("UBLK_AUTO_BUF_REG_FALLBACK", UBLK_AUTO_BUF_FALLBACK),
	OURS("UBLK_BATCH_F_HAS_ZONE_LBA", UBLK_BATCH_ZONE_LBA),
	OURS("UBLK_BATCH_F_HAS_BUF_ADDR", UBLK_BATCH_BUF_ADDR),
	OURS("UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK", UBLK_BATCH_AUTO_BUF_FALLBACK),

	OURS("UBLK_ATTR_READ_ONLY", UBLK_DEVATTR_READ_ONLY),
	OURS("UBLK_ATTR_ROTATIONAL", UBLK_DEVATTR_ROTATIONAL),
	OURS("UBLK_ATTR_VOLATILE_CACHE", UBLK_DEVATTR_VOLATILE_CACHE),
	OURS("UBLK_ATTR_FUA", UBLK_DEVATTR_FUA),
	OURS("UBLK_PARAM_TYPE_BASIC", UBLK_PARAMS_BASIC),
	OURS("UBLK_PARAM_TYPE_DISCARD", UBLK_PARAMS_DISCARD),
	OURS("UBLK_PARAM_TYPE_DEVT", UBLK_PARAMS_DEVT),
	OURS("UBLK_PARAM_TYPE_ZONED", UBLK_PARAMS_ZONED),
	OURS("UBLK_PARAM_TYPE_DMA_ALIGN", UBLK_PARAMS_DMA),
	OURS("UBLK_PARAM_TYPE_SEGMENT", UBLK_PARAMS_SEGMENT),
	OURS("UBLK_PARAM_TYPE_INTEGRITY", UBLK_PARAMS_INTEGRITY),

	SIZE("ublksrv_ctrl_cmd", ublk_ctrl_cmd),
	AT("ublksrv_ctrl_cmd.dev_id", ublk_ctrl_cmd, dev_id),
	AT("ublksrv_ctrl_cmd.queue_id", ublk_ctrl_cmd, queue_id),
	AT("ublksrv_ctrl_cmd.len", ublk_ctrl_cmd, len),
	AT("ublksrv_ctrl_cmd.addr", ublk_ctrl_cmd, addr),
	AT("ublksrv_ctrl_cmd.data", ublk_ctrl_cmd, data),
	AT("ublksrv_ctrl_cmd.dev_path_len", ublk_ctrl_cmd, dev_path_len),
	AT("ublksrv_ctrl_cmd.pad", ublk_ctrl_cmd, pad),
	AT("ublksrv_ctrl_cmd.reserved", ublk_ctrl_cmd, reserved),
	SIZE("ublksrv_ctrl_dev_info", ublk_dev_info),
	AT("ublksrv_ctrl_dev_info.nr_hw_queues", ublk_dev_info, nr_hw_queues),
	AT("ublksrv_ctrl_dev_info.queue_depth", ublk_dev_info, queue_depth),
	AT("ublksrv_ctrl_dev_info.state", ublk_dev_info, state),
	AT("ublksrv_ctrl_dev_info.pad0", ublk_dev_info, io_desc_size),
	AT("ublksrv_ctrl_dev_info.max_io_buf_bytes", ublk_dev_info, max_io_buf_bytes),
	AT("ublksrv_ctrl_dev_info.dev_id", ublk_dev_info, dev_id),
	AT("ublksrv_ctrl_dev_info.ublksrv_pid", ublk_dev_info, server_pid),
	AT("ublksrv_ctrl_dev_info.pad1", ublk_dev_info, pad1),
	AT("ublksrv_ctrl_dev_info.flags", ublk_dev_info, flags),
	AT("ublksrv_ctrl_dev_info.ublksrv_flags", ublk_dev_info, server_flags),
	AT("ublksrv_ctrl_dev_info.owner_uid", ublk_dev_info, owner_uid),
	AT("ublksrv_ctrl_dev_info.owner_gid", ublk_dev_info, owner_gid),
	AT("ublksrv_ctrl_dev_info.reserved1", ublk_dev_info, reserved1),
	AT("ublksrv_ctrl_dev_info.reserved2", ublk_dev_info, reserved2),
	SIZE("ublksrv_io_desc", ublk_io_desc),
	AT("ublksrv_io_desc.op_flags", ublk_io_desc, op_flags),
	AT("ublksrv_io_desc.nr_sectors", ublk_io_desc, nr_sectors),
	AT("ublksrv_io_desc.start_sector", ublk_io_desc, start_sector),
	AT("ublksrv_io_desc.addr", ublk_io_desc, addr),
	SIZE("ublksrv_io_cmd", ublk_io_cmd),
	AT("ublksrv_io_cmd.q_id", ublk_io_cmd, q_id),
	AT("ublksrv_io_cmd.tag", ublk_io_cmd, tag),
	AT("ublksrv_io_cmd.result", ublk_io_cmd, result),
	AT("ublksrv_io_cmd.addr", ublk_io_cmd, addr),
	SIZE("ublk_auto_buf_reg", ublk_auto_buf),
	AT("ublk_auto_buf_reg.index", ublk_auto_buf, index),
	AT("ublk_auto_buf_reg.flags", ublk_auto_buf, flags),
	AT("ublk_auto_buf_reg.reserved0", ublk_auto_buf, reserved0),
	AT("ublk_auto_buf_reg.reserved1", ublk_auto_buf, reserved1),
	SIZE("ublk_elem_header", ublk_batch_elem),
	AT("ublk_elem_header.tag", ublk_batch_elem, tag),
	AT("ublk_elem_header.buf_index", ublk_batch_elem, buf_index),
	AT("ublk_elem_header.result", ublk_batch_elem, result),
	SIZE("ublk_batch_io", ublk_batch_io),
	AT("ublk_batch_io.q_id", ublk_batch_io, q_id),
	AT("ublk_batch_io.flags", ublk_batch_io, flags),
	AT("ublk_batch_io.nr_elem", ublk_batch_io, nr_elem),
	AT("ublk_batch_io.elem_bytes", ublk_batch_io, elem_bytes),
	AT("ublk_batch_io.reserved", ublk_batch_io, reserved),
	AT("ublk_batch_io.reserved2", ublk_batch_io, reserved2),
	SIZE("ublk_shmem_buf_reg", ublk_shmem_buf),
	AT("ublk_shmem_buf_reg.addr", ublk_shmem_buf, addr),
	AT("ublk_shmem_buf_reg.len", ublk_shmem_buf, len),
	AT("ublk_shmem_buf_reg.flags", ublk_shmem_buf, flags),
	AT("ublk_shmem_buf_reg.reserved", ublk_shmem_buf, reserved),

	SIZE("ublk_param_basic", ublk_basic_params),
	AT("ublk_param_basic.attrs", ublk_basic_params, attrs),
	AT("ublk_param_basic.logical_bs_shift", ublk_basic_params, logical_bs_shift),
	AT("ublk_param_basic.physical_bs_shift", ublk_basic_params, physical_bs_shift),
	AT("ublk_param_basic.io_opt_shift", ublk_basic_params, io_opt_shift),
	AT("ublk_param_basic.io_min_shift", ublk_basic_params, io_min_shift),
	AT("ublk_param_basic.max_sectors", ublk_basic_params, max_sectors),
	AT("ublk_param_basic.chunk_sectors", ublk_basic_params, chunk_sectors),
	AT("ublk_param_basic.dev_sectors", ublk_basic_params, dev_sectors),
	AT("ublk_param_basic.virt_boundary_mask", ublk_basic_params, virt_boundary_mask),
	SIZE("ublk_param_discard", ublk_discard_params),
	AT("ublk_param_discard.discard_alignment", ublk_discard_params, alignment),
	AT("ublk_param_discard.discard_granularity", ublk_discard_params, granularity),
	AT("ublk_param_discard.max_discard_sectors", ublk_discard_params, max_discard_sectors),
	AT("ublk_param_discard.max_write_zeroes_sectors", ublk_discard_params,
	   max_write_zeroes_sectors),
	AT("ublk_param_discard.max_discard_segments", ublk_discard_params, max_discard_segments),
	AT("ublk_param_discard.reserved0", ublk_discard_params, reserved),
	SIZE("ublk_param_devt", ublk_devt_params),
	AT("ublk_param_devt.char_major", ublk_devt_params, char_major),
	AT("ublk_param_devt.char_minor", ublk_devt_params, char_minor),
	AT("ublk_param_devt.disk_major", ublk_devt_params, disk_major),
	AT("ublk_param_devt.disk_minor", ublk_devt_params, disk_minor),
	SIZE("ublk_param_zoned", ublk_zoned_params),
	AT("ublk_param_zoned.max_open_zones", ublk_zoned_params, max_open_zones),
	AT("ublk_param_zoned.max_active_zones", ublk_zoned_params, max_active_zones),
	AT("ublk_param_zoned.max_zone_append_sectors", ublk_zoned_params, max_zone_append_sectors),
	SIZE("ublk_param_dma_align", ublk_dma_params),
	AT("ublk_param_dma_align.alignment", ublk_dma_params, alignment),
	SIZE("ublk_param_segment", ublk_segment_params),
	AT("ublk_param_segment.seg_boundary_mask", ublk_segment_params, seg_boundary_mask),
	AT("ublk_param_segment.max_segment_size", ublk_segment_params, max_segment_size),
	AT("ublk_param_segment.max_segments", ublk_segment_params, max_segments),
	SIZE("ublk_param_integrity", ublk_integrity_params),
	AT("ublk_param_integrity.flags", ublk_integrity_params, flags),
	AT("ublk_param_integrity.max_integrity_segments", ublk_integrity_params,
	   max_integrity_segments),
	AT("ublk_param_integrity.interval_exp", ublk_integrity_params, interval_exp),
	AT("ublk_param_integrity.metadata_size", ublk_integrity_params, metadata_size),
	AT("ublk_param_integrity.pi_offset", ublk_integrity_params, pi_offset),
	AT("ublk_param_integrity.csum_type", ublk_integrity_params, csum_type),
	AT("ublk_param_integrity.tag_size", ublk_integrity_params, tag_size),
	AT("ublk_params.len", ublk_dev_params, len),
	AT("ublk_params.types", ublk_dev_params, types),
	AT("ublk_params.basic", ublk_dev_params, basic),
	AT("ublk_params.discard", ublk_dev_params, discard),
	AT("ublk_params.devt", ublk_dev_params, devt),
	AT("ublk_params.zoned", ublk_dev_params, zoned),
	AT("ublk_params.dma", ublk_dev_params, dma),
	AT("ublk_params.seg", ublk_dev_params, seg),
	AT("ublk_params.integrity", ublk_dev_params, integrity),
};

static const struct abi_fact *find_ours(const char *name)
{
	for (unsigned i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		if (!strcmp(ours[i].name, name))
			return &ours[i];
	return NULL;
}

/* Every fact of the system's is one of ours, with the same value. */
static void test_agrees_with_the_system(void **state)
{
	unsigned bad = 0;

	(void)state;
	for (unsigned i = 0; i < system_abi_count; i++) {
		const struct abi_fact *theirs = &system_abi[i];
		const struct abi_fact *mine = find_ours(theirs->name);

		if (mine && mine->value == theirs->value)
			continue;
		/* The structure grows at its end, and says itself how long it is. */
		if (!strcmp(theirs->name, "ublk_params") &&
		    theirs->value >= sizeof(struct ublk_dev_params))
			continue;
		print_error("%s: the system says %#llx, we %#llx\n", theirs->name, theirs->value,
			    mine ? mine->value : 0);
		bad++;
	}
	assert_int_equal(bad, 0);
	assert_true(system_abi_count > 80);
}

/* A fact that is named twice would hide a wrong one. */
static void test_names_each_fact_once(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		assert_ptr_equal(find_ours(ours[i].name), &ours[i]);
}

/* Codes as Linux 7.2 prints them, for a system whose header has none. */
static void test_codes_are_those_of_the_driver(void **state)
{
	(void)state;
	assert_int_equal(UBLK_CTRL_GET_QUEUE_AFFINITY, 0x80207501);
	assert_int_equal(UBLK_CTRL_GET_DEV_INFO, 0x80207502);
	assert_int_equal(UBLK_CTRL_ADD_DEV, 0xc0207504);
	assert_int_equal(UBLK_CTRL_DEL_DEV, 0xc0207505);
	assert_int_equal(UBLK_CTRL_START_DEV, 0xc0207506);
	assert_int_equal(UBLK_CTRL_STOP_DEV, 0xc0207507);
	assert_int_equal(UBLK_CTRL_SET_PARAMS, 0xc0207508);
	assert_int_equal(UBLK_CTRL_GET_PARAMS, 0x80207509);
	assert_int_equal(UBLK_CTRL_START_USER_RECOVERY, 0xc0207510);
	assert_int_equal(UBLK_CTRL_END_USER_RECOVERY, 0xc0207511);
	assert_int_equal(UBLK_CTRL_GET_DEV_INFO2, 0x80207512);
	assert_int_equal(UBLK_CTRL_GET_FEATURES, 0x80207513);
	assert_int_equal(UBLK_CTRL_DEL_DEV_ASYNC, 0x80207514);
	assert_int_equal(UBLK_CTRL_UPDATE_SIZE, 0xc0207515);
	assert_int_equal(UBLK_CTRL_QUIESCE_DEV, 0xc0207516);
	assert_int_equal(UBLK_CTRL_TRY_STOP_DEV, 0xc0207517);
	assert_int_equal(UBLK_CTRL_REG_BUF, 0xc0207518);
	assert_int_equal(UBLK_CTRL_UNREG_BUF, 0xc0207519);
	assert_int_equal(UBLK_IO_FETCH, 0xc0107520);
	assert_int_equal(UBLK_IO_COMMIT_AND_FETCH, 0xc0107521);
	assert_int_equal(UBLK_IO_GET_DATA, 0xc0107522);
	assert_int_equal(UBLK_IO_REGISTER_BUF, 0xc0107523);
	assert_int_equal(UBLK_IO_UNREGISTER_BUF, 0xc0107524);
	assert_int_equal(UBLK_IO_PREP_BATCH, 0xc0107525);
	assert_int_equal(UBLK_IO_COMMIT_BATCH, 0xc0107526);
	assert_int_equal(UBLK_IO_FETCH_BATCH, 0xc0107527);
}

static void test_offsets_are_those_of_the_driver(void **state)
{
	(void)state;
	assert_true(UBLK_DESC_STRIDE(4096u) == 4096 * 24);
	assert_true(UBLK_DESC_STRIDE(65536u) == 131072);
	assert_true(UBLK_USER_COPY_OFFSET(0, 0, 0) == 0x80000000ull);
	assert_true(UBLK_USER_COPY_OFFSET(3, 5, 7) ==
		    0x80000000ull + (3ull << 41) + (5ull << 25) + 7);
	assert_true(UBLK_USER_COPY_OFFSET(UBLK_QUEUES_MAX - 1, UBLK_DEPTH_MAX - 1,
					  UBLK_IO_MAX - 1) < UBLK_USER_COPY_INTEGRITY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_agrees_with_the_system),
		cmocka_unit_test(test_names_each_fact_once),
		cmocka_unit_test(test_codes_are_those_of_the_driver),
		cmocka_unit_test(test_offsets_are_those_of_the_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
