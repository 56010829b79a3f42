/* SPDX-License-Identifier: MIT */
/*
 * The ublk driver's interface, Linux 6.0 to 7.2, in our own words.
 *
 * Source: include/uapi/linux/ublk_cmd.h and drivers/block/ublk_drv.c of Linux
 * 7.2; the release that brought each thing stands beside it.  The system's own
 * header is often older than the kernel that runs, so every number is stated
 * here, and only here.  tests/unit/test-abi.c compares this file with the
 * system's header for everything that header has.
 */
#ifndef UBLKD_UBLK_ABI_H
#define UBLKD_UBLK_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/ioctl.h>

#define UBLK_CONTROL_PATH "/dev/ublk-control"
#define UBLK_CHAR_PREFIX  "/dev/ublkc" /* + device id: where the server serves */
#define UBLK_BLOCK_PREFIX "/dev/ublkb" /* + device id: the block device */

#define UBLK_QUEUE_NONE   0xffffu     /* ublk_ctrl_cmd.queue_id when no queue is meant */
#define UBLK_ID_AUTO      0xffffffffu /* ADD_DEV: the driver picks the id */
#define UBLK_DEPTH_MAX    4096u       /* tags a queue */
#define UBLK_QUEUES_MAX   4096u       /* reduced to the CPUs by the driver */
#define UBLK_IO_MAX       (32u << 20) /* user copy's offset has 25 bits for the byte */
#define UBLK_SECTOR_SHIFT 9           /* every sector count below: 512 bytes */

/* ---- control commands: IORING_OP_URING_CMD on UBLK_CONTROL_PATH, 128-byte SQE ---- */

struct ublk_ctrl_cmd { /* the SQE's payload */
	uint32_t dev_id;
	uint16_t queue_id; /* UBLK_QUEUE_NONE but for GET_QUEUE_AFFINITY */
	uint16_t len;      /* bytes at addr */
	uint64_t addr;     /* buffer, in or out */
	uint64_t data;     /* one inline argument */
	uint16_t dev_path_len;
	uint16_t pad;
	uint32_t reserved;
};

#define UBLK_CTRL_R(nr)  _IOR('u', nr, struct ublk_ctrl_cmd)
#define UBLK_CTRL_RW(nr) _IOWR('u', nr, struct ublk_ctrl_cmd)

#define UBLK_CTRL_GET_QUEUE_AFFINITY  UBLK_CTRL_R(0x01)  /* 6.0: data = queue */
#define UBLK_CTRL_GET_DEV_INFO        UBLK_CTRL_R(0x02)  /* 6.0 */
#define UBLK_CTRL_ADD_DEV             UBLK_CTRL_RW(0x04) /* 6.0 */
#define UBLK_CTRL_DEL_DEV             UBLK_CTRL_RW(0x05) /* 6.0: waits for the last reference */
#define UBLK_CTRL_START_DEV           UBLK_CTRL_RW(0x06) /* 6.0: data = opener's tgid */
#define UBLK_CTRL_STOP_DEV            UBLK_CTRL_RW(0x07) /* 6.0 */
#define UBLK_CTRL_SET_PARAMS          UBLK_CTRL_RW(0x08) /* 6.0 */
#define UBLK_CTRL_GET_PARAMS          UBLK_CTRL_R(0x09)  /* 6.0 */
#define UBLK_CTRL_START_USER_RECOVERY UBLK_CTRL_RW(0x10) /* 6.1 */
#define UBLK_CTRL_END_USER_RECOVERY   UBLK_CTRL_RW(0x11) /* 6.1: data = new tgid */
#define UBLK_CTRL_GET_DEV_INFO2       UBLK_CTRL_R(0x12)  /* 6.3 */
#define UBLK_CTRL_GET_FEATURES        UBLK_CTRL_R(0x13)  /* 6.5: len = 8 */
#define UBLK_CTRL_DEL_DEV_ASYNC       UBLK_CTRL_R(0x14)  /* 6.9 */
#define UBLK_CTRL_UPDATE_SIZE         UBLK_CTRL_RW(0x15) /* 6.16: data = sectors */
#define UBLK_CTRL_QUIESCE_DEV         UBLK_CTRL_RW(0x16) /* 6.16: data = ms, 0 = for ever */
#define UBLK_CTRL_TRY_STOP_DEV        UBLK_CTRL_RW(0x17) /* 7.0 */
#define UBLK_CTRL_REG_BUF             UBLK_CTRL_RW(0x18) /* 7.1 */
#define UBLK_CTRL_UNREG_BUF           UBLK_CTRL_RW(0x19) /* 7.1: data = index */

struct ublk_dev_info {
	uint16_t nr_hw_queues;
	uint16_t queue_depth;
	uint16_t state;        /* enum ublk_dev_state */
	uint16_t io_desc_size; /* 7.3: of one ublk_io_desc, with UBLK_FEAT_IO_DESC_SIZE; else 0 */
	uint32_t max_io_buf_bytes;
	uint32_t dev_id;
	int32_t server_pid; /* tgid of the server, -1 without one */
	uint32_t pad1;
	uint64_t flags;        /* UBLK_FEAT_* */
	uint64_t server_flags; /* the server's own, kept by the driver */
	uint32_t owner_uid;    /* 6.3 */
	uint32_t owner_gid;    /* 6.3 */
	uint64_t reserved1;
	uint64_t reserved2;
};

enum ublk_dev_state {
	UBLK_DEV_DEAD = 0,
	UBLK_DEV_LIVE = 1,
	UBLK_DEV_QUIESCED = 2, /* 6.1 */
	UBLK_DEV_FAIL_IO = 3,  /* 6.13 */
};

/* ---- features: bits of ublk_dev_info.flags and of GET_FEATURES ---- */

#define UBLK_FEAT_ZERO_COPY          (1ull << 0)  /* usable from 6.15 */
#define UBLK_FEAT_COMP_IN_TASK       (1ull << 1)  /* always set, no effect */
#define UBLK_FEAT_NEED_GET_DATA      (1ull << 2)  /* 6.0 */
#define UBLK_FEAT_RECOVERY           (1ull << 3)  /* 6.1 */
#define UBLK_FEAT_RECOVERY_REISSUE   (1ull << 4)  /* 6.1 */
#define UBLK_FEAT_UNPRIVILEGED       (1ull << 5)  /* 6.3 */
#define UBLK_FEAT_IOCTL_ENCODE       (1ull << 6)  /* 6.4 */
#define UBLK_FEAT_USER_COPY          (1ull << 7)  /* 6.5 */
#define UBLK_FEAT_ZONED              (1ull << 8)  /* 6.6 */
#define UBLK_FEAT_RECOVERY_FAIL_IO   (1ull << 9)  /* 6.13 */
#define UBLK_FEAT_UPDATE_SIZE        (1ull << 10) /* 6.16 */
#define UBLK_FEAT_AUTO_BUF_REG       (1ull << 11) /* 6.16 */
#define UBLK_FEAT_QUIESCE            (1ull << 12) /* 6.16 */
#define UBLK_FEAT_PER_IO_DAEMON      (1ull << 13) /* 6.16 */
#define UBLK_FEAT_BUF_REG_OFF_DAEMON (1ull << 14) /* 6.17 */
#define UBLK_FEAT_BATCH_IO           (1ull << 15) /* 7.0 */
#define UBLK_FEAT_INTEGRITY          (1ull << 16) /* 7.0 */
#define UBLK_FEAT_SAFE_STOP          (1ull << 17) /* 7.0 */
#define UBLK_FEAT_NO_PART_SCAN       (1ull << 18) /* 7.0 */
#define UBLK_FEAT_SHMEM_ZC           (1ull << 19) /* 7.1 */
#define UBLK_FEAT_IO_DESC_SIZE       (1ull << 20) /* 7.3 */
#define UBLK_FEAT_COUNT              21

/* ---- I/O commands: IORING_OP_URING_CMD on /dev/ublkcN, 64-byte SQE ---- */

struct ublk_io_cmd { /* the SQE's payload */
	uint16_t q_id;
	uint16_t tag;
	int32_t result; /* commit: bytes, or -errno */
	uint64_t addr;  /* copy: the buffer; zone append: the LBA; else 0 */
};

#define UBLK_IO_RW(nr) _IOWR('u', nr, struct ublk_io_cmd)

#define UBLK_IO_FETCH            UBLK_IO_RW(0x20) /* 6.0 */
#define UBLK_IO_COMMIT_AND_FETCH UBLK_IO_RW(0x21) /* 6.0 */
#define UBLK_IO_GET_DATA         UBLK_IO_RW(0x22) /* 6.0 */
#define UBLK_IO_REGISTER_BUF     UBLK_IO_RW(0x23) /* 6.15: addr = table index */
#define UBLK_IO_UNREGISTER_BUF   UBLK_IO_RW(0x24) /* 6.15: addr = table index */
#define UBLK_IO_PREP_BATCH       UBLK_IO_RW(0x25) /* 7.0 */
#define UBLK_IO_COMMIT_BATCH     UBLK_IO_RW(0x26) /* 7.0 */
#define UBLK_IO_FETCH_BATCH      UBLK_IO_RW(0x27) /* 7.0 */

#define UBLK_RES_OK       0     /* a request is there to be handled */
#define UBLK_RES_GET_DATA 1     /* a write waits for its buffer */
#define UBLK_RES_ABORT    (-19) /* -ENODEV: the device stops, fetch no more */

struct ublk_io_desc {      /* one a tag, in the array that ublkcN maps read-only */
	uint32_t op_flags; /* enum ublk_op in bits 0-7, UBLK_REQ_* above */
	uint32_t nr_sectors;
	uint64_t start_sector;
	uint64_t addr;
};

enum ublk_op {
	UBLK_OP_READ = 0,
	UBLK_OP_WRITE = 1,
	UBLK_OP_FLUSH = 2,
	UBLK_OP_DISCARD = 3,
	UBLK_OP_WRITE_SAME = 4, /* never sent */
	UBLK_OP_WRITE_ZEROES = 5,
	UBLK_OP_ZONE_OPEN = 10, /* 6.6, as the rest */
	UBLK_OP_ZONE_CLOSE = 11,
	UBLK_OP_ZONE_FINISH = 12,
	UBLK_OP_ZONE_APPEND = 13,
	UBLK_OP_ZONE_RESET_ALL = 14,
	UBLK_OP_ZONE_RESET = 15,
	UBLK_OP_REPORT_ZONES = 18,
};
#define UBLK_OP_MASK 0xffu

#define UBLK_REQ_FAILFAST_DEV       (1u << 8)
#define UBLK_REQ_FAILFAST_TRANSPORT (1u << 9)
#define UBLK_REQ_FAILFAST_DRIVER    (1u << 10)
#define UBLK_REQ_META               (1u << 11)
#define UBLK_REQ_FUA                (1u << 13)
#define UBLK_REQ_NOUNMAP            (1u << 15) /* write zeroes: keep the blocks */
#define UBLK_REQ_SWAP               (1u << 16)
#define UBLK_REQ_NEED_REG_BUF       (1u << 17) /* 6.16: automatic registration failed */
#define UBLK_REQ_INTEGRITY          (1u << 18) /* 7.0 */
#define UBLK_REQ_SHMEM_ZC           (1u << 19) /* 7.1 */

/* Offset of queue q's descriptor array in a mapping of ublkcN. */
#define UBLK_DESC_STRIDE(page) \
	((UBLK_DEPTH_MAX * sizeof(struct ublk_io_desc) + (page)-1) / (page) * (page))

/* Offset of a request's data byte for pread and pwrite on ublkcN (user copy, 6.5). */
#define UBLK_USER_COPY_BASE     0x80000000ull
#define UBLK_USER_COPY_TAG(tag) ((uint64_t)(tag) << 25)
#define UBLK_USER_COPY_OFFSET(q, tag, byte) \
	(UBLK_USER_COPY_BASE + ((uint64_t)(q) << 41 | UBLK_USER_COPY_TAG(tag) | (uint64_t)(byte)))
#define UBLK_USER_COPY_INTEGRITY (1ull << 62) /* 7.0: the integrity data instead */

/* Automatic buffer registration (6.16): packed into sqe->addr of fetch and commit. */
struct ublk_auto_buf {
	uint16_t index; /* in the ring's buffer table */
	uint8_t flags;
	uint8_t reserved0;
	uint32_t reserved1;
};
#define UBLK_AUTO_BUF_FALLBACK (1u << 0) /* say NEED_REG_BUF instead of failing the request */

/* Batches (7.0). */
struct ublk_batch_io {
	uint16_t q_id;
	uint16_t flags; /* UBLK_BATCH_* */
	uint16_t nr_elem;
	uint8_t elem_bytes;
	uint8_t reserved;
	uint64_t reserved2;
};
struct ublk_batch_elem { /* then a u64 buffer address and a u64 zone LBA, as flags say */
	uint16_t tag;
	uint16_t buf_index;
	int32_t result;
};
#define UBLK_BATCH_ZONE_LBA          (1u << 0)
#define UBLK_BATCH_BUF_ADDR          (1u << 1)
#define UBLK_BATCH_AUTO_BUF_FALLBACK (1u << 2)

/* Shared memory zero copy (7.1). */
struct ublk_shmem_buf {
	uint64_t addr;
	uint64_t len;
	uint32_t flags;
	uint32_t reserved;
};

/* ---- parameters: SET_PARAMS and GET_PARAMS ---- */

struct ublk_basic_params {
	uint32_t attrs; /* UBLK_DEVATTR_* */
	uint8_t logical_bs_shift;
	uint8_t physical_bs_shift;
	uint8_t io_opt_shift;
	uint8_t io_min_shift;
	uint32_t max_sectors;
	uint32_t chunk_sectors;
	uint64_t dev_sectors;
	uint64_t virt_boundary_mask;
};
#define UBLK_DEVATTR_READ_ONLY      (1u << 0)
#define UBLK_DEVATTR_ROTATIONAL     (1u << 1)
#define UBLK_DEVATTR_VOLATILE_CACHE (1u << 2) /* without it no FLUSH and no FUA is sent */
#define UBLK_DEVATTR_FUA            (1u << 3)

struct ublk_discard_params {
	uint32_t alignment;
	uint32_t granularity; /* bytes; not 0, for write zeroes alone neither */
	uint32_t max_discard_sectors;
	uint32_t max_write_zeroes_sectors;
	uint16_t max_discard_segments; /* must be 1 */
	uint16_t reserved;
};
struct ublk_devt_params { /* read only, 6.3 */
	uint32_t char_major;
	uint32_t char_minor;
	uint32_t disk_major;
	uint32_t disk_minor;
};
struct ublk_zoned_params { /* 6.6 */
	uint32_t max_open_zones;
	uint32_t max_active_zones;
	uint32_t max_zone_append_sectors;
	uint8_t reserved[20];
};
struct ublk_dma_params {    /* 6.15 */
	uint32_t alignment; /* a mask: alignment in bytes - 1 */
	uint8_t pad[4];
};
struct ublk_segment_params { /* 6.15: all three or none */
	uint64_t seg_boundary_mask;
	uint32_t max_segment_size;
	uint16_t max_segments;
	uint8_t pad[2];
};
struct ublk_integrity_params { /* 7.0 */
	uint32_t flags;
	uint16_t max_integrity_segments;
	uint8_t interval_exp;
	uint8_t metadata_size;
	uint8_t pi_offset;
	uint8_t csum_type;
	uint8_t tag_size;
	uint8_t pad[5];
};

struct ublk_dev_params {
	uint32_t len;   /* bytes of this struct that count */
	uint32_t types; /* UBLK_PARAMS_*: which members count */
	struct ublk_basic_params basic;
	struct ublk_discard_params discard;
	struct ublk_devt_params devt;
	struct ublk_zoned_params zoned;
	struct ublk_dma_params dma;
	struct ublk_segment_params seg;
	struct ublk_integrity_params integrity;
};
#define UBLK_PARAMS_BASIC     (1u << 0)
#define UBLK_PARAMS_DISCARD   (1u << 1)
#define UBLK_PARAMS_DEVT      (1u << 2)
#define UBLK_PARAMS_ZONED     (1u << 3)
#define UBLK_PARAMS_DMA       (1u << 4)
#define UBLK_PARAMS_SEGMENT   (1u << 5)
#define UBLK_PARAMS_INTEGRITY (1u << 6)

/* ---- layout ---- */

#define ABI_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)
#define ABI_AT(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), #type "." #member)

ABI_SIZE(ublk_ctrl_cmd, 32);
ABI_AT(ublk_ctrl_cmd, dev_id, 0);
ABI_AT(ublk_ctrl_cmd, queue_id, 4);
ABI_AT(ublk_ctrl_cmd, len, 6);
ABI_AT(ublk_ctrl_cmd, addr, 8);
ABI_AT(ublk_ctrl_cmd, data, 16);
ABI_AT(ublk_ctrl_cmd, dev_path_len, 24);
ABI_AT(ublk_ctrl_cmd, pad, 26);
ABI_AT(ublk_ctrl_cmd, reserved, 28);

ABI_SIZE(ublk_dev_info, 64);
ABI_AT(ublk_dev_info, nr_hw_queues, 0);
ABI_AT(ublk_dev_info, queue_depth, 2);
ABI_AT(ublk_dev_info, state, 4);
ABI_AT(ublk_dev_info, io_desc_size, 6);
ABI_AT(ublk_dev_info, max_io_buf_bytes, 8);
ABI_AT(ublk_dev_info, dev_id, 12);
ABI_AT(ublk_dev_info, server_pid, 16);
ABI_AT(ublk_dev_info, pad1, 20);
ABI_AT(ublk_dev_info, flags, 24);
ABI_AT(ublk_dev_info, server_flags, 32);
ABI_AT(ublk_dev_info, owner_uid, 40);
ABI_AT(ublk_dev_info, owner_gid, 44);
ABI_AT(ublk_dev_info, reserved1, 48);
ABI_AT(ublk_dev_info, reserved2, 56);

ABI_SIZE(ublk_io_desc, 24);
ABI_AT(ublk_io_desc, op_flags, 0);
ABI_AT(ublk_io_desc, nr_sectors, 4);
ABI_AT(ublk_io_desc, start_sector, 8);
ABI_AT(ublk_io_desc, addr, 16);

ABI_SIZE(ublk_io_cmd, 16);
ABI_AT(ublk_io_cmd, q_id, 0);
ABI_AT(ublk_io_cmd, tag, 2);
ABI_AT(ublk_io_cmd, result, 4);
ABI_AT(ublk_io_cmd, addr, 8);

ABI_SIZE(ublk_auto_buf, 8);
ABI_AT(ublk_auto_buf, index, 0);
ABI_AT(ublk_auto_buf, flags, 2);
ABI_AT(ublk_auto_buf, reserved0, 3);
ABI_AT(ublk_auto_buf, reserved1, 4);

ABI_SIZE(ublk_batch_io, 16);
ABI_AT(ublk_batch_io, q_id, 0);
ABI_AT(ublk_batch_io, flags, 2);
ABI_AT(ublk_batch_io, nr_elem, 4);
ABI_AT(ublk_batch_io, elem_bytes, 6);
ABI_AT(ublk_batch_io, reserved, 7);
ABI_AT(ublk_batch_io, reserved2, 8);

ABI_SIZE(ublk_batch_elem, 8);
ABI_AT(ublk_batch_elem, tag, 0);
ABI_AT(ublk_batch_elem, buf_index, 2);
ABI_AT(ublk_batch_elem, result, 4);

ABI_SIZE(ublk_shmem_buf, 24);
ABI_AT(ublk_shmem_buf, addr, 0);
ABI_AT(ublk_shmem_buf, len, 8);
ABI_AT(ublk_shmem_buf, flags, 16);
ABI_AT(ublk_shmem_buf, reserved, 20);

ABI_SIZE(ublk_basic_params, 32);
ABI_AT(ublk_basic_params, attrs, 0);
ABI_AT(ublk_basic_params, logical_bs_shift, 4);
ABI_AT(ublk_basic_params, physical_bs_shift, 5);
ABI_AT(ublk_basic_params, io_opt_shift, 6);
ABI_AT(ublk_basic_params, io_min_shift, 7);
ABI_AT(ublk_basic_params, max_sectors, 8);
ABI_AT(ublk_basic_params, chunk_sectors, 12);
ABI_AT(ublk_basic_params, dev_sectors, 16);
ABI_AT(ublk_basic_params, virt_boundary_mask, 24);

ABI_SIZE(ublk_discard_params, 20);
ABI_AT(ublk_discard_params, alignment, 0);
ABI_AT(ublk_discard_params, granularity, 4);
ABI_AT(ublk_discard_params, max_discard_sectors, 8);
ABI_AT(ublk_discard_params, max_write_zeroes_sectors, 12);
ABI_AT(ublk_discard_params, max_discard_segments, 16);
ABI_AT(ublk_discard_params, reserved, 18);

ABI_SIZE(ublk_devt_params, 16);
ABI_AT(ublk_devt_params, char_major, 0);
ABI_AT(ublk_devt_params, char_minor, 4);
ABI_AT(ublk_devt_params, disk_major, 8);
ABI_AT(ublk_devt_params, disk_minor, 12);

ABI_SIZE(ublk_zoned_params, 32);
ABI_AT(ublk_zoned_params, max_open_zones, 0);
ABI_AT(ublk_zoned_params, max_active_zones, 4);
ABI_AT(ublk_zoned_params, max_zone_append_sectors, 8);

ABI_SIZE(ublk_dma_params, 8);
ABI_AT(ublk_dma_params, alignment, 0);

ABI_SIZE(ublk_segment_params, 16);
ABI_AT(ublk_segment_params, seg_boundary_mask, 0);
ABI_AT(ublk_segment_params, max_segment_size, 8);
ABI_AT(ublk_segment_params, max_segments, 12);

ABI_SIZE(ublk_integrity_params, 16);
ABI_AT(ublk_integrity_params, flags, 0);
ABI_AT(ublk_integrity_params, max_integrity_segments, 4);
ABI_AT(ublk_integrity_params, interval_exp, 6);
ABI_AT(ublk_integrity_params, metadata_size, 7);
ABI_AT(ublk_integrity_params, pi_offset, 8);
ABI_AT(ublk_integrity_params, csum_type, 9);
ABI_AT(ublk_integrity_params, tag_size, 10);

ABI_SIZE(ublk_dev_params, 152);
ABI_AT(ublk_dev_params, len, 0);
ABI_AT(ublk_dev_params, types, 4);
ABI_AT(ublk_dev_params, basic, 8);
ABI_AT(ublk_dev_params, discard, 40);
ABI_AT(ublk_dev_params, devt, 60);
ABI_AT(ublk_dev_params, zoned, 76);
ABI_AT(ublk_dev_params, dma, 108);
ABI_AT(ublk_dev_params, seg, 120);
ABI_AT(ublk_dev_params, integrity, 136);

#endif
