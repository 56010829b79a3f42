/* SPDX-License-Identifier: MIT */
/*
 * The exports that a server has.
 */
#ifndef UBLKD_NBD_LIST_H
#define UBLKD_NBD_LIST_H

#include "engine/backend.h"

/* The backend's list(). */
int nbd_list(const struct instance *instance, backend_found_callback *found, void *context,
	     struct error *err);

#endif
