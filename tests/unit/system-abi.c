/* SPDX-License-Identifier: MIT */
/*
 * The system's <linux/ublk_cmd.h>, as a table.  A file of its own,
 * since that header and ours use some names for the same things.  Which of these
 * it has depends on its age: what is a macro is asked for one by one, and a
 * struct is there when a macro of the same release is.
 */
#include "tests/unit/system-abi.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <linux/ublk_cmd.h>
#include <stddef.h>

#define FACT(name)                                \
	{                                         \
#name, (unsigned long long)(name) \
	}
#define SIZE(type)                         \
	{                                  \
#type, sizeof(struct type) \
	}
#define AT(type, member)                                         \
	{                                                        \
#type "." #member, offsetof(struct type, member) \
	}

const struct abi_fact system_abi[] = {
#ifdef UBLK_CMD_GET_QUEUE_AFFINITY
	FACT(UBLK_CMD_GET_QUEUE_AFFINITY),
#endif
#ifdef UBLK_CMD_GET_DEV_INFO
	FACT(UBLK_CMD_GET_DEV_INFO),
#endif
#ifdef UBLK_CMD_ADD_DEV
	FACT(UBLK_CMD_ADD_DEV),
#endif
#ifdef UBLK_CMD_DEL_DEV
	FACT(UBLK_CMD_DEL_DEV),
#endif
#ifdef UBLK_CMD_START_DEV
	FACT(UBLK_CMD_START_DEV),
#endif
#ifdef UBLK_CMD_STOP_DEV
	FACT(UBLK_CMD_STOP_DEV),
#endif
#ifdef UBLK_CMD_SET_PARAMS
	FACT(UBLK_CMD_SET_PARAMS),
#endif
#ifdef UBLK_CMD_GET_PARAMS
	FACT(UBLK_CMD_GET_PARAMS),
#endif
#ifdef UBLK_CMD_START_USER_RECOVERY
	FACT(UBLK_CMD_START_USER_RECOVERY),
#endif
#ifdef UBLK_CMD_END_USER_RECOVERY
	FACT(UBLK_CMD_END_USER_RECOVERY),
#endif
#ifdef UBLK_CMD_GET_DEV_INFO2
	FACT(UBLK_CMD_GET_DEV_INFO2),
#endif
#ifdef UBLK_U_CMD_GET_QUEUE_AFFINITY
	FACT(UBLK_U_CMD_GET_QUEUE_AFFINITY),
#endif
#ifdef UBLK_U_CMD_GET_DEV_INFO
	FACT(UBLK_U_CMD_GET_DEV_INFO),
#endif
#ifdef UBLK_U_CMD_ADD_DEV
	FACT(UBLK_U_CMD_ADD_DEV),
#endif
#ifdef UBLK_U_CMD_DEL_DEV
	FACT(UBLK_U_CMD_DEL_DEV),
#endif
#ifdef UBLK_U_CMD_START_DEV
	FACT(UBLK_U_CMD_START_DEV),
#endif
#ifdef UBLK_U_CMD_STOP_DEV
	FACT(UBLK_U_CMD_STOP_DEV),
#endif
#ifdef UBLK_U_CMD_SET_PARAMS
	FACT(UBLK_U_CMD_SET_PARAMS),
#endif
#ifdef UBLK_U_CMD_GET_PARAMS
	FACT(UBLK_U_CMD_GET_PARAMS),
#endif
#ifdef UBLK_U_CMD_START_USER_RECOVERY
	FACT(UBLK_U_CMD_START_USER_RECOVERY),
#endif
#ifdef UBLK_U_CMD_END_USER_RECOVERY
	FACT(UBLK_U_CMD_END_USER_RECOVERY),
#endif
#ifdef UBLK_U_CMD_GET_DEV_INFO2
	FACT(UBLK_U_CMD_GET_DEV_INFO2),
#endif
#ifdef UBLK_U_CMD_GET_FEATURES
	FACT(UBLK_U_CMD_GET_FEATURES),
#endif
#ifdef UBLK_U_CMD_DEL_DEV_ASYNC
	FACT(UBLK_U_CMD_DEL_DEV_ASYNC),
#endif
#ifdef UBLK_U_CMD_UPDATE_SIZE
	FACT(UBLK_U_CMD_UPDATE_SIZE),
#endif
#ifdef UBLK_U_CMD_QUIESCE_DEV
	FACT(UBLK_U_CMD_QUIESCE_DEV),
#endif
#ifdef UBLK_U_CMD_TRY_STOP_DEV
	FACT(UBLK_U_CMD_TRY_STOP_DEV),
#endif
#ifdef UBLK_U_CMD_REG_BUF
	FACT(UBLK_U_CMD_REG_BUF),
#endif
#ifdef UBLK_U_CMD_UNREG_BUF
	FACT(UBLK_U_CMD_UNREG_BUF),
#endif
#ifdef UBLK_IO_FETCH_REQ
	FACT(UBLK_IO_FETCH_REQ),
#endif
#ifdef UBLK_IO_COMMIT_AND_FETCH_REQ
	FACT(UBLK_IO_COMMIT_AND_FETCH_REQ),
#endif
#ifdef UBLK_IO_NEED_GET_DATA
	FACT(UBLK_IO_NEED_GET_DATA),
#endif
#ifdef UBLK_U_IO_FETCH_REQ
	FACT(UBLK_U_IO_FETCH_REQ),
#endif
#ifdef UBLK_U_IO_COMMIT_AND_FETCH_REQ
	FACT(UBLK_U_IO_COMMIT_AND_FETCH_REQ),
#endif
#ifdef UBLK_U_IO_NEED_GET_DATA
	FACT(UBLK_U_IO_NEED_GET_DATA),
#endif
#ifdef UBLK_U_IO_REGISTER_IO_BUF
	FACT(UBLK_U_IO_REGISTER_IO_BUF),
#endif
#ifdef UBLK_U_IO_UNREGISTER_IO_BUF
	FACT(UBLK_U_IO_UNREGISTER_IO_BUF),
#endif
#ifdef UBLK_U_IO_PREP_IO_CMDS
	FACT(UBLK_U_IO_PREP_IO_CMDS),
#endif
#ifdef UBLK_U_IO_COMMIT_IO_CMDS
	FACT(UBLK_U_IO_COMMIT_IO_CMDS),
#endif
#ifdef UBLK_U_IO_FETCH_IO_CMDS
	FACT(UBLK_U_IO_FETCH_IO_CMDS),
#endif
#ifdef UBLK_IO_RES_OK
	FACT(UBLK_IO_RES_OK),
#endif
#ifdef UBLK_IO_RES_NEED_GET_DATA
	FACT(UBLK_IO_RES_NEED_GET_DATA),
#endif
#ifdef UBLK_IO_RES_ABORT
	FACT(UBLK_IO_RES_ABORT),
#endif
#ifdef UBLKSRV_IO_BUF_OFFSET
	FACT(UBLKSRV_IO_BUF_OFFSET),
#endif
#ifdef UBLK_MAX_QUEUE_DEPTH
	FACT(UBLK_MAX_QUEUE_DEPTH),
#endif
#ifdef UBLKSRV_IO_INTEGRITY_FLAG
	FACT(UBLKSRV_IO_INTEGRITY_FLAG),
#endif
#ifdef UBLK_F_SUPPORT_ZERO_COPY
	FACT(UBLK_F_SUPPORT_ZERO_COPY),
#endif
#ifdef UBLK_F_URING_CMD_COMP_IN_TASK
	FACT(UBLK_F_URING_CMD_COMP_IN_TASK),
#endif
#ifdef UBLK_F_NEED_GET_DATA
	FACT(UBLK_F_NEED_GET_DATA),
#endif
#ifdef UBLK_F_USER_RECOVERY
	FACT(UBLK_F_USER_RECOVERY),
#endif
#ifdef UBLK_F_USER_RECOVERY_REISSUE
	FACT(UBLK_F_USER_RECOVERY_REISSUE),
#endif
#ifdef UBLK_F_UNPRIVILEGED_DEV
	FACT(UBLK_F_UNPRIVILEGED_DEV),
#endif
#ifdef UBLK_F_CMD_IOCTL_ENCODE
	FACT(UBLK_F_CMD_IOCTL_ENCODE),
#endif
#ifdef UBLK_F_USER_COPY
	FACT(UBLK_F_USER_COPY),
#endif
#ifdef UBLK_F_ZONED
	FACT(UBLK_F_ZONED),
#endif
#ifdef UBLK_F_USER_RECOVERY_FAIL_IO
	FACT(UBLK_F_USER_RECOVERY_FAIL_IO),
#endif
#ifdef UBLK_F_UPDATE_SIZE
	FACT(UBLK_F_UPDATE_SIZE),
#endif
#ifdef UBLK_F_AUTO_BUF_REG
	FACT(UBLK_F_AUTO_BUF_REG),
#endif
#ifdef UBLK_F_QUIESCE
	FACT(UBLK_F_QUIESCE),
#endif
#ifdef UBLK_F_PER_IO_DAEMON
	FACT(UBLK_F_PER_IO_DAEMON),
#endif
#ifdef UBLK_F_BUF_REG_OFF_DAEMON
	FACT(UBLK_F_BUF_REG_OFF_DAEMON),
#endif
#ifdef UBLK_F_BATCH_IO
	FACT(UBLK_F_BATCH_IO),
#endif
#ifdef UBLK_F_INTEGRITY
	FACT(UBLK_F_INTEGRITY),
#endif
#ifdef UBLK_F_SAFE_STOP_DEV
	FACT(UBLK_F_SAFE_STOP_DEV),
#endif
#ifdef UBLK_F_NO_AUTO_PART_SCAN
	FACT(UBLK_F_NO_AUTO_PART_SCAN),
#endif
#ifdef UBLK_F_SHMEM_ZC
	FACT(UBLK_F_SHMEM_ZC),
#endif
#ifdef UBLK_S_DEV_DEAD
	FACT(UBLK_S_DEV_DEAD),
#endif
#ifdef UBLK_S_DEV_LIVE
	FACT(UBLK_S_DEV_LIVE),
#endif
#ifdef UBLK_S_DEV_QUIESCED
	FACT(UBLK_S_DEV_QUIESCED),
#endif
#ifdef UBLK_S_DEV_FAIL_IO
	FACT(UBLK_S_DEV_FAIL_IO),
#endif
#ifdef UBLK_IO_OP_READ
	FACT(UBLK_IO_OP_READ),
#endif
#ifdef UBLK_IO_OP_WRITE
	FACT(UBLK_IO_OP_WRITE),
#endif
#ifdef UBLK_IO_OP_FLUSH
	FACT(UBLK_IO_OP_FLUSH),
#endif
#ifdef UBLK_IO_OP_DISCARD
	FACT(UBLK_IO_OP_DISCARD),
#endif
#ifdef UBLK_IO_OP_WRITE_SAME
	FACT(UBLK_IO_OP_WRITE_SAME),
#endif
#ifdef UBLK_IO_OP_WRITE_ZEROES
	FACT(UBLK_IO_OP_WRITE_ZEROES),
#endif
#ifdef UBLK_IO_OP_ZONE_OPEN
	FACT(UBLK_IO_OP_ZONE_OPEN),
#endif
#ifdef UBLK_IO_OP_ZONE_CLOSE
	FACT(UBLK_IO_OP_ZONE_CLOSE),
#endif
#ifdef UBLK_IO_OP_ZONE_FINISH
	FACT(UBLK_IO_OP_ZONE_FINISH),
#endif
#ifdef UBLK_IO_OP_ZONE_APPEND
	FACT(UBLK_IO_OP_ZONE_APPEND),
#endif
#ifdef UBLK_IO_OP_ZONE_RESET_ALL
	FACT(UBLK_IO_OP_ZONE_RESET_ALL),
#endif
#ifdef UBLK_IO_OP_ZONE_RESET
	FACT(UBLK_IO_OP_ZONE_RESET),
#endif
#ifdef UBLK_IO_OP_REPORT_ZONES
	FACT(UBLK_IO_OP_REPORT_ZONES),
#endif
#ifdef UBLK_IO_F_FAILFAST_DEV
	FACT(UBLK_IO_F_FAILFAST_DEV),
#endif
#ifdef UBLK_IO_F_FAILFAST_TRANSPORT
	FACT(UBLK_IO_F_FAILFAST_TRANSPORT),
#endif
#ifdef UBLK_IO_F_FAILFAST_DRIVER
	FACT(UBLK_IO_F_FAILFAST_DRIVER),
#endif
#ifdef UBLK_IO_F_META
	FACT(UBLK_IO_F_META),
#endif
#ifdef UBLK_IO_F_FUA
	FACT(UBLK_IO_F_FUA),
#endif
#ifdef UBLK_IO_F_NOUNMAP
	FACT(UBLK_IO_F_NOUNMAP),
#endif
#ifdef UBLK_IO_F_SWAP
	FACT(UBLK_IO_F_SWAP),
#endif
#ifdef UBLK_IO_F_NEED_REG_BUF
	FACT(UBLK_IO_F_NEED_REG_BUF),
#endif
#ifdef UBLK_IO_F_INTEGRITY
	FACT(UBLK_IO_F_INTEGRITY),
#endif
#ifdef UBLK_IO_F_SHMEM_ZC
	FACT(UBLK_IO_F_SHMEM_ZC),
#endif
#ifdef UBLK_AUTO_BUF_REG_FALLBACK
	FACT(UBLK_AUTO_BUF_REG_FALLBACK),
#endif
#ifdef UBLK_BATCH_F_HAS_ZONE_LBA
	FACT(UBLK_BATCH_F_HAS_ZONE_LBA),
#endif
#ifdef UBLK_BATCH_F_HAS_BUF_ADDR
	FACT(UBLK_BATCH_F_HAS_BUF_ADDR),
#endif
#ifdef UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK
	FACT(UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK),
#endif
#ifdef UBLK_ATTR_READ_ONLY
	FACT(UBLK_ATTR_READ_ONLY),
#endif
#ifdef UBLK_ATTR_ROTATIONAL
	FACT(UBLK_ATTR_ROTATIONAL),
#endif
#ifdef UBLK_ATTR_VOLATILE_CACHE
	FACT(UBLK_ATTR_VOLATILE_CACHE),
#endif
#ifdef UBLK_ATTR_FUA
	FACT(UBLK_ATTR_FUA),
#endif
#ifdef UBLK_PARAM_TYPE_BASIC
	FACT(UBLK_PARAM_TYPE_BASIC),
#endif
#ifdef UBLK_PARAM_TYPE_DISCARD
	FACT(UBLK_PARAM_TYPE_DISCARD),
#endif
#ifdef UBLK_PARAM_TYPE_DEVT
	FACT(UBLK_PARAM_TYPE_DEVT),
#endif
#ifdef UBLK_PARAM_TYPE_ZONED
	FACT(UBLK_PARAM_TYPE_ZONED),
#endif
#ifdef UBLK_PARAM_TYPE_DMA_ALIGN
	FACT(UBLK_PARAM_TYPE_DMA_ALIGN),
#endif
#ifdef UBLK_PARAM_TYPE_SEGMENT
	FACT(UBLK_PARAM_TYPE_SEGMENT),
#endif
#ifdef UBLK_PARAM_TYPE_INTEGRITY
	FACT(UBLK_PARAM_TYPE_INTEGRITY),
#endif
#ifdef UBLK_MAX_NR_QUEUES
	FACT(UBLK_MAX_NR_QUEUES),
#endif
#ifdef UBLK_IO_BUF_BITS
	FACT(UBLK_IO_BUF_BITS),
#endif
#ifdef UBLK_TAG_OFF
	FACT(UBLK_TAG_OFF),
#endif
#ifdef UBLK_QID_OFF
	FACT(UBLK_QID_OFF),
#endif
#ifdef UBLK_FEATURES_LEN
	FACT(UBLK_FEATURES_LEN),
#endif

	SIZE(ublksrv_ctrl_cmd),
	AT(ublksrv_ctrl_cmd, dev_id),
	AT(ublksrv_ctrl_cmd, queue_id),
	AT(ublksrv_ctrl_cmd, len),
	AT(ublksrv_ctrl_cmd, addr),
	AT(ublksrv_ctrl_cmd, data),
#ifdef UBLK_F_UNPRIVILEGED_DEV
	AT(ublksrv_ctrl_cmd, dev_path_len),
	AT(ublksrv_ctrl_cmd, pad),
	AT(ublksrv_ctrl_cmd, reserved),
#endif
	SIZE(ublksrv_ctrl_dev_info),
	AT(ublksrv_ctrl_dev_info, nr_hw_queues),
	AT(ublksrv_ctrl_dev_info, queue_depth),
	AT(ublksrv_ctrl_dev_info, state),
	AT(ublksrv_ctrl_dev_info, pad0),
	AT(ublksrv_ctrl_dev_info, max_io_buf_bytes),
	AT(ublksrv_ctrl_dev_info, dev_id),
	AT(ublksrv_ctrl_dev_info, ublksrv_pid),
	AT(ublksrv_ctrl_dev_info, pad1),
	AT(ublksrv_ctrl_dev_info, flags),
	AT(ublksrv_ctrl_dev_info, ublksrv_flags),
#ifdef UBLK_F_UNPRIVILEGED_DEV
	AT(ublksrv_ctrl_dev_info, owner_uid),
	AT(ublksrv_ctrl_dev_info, owner_gid),
#endif
	AT(ublksrv_ctrl_dev_info, reserved1),
	AT(ublksrv_ctrl_dev_info, reserved2),
	SIZE(ublksrv_io_desc),
	AT(ublksrv_io_desc, op_flags),
	AT(ublksrv_io_desc, nr_sectors),
	AT(ublksrv_io_desc, start_sector),
	AT(ublksrv_io_desc, addr),
	SIZE(ublksrv_io_cmd),
	AT(ublksrv_io_cmd, q_id),
	AT(ublksrv_io_cmd, tag),
	AT(ublksrv_io_cmd, result),
	AT(ublksrv_io_cmd, addr),
#ifdef UBLK_F_AUTO_BUF_REG
	SIZE(ublk_auto_buf_reg),
	AT(ublk_auto_buf_reg, index),
	AT(ublk_auto_buf_reg, flags),
	AT(ublk_auto_buf_reg, reserved0),
	AT(ublk_auto_buf_reg, reserved1),
#endif
#ifdef UBLK_F_BATCH_IO
	SIZE(ublk_elem_header),
	AT(ublk_elem_header, tag),
	AT(ublk_elem_header, buf_index),
	AT(ublk_elem_header, result),
	SIZE(ublk_batch_io),
	AT(ublk_batch_io, q_id),
	AT(ublk_batch_io, flags),
	AT(ublk_batch_io, nr_elem),
	AT(ublk_batch_io, elem_bytes),
	AT(ublk_batch_io, reserved),
	AT(ublk_batch_io, reserved2),
#endif
#ifdef UBLK_F_SHMEM_ZC
	SIZE(ublk_shmem_buf_reg),
	AT(ublk_shmem_buf_reg, addr),
	AT(ublk_shmem_buf_reg, len),
	AT(ublk_shmem_buf_reg, flags),
	AT(ublk_shmem_buf_reg, reserved),
#endif
	SIZE(ublk_param_basic),
	AT(ublk_param_basic, attrs),
	AT(ublk_param_basic, logical_bs_shift),
	AT(ublk_param_basic, physical_bs_shift),
	AT(ublk_param_basic, io_opt_shift),
	AT(ublk_param_basic, io_min_shift),
	AT(ublk_param_basic, max_sectors),
	AT(ublk_param_basic, chunk_sectors),
	AT(ublk_param_basic, dev_sectors),
	AT(ublk_param_basic, virt_boundary_mask),
	SIZE(ublk_param_discard),
	AT(ublk_param_discard, discard_alignment),
	AT(ublk_param_discard, discard_granularity),
	AT(ublk_param_discard, max_discard_sectors),
	AT(ublk_param_discard, max_write_zeroes_sectors),
	AT(ublk_param_discard, max_discard_segments),
	AT(ublk_param_discard, reserved0),
#ifdef UBLK_PARAM_TYPE_DEVT
	SIZE(ublk_param_devt),
	AT(ublk_param_devt, char_major),
	AT(ublk_param_devt, char_minor),
	AT(ublk_param_devt, disk_major),
	AT(ublk_param_devt, disk_minor),
#endif
#ifdef UBLK_PARAM_TYPE_ZONED
	SIZE(ublk_param_zoned),
	AT(ublk_param_zoned, max_open_zones),
	AT(ublk_param_zoned, max_active_zones),
	AT(ublk_param_zoned, max_zone_append_sectors),
#endif
#ifdef UBLK_PARAM_TYPE_DMA_ALIGN
	SIZE(ublk_param_dma_align),
	AT(ublk_param_dma_align, alignment),
#endif
#ifdef UBLK_PARAM_TYPE_SEGMENT
	SIZE(ublk_param_segment),
	AT(ublk_param_segment, seg_boundary_mask),
	AT(ublk_param_segment, max_segment_size),
	AT(ublk_param_segment, max_segments),
#endif
#ifdef UBLK_PARAM_TYPE_INTEGRITY
	SIZE(ublk_param_integrity),
	AT(ublk_param_integrity, flags),
	AT(ublk_param_integrity, max_integrity_segments),
	AT(ublk_param_integrity, interval_exp),
	AT(ublk_param_integrity, metadata_size),
	AT(ublk_param_integrity, pi_offset),
	AT(ublk_param_integrity, csum_type),
	AT(ublk_param_integrity, tag_size),
#endif
	AT(ublk_params, len),
	AT(ublk_params, types),
	AT(ublk_params, basic),
	AT(ublk_params, discard),
#ifdef UBLK_PARAM_TYPE_DEVT
	AT(ublk_params, devt),
#endif
#ifdef UBLK_PARAM_TYPE_ZONED
	AT(ublk_params, zoned),
#endif
#ifdef UBLK_PARAM_TYPE_DMA_ALIGN
	AT(ublk_params, dma),
#endif
#ifdef UBLK_PARAM_TYPE_SEGMENT
	AT(ublk_params, seg),
#endif
#ifdef UBLK_PARAM_TYPE_INTEGRITY
	AT(ublk_params, integrity),
	SIZE(ublk_params),
#endif
};

const unsigned system_abi_count = sizeof(system_abi) / sizeof(*system_abi);
