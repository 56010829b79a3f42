/* SPDX-License-Identifier: MIT */
/*
 * container_of(pointer, type, member): the structure of that type whose member the pointer
 * points to.
 */
#ifndef UBLKD_CONTAINER_OF_H
#define UBLKD_CONTAINER_OF_H

#include <stddef.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
