/* SPDX-License-Identifier: MIT */
/*
 * JSON for a ublk device that no export of the running ublkd has, by what the kernel says of
 * it: the device of another program, or any device while ublkd does not run.
 *
 * control: open; what it does to the thread is its owner's affair.  Any thread.
 */
#ifndef UBLKD_DESCRIBE_DEVICE_H
#define UBLKD_DESCRIBE_DEVICE_H

#include <jansson.h>
#include <stdint.h>

struct control;
struct holders;

/* ExportInfo with origin foreign; NULL: there is no such device. */
json_t *describe_device(struct control *control, uint32_t id);

/* Details of the same, without its holders; NULL likewise. */
json_t *describe_device_details(struct control *control, uint32_t id);

/* []Holder */
json_t *describe_holders(const struct holders *holders);

/* UBLK_F_* by their names without that prefix, as in <linux/ublk_cmd.h> of Linux 7.3. */
json_t *describe_kernel_flags(uint64_t flags);

#endif
