/* SPDX-License-Identifier: MIT */
#include "engine/device_list.h"
#include "engine/ublk_abi.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int device_list_by_id(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int device_list_find(uint32_t **ids, unsigned *nr)
{
	struct dirent *entry;
	DIR *dir = opendir("/dev");
	uint32_t *more;
	unsigned id;
	char rest;
	int ret = 0;

	*ids = NULL;
	*nr = 0;
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (sscanf(entry->d_name, "ublkc%u%c", &id, &rest) != 1)
			continue;
		more = realloc(*ids, (*nr + 1) * sizeof(**ids));
		if (!more) {
			ret = -ENOMEM;
			break;
		}
		*ids = more;
		more[(*nr)++] = id;
	}
	closedir(dir);
	if (ret) {
		free(*ids);
		*ids = NULL;
		*nr = 0;
	}
	if (*nr)
		qsort(*ids, *nr, sizeof(**ids), device_list_by_id);
	return ret;
}

const char *devices_state_name(unsigned state)
{
	static const char *const names[] = {
		[UBLK_DEV_DEAD] = "dead",
		[UBLK_DEV_LIVE] = "live",
		[UBLK_DEV_QUIESCED] = "quiesced",
		[UBLK_DEV_FAIL_IO] = "fail-io",
	};

	return state < sizeof(names) / sizeof(*names) ? names[state] : "unknown";
}
