/* SPDX-License-Identifier: MIT */
/*
 * The host of a backend, where it is the process itself.
 */
#ifndef UBLKD_HOST_H
#define UBLKD_HOST_H

#include "engine/backend.h"

/* Does each with this process's own rights. */
extern const struct backend_host host_here;

#endif
