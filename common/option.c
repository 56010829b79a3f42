/* SPDX-License-Identifier: MIT */
/*
 * Options by tables: the command line, the keys of the configuration, the help, the manual's check
 * and JSON all derive from one table, so that they cannot disagree.
 *
 * Numbers are parsed strictly, as digits and at most one unit. strtoull(3) alone accepts "-1" for
 * 2^64 - 1 and skips blanks, and a mistyped size must not become a huge disk. A refusal names the
 * option, the given text and the values that it takes.
 *
 * Choices are tried before the type's own syntax, so that a number can also be a word ("auto").
 * option_defaults() parses a table's own defaults in the same way; a wrong one aborts every program
 * that uses the table, so that no test can miss it. size_format() rounds for people: "1.5G" is
 * output only, and size_parse() refuses it.
 *
 * Read option_parse() first, then size_parse() and time_parse(), then bad_value().
 */
#include "common/option.h"
#include "common/error.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char size_units[] = "KMGTPE";

unsigned option_count(const struct option_def *table)
{
	unsigned n = 0;

	while (table && table[n].name)
		n++;
	return n;
}

int option_find(const struct option_def *table, const char *name)
{
	for (unsigned i = 0; table && table[i].name; i++)
		if (!strcmp(table[i].name, name))
			return (int)i;
	return -1;
}

void option_defaults(const struct option_def *table, struct option_value *values)
{
	for (unsigned i = 0; table && table[i].name; i++) {
		values[i] = (struct option_value){ .word = -1 };
		if (table[i].dflt && option_parse(&table[i], table[i].dflt, &values[i], NULL))
			abort(); /* our own table is wrong */
		values[i].given = false;
	}
}

bool option_word(const char *words, unsigned index, char *out, unsigned out_size)
{
	const char *end;

	for (; words; words = end + 1) {
		end = strchrnul(words, '|');
		if (!index--) {
			snprintf(out, out_size, "%.*s", (int)(end - words), words);
			return true;
		}
		if (!*end)
			break;
	}
	return false;
}

static int word_find(const char *words, const char *text)
{
	char word[64];

	for (unsigned i = 0; option_word(words, i, word, sizeof(word)); i++)
		if (!strcmp(word, text))
			return (int)i;
	return -1;
}

/* Digits only, no sign, no space: strtoull alone takes "-1" and " 1". */
static int number_parse(const char *text, const char **end, uint64_t *number)
{
	char *rest;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*number = strtoull(text, &rest, 10);
	if (errno)
		return -ERANGE;
	*end = rest;
	return 0;
}

int size_parse(const char *text, uint64_t *bytes)
{
	const char *end, *unit;
	uint64_t number;
	unsigned shift = 0;
	int ret;

	ret = number_parse(text, &end, &number);
	if (ret)
		return ret;
	if (*end) {
		unit = strchr(size_units, toupper((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned)(unit - size_units + 1);
		end++;
		if (!strcmp(end, "iB"))
			end += 2;
		if (*end)
			return -EINVAL;
	}
	if (number > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*bytes = number << shift;
	return 0;
}

int time_parse(const char *text, uint64_t *ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = { { "", 1000 }, { "s", 1000 }, { "ms", 1 }, { "m", 60000 }, { "h", 3600000 } };
	const char *end;
	uint64_t number;
	int ret;

	ret = number_parse(text, &end, &number);
	if (ret)
		return ret;
	for (unsigned i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (strcmp(end, units[i].name))
			continue;
		if (number > (uint64_t)INT64_MAX / 1000000 / units[i].ms) /* in ns, too */
			return -ERANGE;
		*ms = number * units[i].ms;
		return 0;
	}
	return -EINVAL;
}

const char *size_format(uint64_t bytes, char *out, unsigned out_size)
{
	unsigned unit = 0;
	uint64_t scale = 1;

	while (unit < sizeof(size_units) - 1 && bytes / scale >= 1024) {
		scale <<= 10;
		unit++;
	}
	if (!unit)
		snprintf(out, out_size, "%" PRIu64, bytes);
	else if (bytes % scale == 0)
		snprintf(out, out_size, "%" PRIu64 "%c", bytes / scale, size_units[unit - 1]);
	else
		snprintf(out, out_size, "%.1f%c", (double)bytes / (double)scale,
			 size_units[unit - 1]);
	return out;
}

void option_syntax(const struct option_def *def, char *out, unsigned out_size)
{
	static const char *const kinds[] = {
		[OPTION_FLAG] = "on|off", [OPTION_COUNT] = "N", [OPTION_SIZE] = "SIZE",
		[OPTION_TIME] = "TIME",   [OPTION_CHOICE] = "", [OPTION_TEXT] = "TEXT",
		[OPTION_PATH] = "PATH",
	};
	const char *kind = kinds[def->type];

	snprintf(out, out_size, "%s%s%s", kind, *kind && def->choices ? "|" : "",
		 def->choices ? def->choices : "");
}

static int bad_value(const struct option_def *def, const char *text, struct error *err)
{
	char syntax[80], low[32], high[32];

	option_syntax(def, syntax, sizeof(syntax));
	if (def->type == OPTION_SIZE && (def->min || def->max))
		return error_set(err, EINVAL, "%s: '%s' is not valid: use %s, from %s to %s",
				 def->name, text, syntax, size_format(def->min, low, sizeof(low)),
				 def->max ? size_format(def->max, high, sizeof(high)) : "below 8E");
	if (def->type == OPTION_TIME)
		return error_set(err, EINVAL,
				 "%s: '%s' is not valid: use %s, as in 500ms, 30s or 5m, at least "
				 "%" PRIu64 "ms",
				 def->name, text, syntax, def->min);
	if (def->type == OPTION_COUNT && def->max)
		return error_set(err, EINVAL,
				 "%s: '%s' is not valid: use %s, from %" PRIu64 " to %" PRIu64,
				 def->name, text, syntax, def->min, def->max);
	return error_set(err, EINVAL, "%s: '%s' is not valid: use %s", def->name, text, syntax);
}

int option_parse(const struct option_def *def, const char *text, struct option_value *value,
		 struct error *err)
{
	struct option_value v = { .set = true, .given = true, .word = -1, .text = text };
	const char *end = "";
	int ret = 0;

	if (!text) {
		if (def->type != OPTION_FLAG)
			return error_set(err, EINVAL, "%s needs a value: %s=…", def->name,
					 def->name);
		v.number = 1;
		*value = v;
		return 0;
	}
	if (def->choices)
		v.word = word_find(def->choices, text);
	if (v.word < 0) {
		switch (def->type) {
		case OPTION_FLAG:
			v.number = !strcmp(text, "on");
			ret = v.number || !strcmp(text, "off") ? 0 : -EINVAL;
			break;
		case OPTION_COUNT:
			ret = number_parse(text, &end, &v.number);
			if (*end)
				ret = -EINVAL;
			break;
		case OPTION_SIZE:
			ret = size_parse(text, &v.number);
			break;
		case OPTION_TIME:
			ret = time_parse(text, &v.number);
			break;
		case OPTION_CHOICE:
			ret = -EINVAL;
			break;
		case OPTION_TEXT:
		case OPTION_PATH:
			ret = *text ? 0 : -EINVAL;
			break;
		}
		if (!ret && (v.number < def->min || (def->max && v.number > def->max)))
			ret = -ERANGE;
	}
	if (ret)
		return bad_value(def, text, err);
	*value = v;
	return 0;
}

int option_assign(const struct option_def *table, struct option_value *values, char *assignment,
		  const char *of, struct error *err)
{
	char *equals = strchr(assignment, '=');
	int i;

	if (equals)
		*equals = 0;
	i = option_find(table, assignment);
	if (i < 0 && !option_count(table))
		return error_set(err, EINVAL, "'%s': %s has no options", assignment, of);
	if (i < 0)
		return error_set(err, EINVAL,
				 "'%s' is not an option of %s: 'ublkctl backends' lists them",
				 assignment, of);
	return option_parse(&table[i], equals ? equals + 1 : NULL, &values[i], err);
}
