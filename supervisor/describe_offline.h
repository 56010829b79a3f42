/* SPDX-License-Identifier: MIT */
/*
 * The list of exports and devices while ublkd does not run: the kernel's devices, with what
 * ublkd's records in /run/ublkd say of them.
 *
 * Any thread.
 */
#ifndef UBLKD_DESCRIBE_OFFLINE_H
#define UBLKD_DESCRIBE_OFFLINE_H

#include <jansson.h>

struct control;
struct error;

/*
 * Returns 0 with *exports ([]ExportInfo, the caller's; no health, which only ublkd knows), or
 * -errno with err filled.
 */
int describe_offline(struct control *control, json_t **exports, struct error *err);

#endif
