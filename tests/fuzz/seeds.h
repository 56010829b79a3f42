/* SPDX-License-Identifier: MIT */
/*
 * TARGET --seeds=DIRECTORY: inputs to begin with, which the target makes by itself.
 * In a header, since it is the only thing that all targets share.
 */
#ifndef UBLKD_SEEDS_H
#define UBLKD_SEEDS_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The directory where seeds are wanted, or NULL: the target is to run. */
static inline const char *seeds_directory(int argc, char **argv)
{
	static const char option[] = "--seeds=";

	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], option, strlen(option)))
			return argv[i] + strlen(option);
	return NULL;
}

/* Writes the next one; ends the program where that fails. */
static inline void seeds_write(const char *directory, const void *data, size_t size)
{
	static unsigned number;
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/seed-%u", directory, number++);
	file = fopen(path, "w");
	if (!file || fwrite(data, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(1);
	}
}

#endif
