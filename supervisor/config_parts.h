/* SPDX-License-Identifier: MIT */
/*
 * Shared by the files of the configuration: config.c has the lists and the directory,
 * config_parse.c reads the text of one file, config_write.c writes one.
 */
#ifndef UBLKD_CONFIG_PARTS_H
#define UBLKD_CONFIG_PARTS_H

#include <limits.h>
#include <stddef.h>

struct config;
struct config_pair;
struct error;

#define CONFIG_MAIN_FILE      "ublkd.conf"
#define CONFIG_EXPORTS_FOLDER "exports.d"
#define CONFIG_SUFFIX         ".conf"
#define CONFIG_MARK           "# Written by ublkd" /* how a file of ours begins */

/* Room for one more of an array of n, which only this function has grown; or NULL. */
void *config_grow(void *array, unsigned n, size_t size);

/* Adds an error (all texts are copied), as struct config_error has it.  Returns 0 or -ENOMEM. */
int config_add_error(struct config *config, const char *file, unsigned line, const char *name,
		     const char *text);

void config_free_pairs(struct config_pair *pairs, unsigned n);

/* folder/sub.  Returns 0, or -ENAMETOOLONG with err filled. */
int config_path_in(char path[PATH_MAX], const char *folder, const char *sub, struct error *err);

/*
 * A whole file; the caller frees *text.  Returns 0, or -errno with err filled: -ENOENT
 * where there is none.
 */
int config_read_file(const char *path, char **text, size_t *size, struct error *err);

/*
 * Reads a file and parses it, name as config_parse()'s; one that cannot be read is
 * an error of config's, but for an ublkd.conf that is not there.  Returns 0 or -ENOMEM.
 */
int config_load_file(struct config *config, const char *path, const char *name);

#endif
