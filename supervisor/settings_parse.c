/* SPDX-License-Identifier: MIT */
/*
 * The parser for one configuration file, on top of inih.
 *
 * inih loses input silently. It cuts long lines and section names, ignores text after a section,
 * takes " ;" inside a value for a comment, and joins a line with leading blanks to the last value.
 * Hence read_line() hands over line by line: it trims blanks, refuses input that inih would lose,
 * and splits a long line into pieces that take_value() joins again.
 *
 * take_value() only collects pairs. end_section() judges them, since only a complete section shows
 * whether the export is valid. An error names file and line, and refuses its own export or setting
 * and nothing else.
 *
 * Read settings_parse() first, then read_line() and take_value(), the two callbacks of inih, then
 * end_section() with check_export(). Permissions of the file are checked before, in settings.c.
 */
#include "common/error.h"
#include "engine/spec.h"
#include "supervisor/settings.h"
#include "supervisor/settings_parts.h"
#include "supervisor/name.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERRORS_PER_FILE 50
#define KEY_MAX         40 /* inih keeps 49 letters of a key for its next line */

enum section_kind {
	SECTION_NONE,
	SECTION_UBLKD,
	SECTION_EXPORT,
	SECTION_REFUSED
};

struct settings_reader {
	struct settings *settings;
	const char *file;
	const char *name; /* of the export whose file it is, or NULL */
	const char *text, *end;
	unsigned line;      /* that was read last */
	unsigned nr_errors; /* in this file */
	int ret;            /* -ENOMEM */
	bool written;       /* by settings_write_export() */
	bool expects, got;  /* a value from inih for what it was given last */
	bool seen_ublkd;
	bool has_section; /* the file of an export: it has named one */
	bool ignores;     /* what stands in a section that is refused */
	char text_line[SETTINGS_LINE_MAX + 1];
	const char *rest; /* of a line that goes to inih in pieces */
	const char *rest_end;
	bool continues; /* what inih was given last is such a piece, not the first */

	/* The section. */
	enum section_kind kind;
	unsigned section_line;
	char *section_name; /* of the export */
	bool bad;
	bool judges; /* end_section() is at work */
	struct settings_pair *pairs;
	unsigned nr_pairs;
};

static void refuse(struct settings_reader *r, unsigned line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse(struct settings_reader *r, unsigned line, const char *fmt, ...)
{
	char text[sizeof(((struct error *)0)->text)];
	va_list args;

	r->bad = true;
	/* A line of ublkd.conf may be, or hide, the heading of any export; a whole section cannot. */
	if ((!r->name && !r->judges) || r->nr_errors > ERRORS_PER_FILE)
		r->settings->incomplete = true;
	if (r->nr_errors > ERRORS_PER_FILE || r->ret)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	text_make_printable(text);
	if (r->nr_errors++ == ERRORS_PER_FILE)
		snprintf(text, sizeof(text), "there are more errors: correct those above first");
	r->ret = settings_add_error(r->settings, r->file, line, r->section_name, text);
}

static const struct settings_pair *pair_find(const struct settings_reader *r, const char *name)
{
	for (unsigned i = 0; i < r->nr_pairs; i++)
		if (!strcmp(r->pairs[i].name, name))
			return &r->pairs[i];
	return NULL;
}

/* ---- the end of a section: check and take what it declares ---- */

static void end_ublkd(struct settings_reader *r)
{
	for (unsigned i = 0; i < r->nr_pairs; i++) {
		struct settings_pair *pair = &r->pairs[i];
		int option = option_find(settings_options, pair->name);
		struct error err;

		if (option < 0) {
			refuse(r, pair->line, "'%s' is not a setting of ublkd: see ublkd.conf(5)",
			       pair->name);
			continue;
		}
		if (option_parse(&settings_options[option], pair->value,
				 &r->settings->values[option], &err)) {
			refuse(r, pair->line, "%s", err.text);
			continue;
		}
		r->settings->texts[option] = pair->value;
		r->settings->lines[option] = pair->line;
		pair->value = NULL;
	}
}

/* A relative path would be relative to ublkd's working directory, which users do not know. */
static int check_path(const char *what, const char *path, struct error *err)
{
	if (*path != '/')
		return error_set(err, EINVAL, "%s: '%s' is a relative path: use an absolute path",
				 what, path);
	return 0;
}

static int set_option(struct spec *spec, const struct settings_pair *pair, struct error *err)
{
	const struct option_def *table = spec->backend->options;
	int option = option_find(table, pair->name);

	if (option_find(spec_options, pair->name) >= 0)
		return spec_set(spec, pair->name, pair->value, err);
	if (option < 0)
		return error_set(
			err, EINVAL,
			"'%s' is not an option of an export with the %s backend: 'ublkctl run "
			"--help' and 'ublkctl backends' list them",
			pair->name, spec->backend->scheme);
	if (table[option].type == OPTION_PATH && check_path(pair->name, pair->value, err))
		return -EINVAL;
	return spec_set_backend_option(spec, pair->name, pair->value, err);
}

/* An error of an option begins with the option's name; any other error is the URI's. */
static unsigned line_of_error(const struct settings_reader *r, const struct settings_pair *uri,
			      const struct error *err)
{
	for (unsigned i = 0; i < r->nr_pairs; i++) {
		size_t n = strlen(r->pairs[i].name);

		if (!strncmp(err->text, r->pairs[i].name, n) && err->text[n] == ':')
			return r->pairs[i].line;
	}
	return uri->line;
}

/* Whether an export's section is valid; errors are added to the list. */
static bool check_export(struct settings_reader *r, const struct settings_pair *uri)
{
	const struct settings_export *other = settings_find(r->settings, r->section_name);
	struct error err;
	struct spec spec;

	if (other)
		refuse(r, r->section_line,
		       "the export '%s' is already declared in %s, line %u: remove one of the two",
		       r->section_name, other->file, other->line);
	if (!uri && !r->bad)
		refuse(r, r->section_line, "the export '%s' has no uri: add one, as in uri = /path",
		       r->section_name);
	if (!uri || spec_open(&spec, uri->value, &err)) {
		if (uri)
			refuse(r, uri->line, "uri: %s", err.text);
		return false;
	}
	if (!r->bad && !strcmp(spec.backend->scheme, "file") &&
	    check_path("uri", spec.locator, &err))
		refuse(r, uri->line, "%s", err.text);
	for (unsigned i = 0; i < r->nr_pairs; i++)
		if (&r->pairs[i] != uri && set_option(&spec, &r->pairs[i], &err))
			refuse(r, r->pairs[i].line, "%s", err.text);
	if (!r->bad && spec_check(&spec, &err))
		refuse(r, line_of_error(r, uri, &err), "%s", err.text);
	spec_close(&spec);
	return !r->bad;
}

static void end_export(struct settings_reader *r)
{
	struct settings *settings = r->settings;
	struct settings_export *exports, e = { .line = r->section_line, .written = r->written };
	const struct settings_pair *uri = pair_find(r, "uri");
	unsigned at;

	if (!check_export(r, uri) || r->ret)
		return;
	exports = settings_grow(settings->exports, settings->nr_exports, sizeof(*exports));
	if (!exports) {
		r->ret = -ENOMEM;
		return;
	}
	settings->exports = exports;
	e.file = strdup(r->file);
	if (!e.file) {
		r->ret = -ENOMEM;
		return;
	}
	at = (unsigned)(uri - r->pairs);
	e.uri_line = uri->line;
	e.name = r->section_name;
	e.uri = r->pairs[at].value;
	free(r->pairs[at].name);
	memmove(r->pairs + at, r->pairs + at + 1, (r->nr_pairs - at - 1) * sizeof(*r->pairs));
	e.options = r->pairs;
	e.nr_options = r->nr_pairs - 1;
	exports[settings->nr_exports++] = e;
	r->section_name = NULL;
	r->pairs = NULL;
	r->nr_pairs = 0;
}

static void end_section(struct settings_reader *r)
{
	r->judges = true;
	if (r->kind == SECTION_UBLKD)
		end_ublkd(r);
	else if (r->kind == SECTION_EXPORT)
		end_export(r);
	r->judges = false;
	settings_free_pairs(r->pairs, r->nr_pairs);
	free(r->section_name);
	r->pairs = NULL;
	r->nr_pairs = 0;
	r->section_name = NULL;
	r->bad = false;
	r->kind = SECTION_REFUSED;
}

/* ---- the beginning of a section ---- */

static void begin_export(struct settings_reader *r, const char *name)
{
	struct error err;

	r->kind = SECTION_EXPORT;
	r->section_line = r->line;
	if (name_check(name, &err)) {
		refuse(r, r->line, "%s", err.text);
		r->kind = SECTION_REFUSED;
		return;
	}
	r->section_name = strdup(name);
	if (!r->section_name) {
		r->ret = -ENOMEM;
		r->kind = SECTION_REFUSED;
	}
}

/* Whether a section is "export" or "export NAME"; *name is the name, or "". */
static bool is_export_section(const char *section, const char **name)
{
	static const char word[] = "export";

	if (strncmp(section, word, strlen(word)) != 0)
		return false;
	*name = section + strlen(word);
	if (**name && **name != ' ')
		return false;
	*name += strspn(*name, " ");
	return true;
}

/* A section in the file of an export, which has that one, or none. */
static void begin_only_section(struct settings_reader *r, const char *section)
{
	const char *name;

	r->ignores = true;
	if (!is_export_section(section, &name))
		refuse(r, r->line, "[%s] is not valid in the file of an export: write [export]",
		       section);
	else if (*name && strcmp(name, r->name) != 0)
		refuse(r, r->line, "this file declares the export '%s': write [export]", r->name);
	else if (r->has_section || r->nr_pairs)
		refuse(r, r->line,
		       "a file declares one export: put the other in a file of its own");
	else
		r->ignores = false;
	if (r->ignores)
		return;
	r->has_section = true;
	r->section_line = r->line;
}

/* section: what stands in brackets. */
static void begin_section(struct settings_reader *r, const char *section)
{
	const char *name;

	if (r->name) {
		begin_only_section(r, section);
		return;
	}
	end_section(r);
	if (is_export_section(section, &name)) {
		if (*name)
			begin_export(r, name);
		else
			refuse(r, r->line, "the export has no name: write [export NAME]");
	} else if (strcmp(section, "ublkd") != 0) {
		refuse(r, r->line, "[%s] is not a valid section: write [ublkd] or [export NAME]",
		       section);
	} else if (r->seen_ublkd) {
		refuse(r, r->line, "[ublkd] appears a second time: merge the two sections");
	} else {
		r->seen_ublkd = true;
		r->kind = SECTION_UBLKD;
	}
}

/* ---- lines ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next line without whitespace at its ends; false: it is refused. */
static bool take_line(struct settings_reader *r, char line[SETTINGS_LINE_MAX + 1], size_t *length)
{
	const char *begin = r->text, *end = memchr(begin, '\n', (size_t)(r->end - begin));
	char copy[SETTINGS_LINE_MAX + 1];
	size_t n;

	r->text = end ? end + 1 : r->end;
	if (!end)
		end = r->end;
	if (!r->line++ && end - begin >= 3 && !memcmp(begin, "\xef\xbb\xbf", 3))
		begin += 3;
	if (end - begin > SETTINGS_LINE_MAX) {
		refuse(r, r->line, "the line is longer than %u bytes", SETTINGS_LINE_MAX);
		return false;
	}
	if (end > begin && end[-1] == '\r')
		end--;
	while (end > begin && is_blank(end[-1]))
		end--;
	while (begin < end && is_blank(*begin))
		begin++;
	n = (size_t)(end - begin);
	memcpy(line, begin, n);
	line[n] = 0;
	for (size_t i = 0; i < n; i++)
		if (line[i] == '\t')
			line[i] = ' ';
	memcpy(copy, line, n + 1);
	text_make_printable(copy);
	for (size_t i = 0; i < n; i++)
		if (line[i] != copy[i] || !line[i]) {
			refuse(r, r->line,
			       "byte 0x%02x is not allowed: use UTF-8 text without control "
			       "characters",
			       (unsigned char)line[i]);
			return false;
		}
	*length = n;
	return true;
}

/* Where to split text after at most n bytes; NULL: nowhere. */
static const char *part(const char *text, const char *end, size_t n)
{
	const char *at = text + n;

	/* inih strips spaces at both ends of a piece, and a piece must not begin like a comment. */
	while (at > text &&
	       (at[-1] == ' ' || strchr(" ;#", *at) || ((unsigned char)*at & 0xc0) == 0x80))
		at--;
	return at > text && at < end ? at : NULL;
}

static char *give(char *out, const char *text, size_t n)
{
	memcpy(out, text, n);
	memcpy(out + n, "\n", 2);
	return out;
}

/* The next piece of a line that inih cannot take at once. */
static char *give_piece(struct settings_reader *r, char *out, size_t room)
{
	const char *end = r->rest_end;

	if ((size_t)(end - r->rest) > room)
		end = part(r->rest, end, room);
	if (!end) {
		refuse(r, r->line, "the line is too long, and cannot be split");
		r->rest = NULL;
		r->expects = false;
		return NULL;
	}
	give(out, r->rest, (size_t)(end - r->rest));
	r->rest = end < r->rest_end ? end : NULL;
	return out;
}

static bool has_flag(const struct option_def *table, const char *name)
{
	int option = option_find(table, name);

	return option >= 0 && table[option].type == OPTION_FLAG;
}

/* Whether the word is the name of a flag, which a command line takes without a value. */
static bool is_flag(const char *word)
{
	const struct backend *backend;
	bool found = has_flag(spec_options, word);

	for (unsigned i = 0; !found && (backend = backend_at(i)); i++)
		found = backend->options && has_flag(backend->options, word);
	return found;
}

static void refuse_line(struct settings_reader *r, const char *line)
{
	if (is_flag(line))
		refuse(r, r->line, "'%s' has no value: write '%s = on'", line, line);
	else
		refuse(r, r->line, "expected 'KEY = VALUE'");
}

/* inih's ini_reader: one line into out, at most size bytes with newline and NUL. */
static char *read_line(char *out, int size, void *context)
{
	struct settings_reader *r = context;
	char *line = r->text_line;
	size_t n, room = (size_t)size - 2;
	char *close;

	for (;;) {
		if (r->expects && !r->got && !r->ret)
			refuse_line(r, r->text_line);
		r->expects = false;
		r->got = false;
		if (r->rest) {
			*out = ' ';
			r->continues = true;
			r->expects = true;
			if (give_piece(r, out + 1, room - 1))
				return out;
			continue;
		}
		r->continues = false;
		if (r->text == r->end || r->ret)
			return NULL;
		if (!take_line(r, line, &n) || !n || *line == '#' || *line == ';')
			continue;
		if (strstr(line, " ;") || (*line != '[' && strstr(line, " #"))) {
			refuse(r, r->line,
			       "'%c' after whitespace looks like a comment: put comments on lines of "
			       "their own",
			       strstr(line, " ;") ? ';' : '#');
			continue;
		}
		if (*line == '[') {
			close = strchr(line, ']');
			if (!close || close[1]) {
				if (r->name)
					r->ignores = true;
				else
					end_section(r);
				refuse(r, r->line, "'%s' is not a [SECTION]", line);
				continue;
			}
			*close = 0;
			begin_section(r, line + 1);
			continue;
		}
		if (strcspn(line, "=:") > KEY_MAX) {
			refuse(r, r->line, "expected 'KEY = VALUE'");
			continue;
		}
		r->rest = line;
		r->rest_end = line + n;
		r->expects = true;
		if (give_piece(r, out, room))
			return out;
	}
}

/* inih's ini_handler. */
static int take_value(void *context, const char *section, const char *key, const char *value)
{
	struct settings_reader *r = context;
	struct settings_pair *pairs, *last = r->nr_pairs ? &r->pairs[r->nr_pairs - 1] : NULL;
	char *text;

	(void)section;
	r->got = true;
	if (r->kind == SECTION_REFUSED || r->ignores || r->ret)
		return 1;
	if (r->continues) {
		if (!last || last->line != r->line)
			return 1; /* refused */
		if (strcmp(key, last->name) != 0) {
			refuse(r, r->line, "the line is too long for inih as it was built here");
			return 1;
		}
		text = realloc(last->value, strlen(last->value) + strlen(value) + 1);
		if (!text) {
			r->ret = -ENOMEM;
			return 1;
		}
		strcat(text, value);
		last->value = text;
		return 1;
	}
	if (r->kind == SECTION_NONE) {
		refuse(r, r->line,
		       "'%s' is outside of a section: write [ublkd] or [export NAME] first", key);
		return 1;
	}
	if (pair_find(r, key)) {
		refuse(r, r->line, "'%s' is already set in line %u: remove one of the two", key,
		       pair_find(r, key)->line);
		return 1;
	}
	pairs = settings_grow(r->pairs, r->nr_pairs, sizeof(*pairs));
	if (!pairs) {
		r->ret = -ENOMEM;
		return 1;
	}
	r->pairs = pairs;
	last = &pairs[r->nr_pairs];
	*last = (struct settings_pair){ .name = strdup(key),
					.value = strdup(value),
					.line = r->line };
	if (!last->name || !last->value) {
		free(last->name);
		free(last->value);
		r->ret = -ENOMEM;
		return 1;
	}
	r->nr_pairs++;
	if (strlen(value) > 1 && strchr("\"'", *value) && value[strlen(value) - 1] == *value)
		refuse(r, r->line, "%s: %s: write the value without quotes", key, value);
	return 1;
}

int settings_parse(struct settings *settings, const char *file, const char *name, const char *text,
		   size_t size)
{
	struct settings_reader r = {
		.settings = settings,
		.file = file,
		.name = name,
		.text = text,
		.end = text + size,
		.written = size >= strlen(SETTINGS_MARK) &&
			   !memcmp(text, SETTINGS_MARK, strlen(SETTINGS_MARK)),
	};
	unsigned errors = settings->nr_errors;
	int parsed;

	/* A file of exports.d needs no [export]: its first line stands for one. */
	if (name) {
		r.line = 1;
		begin_export(&r, name);
		r.line = 0;
	}
	parsed = ini_parse_stream(read_line, &r, take_value, &r);
	/* read_line() reports lines that inih refused, so without an error inih had no memory. */
	if (parsed && settings->nr_errors == errors && !r.ret)
		r.ret = -ENOMEM;
	end_section(&r);
	return r.ret;
}
