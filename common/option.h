/* SPDX-License-Identifier: MIT */
/*
 * Options: a table says what there is, and the command line, the configuration,
 * the help and the manual all come from that one table.  Pure; any thread.
 */
#ifndef UBLKD_OPTION_H
#define UBLKD_OPTION_H

#include <stdbool.h>
#include <stdint.h>

struct error;

enum option_type {
	OPTION_FLAG,   /* on or off; on the command line no value means on */
	OPTION_COUNT,  /* a whole number */
	OPTION_SIZE,   /* bytes, with an optional K, M, G, T, P or E (powers of 1024) */
	OPTION_TIME,   /* seconds, or with a unit: ms, s, m or h */
	OPTION_CHOICE, /* one of choices */
	OPTION_TEXT,   /* as it is, not empty */
	OPTION_PATH,   /* the same, of a file or a directory */
};

struct option_def {
	const char *name; /* "block-size"; NULL ends a table */
	enum option_type type;
	const char *choices; /* "auto|on|off": the values that are words, NULL for none */
	const char *dflt;    /* the default, as a user would write it; NULL: unset */
	uint64_t min, max;   /* of a COUNT, SIZE or TIME; max 0: no bound */
	const char *help;    /* one line, no full stop */
};

struct option_value {
	bool set;         /* given, or has a default */
	bool given;       /* by the user */
	int word;         /* index into choices, or -1: a number or text */
	uint64_t number;  /* COUNT, SIZE; TIME: milliseconds; FLAG: 0 or 1 */
	const char *text; /* as written; owned by whoever gave it */
};

/* Number of options in a table (NULL: 0). */
unsigned option_count(const struct option_def *table);

/* Index of the option of that name, or -1. */
int option_find(const struct option_def *table, const char *name);

/* Fills values (option_count(table) of them) with the defaults. */
void option_defaults(const struct option_def *table, struct option_value *values);

/*
 * Parses text (NULL only for a FLAG) as def's value.  text must outlive value.
 * Returns 0, or -EINVAL with err filled.
 */
int option_parse(const struct option_def *def, const char *text, struct option_value *value,
		 struct error *err);

/*
 * Parses "KEY=VALUE", or "KEY" for a flag, into the value of the option KEY of
 * table.  of names whose options they are, for the message.  The string is
 * modified and must outlive values.  Returns 0, or -EINVAL with err filled.
 */
int option_assign(const struct option_def *table, struct option_value *values, char *assignment,
		  const char *of, struct error *err);

/* The word at index of "a|b|c", copied to out (NUL-terminated); false past the end. */
bool option_word(const char *words, unsigned index, char *out, unsigned out_size);

/* The syntax of def's value, for a user: "N|auto", "SIZE", "on|off" …; into out. */
void option_syntax(const struct option_def *def, char *out, unsigned out_size);

/*
 * Parses a size as OPTION_SIZE describes.  Returns 0, -EINVAL (not a size) or
 * -ERANGE (2^63 or beyond).
 */
int size_parse(const char *text, uint64_t *bytes);

/* Parses a time as OPTION_TIME describes.  Returns 0, -EINVAL or -ERANGE. */
int time_parse(const char *text, uint64_t *ms);

/* Writes bytes as people do ("512M", "1.5G"), at most out_size bytes; returns out. */
const char *size_format(uint64_t bytes, char *out, unsigned out_size);

#endif
