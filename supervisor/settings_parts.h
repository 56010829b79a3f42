/* SPDX-License-Identifier: MIT */
/*
 * Shared by the files of the configuration: settings.c has the lists and the directory,
 * settings_parse.c reads the text of one file, settings_write.c writes one.
 */
#ifndef UBLKD_SETTINGS_PARTS_H
#define UBLKD_SETTINGS_PARTS_H

#include <limits.h>
#include <stddef.h>

struct settings;
struct settings_pair;
struct error;

#define SETTINGS_MAIN_FILE         "ublkd.conf"
#define SETTINGS_EXPORTS_DIRECTORY "exports.d"
#define SETTINGS_SUFFIX            ".conf"
#define SETTINGS_MARK              "# Written by ublkd" /* how a file of ours begins */

/* Room for one more of an array of n, which only this function has grown; or NULL. */
void *settings_grow(void *array, unsigned n, size_t size);

/* Adds an error (all texts are copied), as struct settings_error has it.  Returns 0 or -ENOMEM. */
int settings_add_error(struct settings *settings, const char *file, unsigned line, const char *name,
		       const char *text);

void settings_free_pairs(struct settings_pair *pairs, unsigned n);

/* directory/sub.  Returns 0, or -ENAMETOOLONG with err filled. */
int settings_path_in(char path[PATH_MAX], const char *directory, const char *sub,
		     struct error *err);

/*
 * A whole file; the caller frees *text.  Returns 0, or -errno with err filled: -ENOENT
 * where there is none.
 */
int settings_read_file(const char *path, char **text, size_t *size, struct error *err);

/*
 * Reads a file and parses it, name as settings_parse()'s; one that cannot be read is
 * an error of config's, but for an ublkd.conf that is not there.  Returns 0 or -ENOMEM.
 */
int settings_load_file(struct settings *settings, const char *path, const char *name);

#endif
