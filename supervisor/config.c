/* SPDX-License-Identifier: MIT */
/*
 * How a file is read: inih takes it line by line from read_line(), which sees to
 * all that inih would pass over in silence: lines and sections that it cuts, text
 * after a section, comments after a value, lines that begin with a blank and would
 * go on with the value before.  A line that is too long for inih goes to it in
 * pieces, as such a value does.
 */
#include "supervisor/config.h"
#include "engine/error.h"
#include "engine/spec.h"
#include "supervisor/folder.h"
#include "supervisor/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERRORS_PER_FILE 50
#define KEY_MAX         40 /* inih keeps 49 letters of a key for its next line */
#define MAIN_FILE       "ublkd.conf"
#define EXPORTS_FOLDER  "exports.d"
#define SUFFIX          ".conf"
#define MARK            "# Written by ublkd"
/* There are no secrets in it, and check-config is for all. */
#define FOLDER_MODE 0755

const struct option_def config_options[] = {
	[CONFIG_WORKER_USER] = { "worker-user", OPTION_TEXT, NULL, "ublkd", 0, 0,
				 "the user that workers run as" },
	[CONFIG_CONTROL_GROUP] = { "control-group", OPTION_TEXT, NULL, NULL, 0, 0,
				   "the group that may change exports (default: root only)" },
	[CONFIG_READ_GROUP] = { "read-group", OPTION_TEXT, NULL, NULL, 0, 0,
				"the group that may look at exports (default: that of the socket)" },
	[CONFIG_ON_STOP] = { "on-stop", OPTION_CHOICE, "keep|remove", "keep", 0, 0,
			     "what becomes of exports when ublkd is stopped" },
	[CONFIG_MAX_JOBS] = { "max-jobs", OPTION_COUNT, NULL, "16", 1, 1024,
			      "exports that are started, recovered or removed at a time" },
	[CONFIG_OPTIONS] = { .name = NULL },
};

/* ---- what was found ---- */

static void *grow(void *array, unsigned n, size_t size)
{
	/* At 0, 1, 2, 4, 8 … */
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * size);
}

/* Returns 0 or -ENOMEM. */
static int add_error(struct config *config, const char *file, unsigned line, const char *name,
		     const char *text)
{
	struct config_error *errors, *e;
	char shown[PATH_MAX];

	errors = grow(config->errors, config->nr_errors, sizeof(*errors));
	if (!errors)
		return -ENOMEM;
	config->errors = errors;
	e = &errors[config->nr_errors];
	*e = (struct config_error){ .line = line };
	e->file = strdup(text_escape(file, shown, sizeof(shown)));
	e->name = name ? strdup(name) : NULL;
	e->text = strdup(text);
	if (!e->file || !e->text || (name && !e->name)) {
		free(e->file);
		free(e->name);
		free(e->text);
		return -ENOMEM;
	}
	config->nr_errors++;
	return 0;
}

static void free_pairs(struct config_pair *pairs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(pairs[i].name);
		free(pairs[i].value);
	}
	free(pairs);
}

static void free_export(struct config_export *e)
{
	free_pairs(e->options, e->nr_options);
	free(e->name);
	free(e->uri);
	free(e->file);
}

void config_init(struct config *config)
{
	*config = (struct config){ 0 };
	option_defaults(config_options, config->values);
}

void config_close(struct config *config)
{
	for (unsigned i = 0; i < CONFIG_OPTIONS; i++)
		free(config->texts[i]);
	for (unsigned i = 0; i < config->nr_exports; i++)
		free_export(&config->exports[i]);
	for (unsigned i = 0; i < config->nr_errors; i++) {
		free(config->errors[i].file);
		free(config->errors[i].name);
		free(config->errors[i].text);
	}
	free(config->exports);
	free(config->errors);
	*config = (struct config){ 0 };
}

const struct config_export *config_find(const struct config *config, const char *name)
{
	for (unsigned i = 0; i < config->nr_exports; i++)
		if (!strcmp(config->exports[i].name, name))
			return &config->exports[i];
	return NULL;
}

/* ---- one file ---- */

enum section_kind {
	SECTION_NONE,
	SECTION_UBLKD,
	SECTION_EXPORT,
	SECTION_REFUSED
};

struct reader {
	struct config *config;
	const char *file;
	const char *name; /* of the export whose file it is, or NULL */
	const char *text, *end;
	unsigned line;      /* that was read last */
	unsigned nr_errors; /* in this file */
	int ret;            /* -ENOMEM */
	bool written;       /* by config_write_export() */
	bool expects, got;  /* a value from inih for what it was given last */
	bool seen_ublkd;
	bool has_section; /* the file of an export: it has named one */
	bool ignores;     /* what stands in a section that is refused */
	char text_line[CONFIG_LINE_MAX + 1];
	const char *rest; /* of a line that goes to inih in pieces */
	const char *rest_end;
	bool continues; /* what inih was given last is such a piece, not the first */

	/* The section. */
	enum section_kind kind;
	unsigned section_line;
	char *section_name; /* of the export */
	bool bad;
	struct config_pair *pairs;
	unsigned nr_pairs;
};

static void refuse(struct reader *r, unsigned line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse(struct reader *r, unsigned line, const char *fmt, ...)
{
	char text[sizeof(((struct error *)0)->text)];
	va_list args;

	r->bad = true;
	if (r->nr_errors > ERRORS_PER_FILE || r->ret)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	text_make_printable(text);
	if (r->nr_errors++ == ERRORS_PER_FILE)
		snprintf(text, sizeof(text), "there are more errors: mend those before it first");
	r->ret = add_error(r->config, r->file, line, r->section_name, text);
}

static const struct config_pair *pair_find(const struct reader *r, const char *name)
{
	for (unsigned i = 0; i < r->nr_pairs; i++)
		if (!strcmp(r->pairs[i].name, name))
			return &r->pairs[i];
	return NULL;
}

/* ---- the end of a section: what it said ---- */

static void end_ublkd(struct reader *r)
{
	for (unsigned i = 0; i < r->nr_pairs; i++) {
		struct config_pair *pair = &r->pairs[i];
		int option = option_find(config_options, pair->name);
		struct error err;

		if (option < 0) {
			refuse(r, pair->line,
			       "'%s' is no setting of ublkd: see ublkd.conf(5) for what there is",
			       pair->name);
			continue;
		}
		if (option_parse(&config_options[option], pair->value, &r->config->values[option],
				 &err)) {
			refuse(r, pair->line, "%s", err.text);
			continue;
		}
		r->config->texts[option] = pair->value;
		pair->value = NULL;
	}
}

/* ublkd's own folder is no place that anybody means. */
static int check_path(const char *what, const char *path, struct error *err)
{
	if (*path != '/')
		return error_set(err, EINVAL, "%s: '%s': give the whole path, from / on", what,
				 path);
	return 0;
}

static int set_option(struct spec *spec, const struct config_pair *pair, struct error *err)
{
	const struct option_def *table = spec->backend->options;
	int option = option_find(table, pair->name);

	if (option_find(spec_options, pair->name) >= 0)
		return spec_set(spec, pair->name, pair->value, err);
	if (option < 0)
		return error_set(err, EINVAL,
				 "'%s' is no key of an export with the %s backend: 'ublkctl run "
				 "--help' and 'ublkctl backends' list them",
				 pair->name, spec->backend->scheme);
	if (table[option].type == OPTION_PATH && check_path(pair->name, pair->value, err))
		return -EINVAL;
	return spec_set_backend_option(spec, pair->name, pair->value, err);
}

/* Whether all that an export's section says is accepted; errors are told. */
static bool check_export(struct reader *r, const struct config_pair *uri)
{
	const struct config_export *other = config_find(r->config, r->section_name);
	struct error err;
	struct spec spec;

	if (other)
		refuse(r, r->section_line,
		       "the export '%s' is declared in %s, line %u, already: remove one of the two",
		       r->section_name, other->file, other->line);
	if (!uri && !r->bad)
		refuse(r, r->section_line,
		       "the export '%s' has no uri: give one, as in uri = /path", r->section_name);
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
		refuse(r, r->section_line, "%s", err.text);
	spec_close(&spec);
	return !r->bad;
}

static void end_export(struct reader *r)
{
	struct config *config = r->config;
	struct config_export *exports, e = { .line = r->section_line, .written = r->written };
	const struct config_pair *uri = pair_find(r, "uri");
	unsigned at;

	if (!check_export(r, uri) || r->ret)
		return;
	exports = grow(config->exports, config->nr_exports, sizeof(*exports));
	if (!exports) {
		r->ret = -ENOMEM;
		return;
	}
	config->exports = exports;
	e.file = strdup(r->file);
	if (!e.file) {
		r->ret = -ENOMEM;
		return;
	}
	at = (unsigned)(uri - r->pairs);
	e.name = r->section_name;
	e.uri = r->pairs[at].value;
	free(r->pairs[at].name);
	memmove(r->pairs + at, r->pairs + at + 1, (r->nr_pairs - at - 1) * sizeof(*r->pairs));
	e.options = r->pairs;
	e.nr_options = r->nr_pairs - 1;
	exports[config->nr_exports++] = e;
	r->section_name = NULL;
	r->pairs = NULL;
	r->nr_pairs = 0;
}

static void end_section(struct reader *r)
{
	if (r->kind == SECTION_UBLKD)
		end_ublkd(r);
	else if (r->kind == SECTION_EXPORT)
		end_export(r);
	free_pairs(r->pairs, r->nr_pairs);
	free(r->section_name);
	r->pairs = NULL;
	r->nr_pairs = 0;
	r->section_name = NULL;
	r->bad = false;
	r->kind = SECTION_REFUSED;
}

/* ---- its beginning ---- */

static void begin_export(struct reader *r, const char *name)
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
static void begin_only_section(struct reader *r, const char *section)
{
	const char *name;

	r->ignores = true;
	if (!is_export_section(section, &name))
		refuse(r, r->line, "[%s] is not for the file of an export: write [export]",
		       section);
	else if (*name && strcmp(name, r->name) != 0)
		refuse(r, r->line, "the export of this file is '%s': write [export]", r->name);
	else if (r->has_section || r->nr_pairs)
		refuse(r, r->line, "there is one export in a file: give another one its own file");
	else
		r->ignores = false;
	if (r->ignores)
		return;
	r->has_section = true;
	r->section_line = r->line;
}

/* section: what stands in brackets. */
static void begin_section(struct reader *r, const char *section)
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
		refuse(r, r->line, "there is no section [%s]: write [ublkd] or [export NAME]",
		       section);
	} else if (r->seen_ublkd) {
		refuse(r, r->line, "[ublkd] is there already: put all of it in one place");
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

/* The next line, its blanks at both ends taken off; false: it is refused. */
static bool take_line(struct reader *r, char line[CONFIG_LINE_MAX + 1], size_t *length)
{
	const char *begin = r->text, *end = memchr(begin, '\n', (size_t)(r->end - begin));
	char copy[CONFIG_LINE_MAX + 1];
	size_t n;

	r->text = end ? end + 1 : r->end;
	if (!end)
		end = r->end;
	if (!r->line++ && end - begin >= 3 && !memcmp(begin, "\xef\xbb\xbf", 3))
		begin += 3;
	if (end - begin > CONFIG_LINE_MAX) {
		refuse(r, r->line, "the line is longer than %u bytes", CONFIG_LINE_MAX);
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
			       "there is a byte 0x%02x: give text in UTF-8, without control "
			       "characters",
			       (unsigned char)line[i]);
			return false;
		}
	*length = n;
	return true;
}

/* Where to part text so that at most n bytes come first; NULL: nowhere. */
static const char *part(const char *text, const char *end, size_t n)
{
	const char *at = text + n;

	/* inih takes blanks off both ends, and some beginnings for a comment. */
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
static char *give_piece(struct reader *r, char *out, size_t room)
{
	const char *end = r->rest_end;

	if ((size_t)(end - r->rest) > room)
		end = part(r->rest, end, room);
	if (!end) {
		refuse(r, r->line, "the line is too long, and cannot be parted");
		r->rest = NULL;
		r->expects = false;
		return NULL;
	}
	give(out, r->rest, (size_t)(end - r->rest));
	r->rest = end < r->rest_end ? end : NULL;
	return out;
}

/* inih's ini_reader: one line into out, at most size bytes with newline and NUL. */
static char *read_line(char *out, int size, void *context)
{
	struct reader *r = context;
	char *line = r->text_line;
	size_t n, room = (size_t)size - 2;
	char *close;

	for (;;) {
		if (r->expects && !r->got && !r->ret)
			refuse(r, r->line, "this is no 'KEY = VALUE'");
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
		if (strstr(line, " ;")) {
			refuse(r, r->line,
			       "';' after a blank would begin a comment: give comments lines of "
			       "their own");
			continue;
		}
		if (*line == '[') {
			close = strchr(line, ']');
			if (!close || close[1]) {
				if (r->name)
					r->ignores = true;
				else
					end_section(r);
				refuse(r, r->line, "'%s' is no [SECTION]", line);
				continue;
			}
			*close = 0;
			begin_section(r, line + 1);
			continue;
		}
		if (strcspn(line, "=:") > KEY_MAX) {
			refuse(r, r->line, "this is no 'KEY = VALUE'");
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
	struct reader *r = context;
	struct config_pair *pairs, *last = r->nr_pairs ? &r->pairs[r->nr_pairs - 1] : NULL;
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
		       "'%s' stands in no section: write [ublkd] or [export NAME] first", key);
		return 1;
	}
	if (pair_find(r, key)) {
		refuse(r, r->line, "'%s' stands in line %u already: remove one of the two", key,
		       pair_find(r, key)->line);
		return 1;
	}
	pairs = grow(r->pairs, r->nr_pairs, sizeof(*pairs));
	if (!pairs) {
		r->ret = -ENOMEM;
		return 1;
	}
	r->pairs = pairs;
	last = &pairs[r->nr_pairs];
	*last = (struct config_pair){ .name = strdup(key),
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
		refuse(r, r->line, "%s: %s: give the value without quotes", key, value);
	return 1;
}

int config_parse(struct config *config, const char *file, const char *name, const char *text,
		 size_t size)
{
	struct reader r = {
		.config = config,
		.file = file,
		.name = name,
		.text = text,
		.end = text + size,
		.written = size >= strlen(MARK) && !memcmp(text, MARK, strlen(MARK)),
	};
	unsigned errors = config->nr_errors;
	int parsed;

	if (name) {
		r.line = 1;
		begin_export(&r, name);
		r.line = 0;
	}
	parsed = ini_parse_stream(read_line, &r, take_value, &r);
	/* What inih refused was seen to give no value; or it had no memory. */
	if (parsed && config->nr_errors == errors && !r.ret)
		r.ret = -ENOMEM;
	end_section(&r);
	return r.ret;
}

/* ---- files ---- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && !strcmp(text + n - m, end);
}

/*
 * A whole file; the caller frees *text.  Returns 0, or -errno with err filled: -ENOENT
 * where there is none.
 */
static int read_file(const char *path, char **text, size_t *size, struct error *err)
{
	struct stat status;
	size_t used = 0;
	ssize_t n;
	int fd, ret;

	*text = NULL;
	/* Not blocking: a FIFO would wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, errno, "it cannot be read: %m");
	if (fstat(fd, &status)) {
		ret = error_set(err, errno, "it cannot be read: %m");
	} else if (!S_ISREG(status.st_mode)) {
		ret = error_set(err, EINVAL, "it is no regular file");
	} else if ((status.st_uid && status.st_uid != geteuid()) || status.st_mode & S_IWOTH) {
		ret = error_set(err, EPERM,
				"others may write it: give it to root, with no right to write for "
				"others (chown root, chmod o-w)");
	} else {
		*text = malloc(CONFIG_FILE_MAX + 1);
		ret = *text ? 0 : error_set(err, ENOMEM, "no memory");
	}
	while (!ret && used <= CONFIG_FILE_MAX) {
		n = read(fd, *text + used, CONFIG_FILE_MAX + 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ret = error_set(err, errno, "it cannot be read: %m");
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	if (!ret && used > CONFIG_FILE_MAX)
		ret = error_set(err, EFBIG, "it is longer than %u bytes", CONFIG_FILE_MAX);
	close(fd);
	if (ret) {
		free(*text);
		*text = NULL;
	}
	*size = used;
	return ret;
}

/* Returns 0 or -ENOMEM. */
static int load_file(struct config *config, const char *path, const char *name)
{
	struct error err;
	char *text;
	size_t size;
	int ret = read_file(path, &text, &size, &err);

	if (ret == -ENOENT && !name)
		return 0;
	if (ret)
		return ret == -ENOMEM ? ret : add_error(config, path, 0, name, err.text);
	ret = config_parse(config, path, name, text, size);
	free(text);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the files that declare an export, sorted; the caller frees them. */
static int find_files(struct config *config, const char *folder, char ***names, unsigned *nr)
{
	struct dirent *entry;
	struct error err;
	int ret = 0;
	DIR *dir;

	*names = NULL;
	*nr = 0;
	dir = opendir(folder);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir) {
		error_set(&err, errno, "it cannot be read: %m");
		return add_error(config, folder, 0, NULL, err.text);
	}
	while (!ret && (entry = readdir(dir))) {
		char **more;

		if (*entry->d_name == '.' || !ends_in(entry->d_name, SUFFIX))
			continue;
		more = grow(*names, *nr, sizeof(*more));
		if (!more) {
			ret = -ENOMEM;
			break;
		}
		*names = more;
		more[*nr] = strdup(entry->d_name);
		if (!more[*nr])
			ret = -ENOMEM;
		else
			(*nr)++;
	}
	closedir(dir);
	if (*nr)
		qsort(*names, *nr, sizeof(**names), by_name);
	return ret;
}

static int load_exports(struct config *config, const char *folder)
{
	char **names, path[PATH_MAX];
	struct error err;
	unsigned nr;
	int ret;

	ret = find_files(config, folder, &names, &nr);
	for (unsigned i = 0; i < nr; i++) {
		if (!ret && snprintf(path, sizeof(path), "%s/%s", folder, names[i]) < PATH_MAX) {
			names[i][strlen(names[i]) - strlen(SUFFIX)] = 0;
			if (name_check(names[i], &err))
				ret = add_error(config, path, 0, NULL, err.text);
			else
				ret = load_file(config, path, names[i]);
		}
		free(names[i]);
	}
	free(names);
	return ret;
}

/* folder/sub; -ENAMETOOLONG with err filled. */
static int path_in(char path[PATH_MAX], const char *folder, const char *sub, struct error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", folder, sub) >= PATH_MAX)
		return error_set(err, ENAMETOOLONG, "%s: the path is too long", folder);
	return 0;
}

int config_load(const char *folder, struct config *config)
{
	char path[PATH_MAX];
	struct error err;
	int ret;

	config_init(config);
	if (path_in(path, folder, EXPORTS_FOLDER, &err))
		return add_error(config, folder, 0, NULL, err.text);
	path_in(path, folder, MAIN_FILE, &err);
	ret = load_file(config, path, NULL);
	path_in(path, folder, EXPORTS_FOLDER, &err);
	return ret ? ret : load_exports(config, path);
}

/* ---- a declaration that ublkd writes ---- */

static bool says(const struct config_export *e, const char *uri, const struct config_pair *options,
		 unsigned nr_options)
{
	bool same = !strcmp(e->uri, uri) && e->nr_options == nr_options;

	for (unsigned i = 0; same && i < nr_options; i++) {
		bool found = false;

		for (unsigned j = 0; j < nr_options; j++)
			if (!strcmp(e->options[j].name, options[i].name))
				found = !strcmp(e->options[j].value, options[i].value);
		same = found;
	}
	return same;
}

/* The text of an export's file, read again to see that it says what is meant. */
static int make_text(const char *name, const char *uri, const struct config_pair *options,
		     unsigned nr_options, char **text, size_t *size, struct error *err)
{
	struct config config;
	FILE *f;
	int ret;

	*text = NULL;
	f = open_memstream(text, size);
	if (!f)
		return error_set(err, ENOMEM, "no memory");
	fprintf(f, MARK ": 'ublkctl remove %s' removes it.\n[export]\nuri = %s\n", name, uri);
	for (unsigned i = 0; i < nr_options; i++)
		fprintf(f, "%s = %s\n", options[i].name, options[i].value);
	if (fclose(f)) {
		free(*text);
		return error_set(err, ENOMEM, "no memory");
	}
	config_init(&config);
	ret = config_parse(&config, name, name, *text, *size);
	if (ret)
		error_set(err, ret, "no memory");
	else if (config.nr_errors)
		ret = error_set(err, EINVAL, "%s", config.errors[0].text);
	else if (config.nr_exports != 1 || !says(&config.exports[0], uri, options, nr_options))
		ret = error_set(err, EINVAL,
				"%s: its URI or an option has what a configuration file cannot "
				"hold, such as a blank at an end",
				name);
	config_close(&config);
	if (ret)
		free(*text);
	return ret;
}

/*
 * What there is at path, if not the export as it is meant.  Returns 0: nothing, or a
 * file of ours (*there); 1: just what is meant; or -EEXIST or -errno with err filled.
 */
static int look_at_file(const char *path, const char *name, const char *uri,
			const struct config_pair *options, unsigned nr_options, bool *there,
			struct error *err)
{
	const struct config_export *found;
	struct config config;
	char *text;
	size_t size;
	int ret = read_file(path, &text, &size, err);

	*there = ret != -ENOENT;
	if (!*there)
		return 0;
	if (ret)
		return error_prefix(err, "%s", path);
	config_init(&config);
	ret = config_parse(&config, path, name, text, size);
	found = name ? config_find(&config, name) : NULL;
	if (ret)
		error_set(err, ret, "no memory");
	else if (found && uri && says(found, uri, options, nr_options))
		ret = 1;
	else if (strncmp(text, MARK, size < strlen(MARK) ? size : strlen(MARK)) ||
		 size < strlen(MARK))
		ret = error_set(err, EEXIST,
				"%s declares the export, and was not written by ublkd: change that "
				"file by hand",
				path);
	config_close(&config);
	free(text);
	return ret;
}

/* -EEXIST where ublkd.conf has an export of that name; 1: just the one that is meant. */
static int look_at_main_file(const char *folder, const char *name, const char *uri,
			     const struct config_pair *options, unsigned nr_options,
			     struct error *err)
{
	const struct config_export *found;
	char path[PATH_MAX];
	struct config config;
	int ret = path_in(path, folder, MAIN_FILE, err);

	if (ret)
		return ret;
	config_init(&config);
	ret = load_file(&config, path, NULL);
	found = config_find(&config, name);
	if (ret)
		error_set(err, ret, "no memory");
	else if (found && says(found, uri, options, nr_options))
		ret = 1;
	else if (found)
		ret = error_set(err, EEXIST,
				"%s, line %u, declares the export '%s' otherwise: change it there",
				found->file, found->line, name);
	config_close(&config);
	return ret;
}

static int write_all(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			size -= (size_t)n;
		}
	}
	return fsync(fd) ? -errno : 0;
}

static int replace_file(const char *folder, const char *name, bool there, const char *text,
			size_t size, struct error *err)
{
	char path[PATH_MAX + 80], temporary[PATH_MAX + 80];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s" SUFFIX, folder, name);
	/* No export's file begins with a dot, so that it is never read. */
	snprintf(temporary, sizeof(temporary), "%s/.%s" SUFFIX, folder, name);
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_set(err, errno, "%s: it cannot be made: %m", temporary);
	ret = fchmod(fd, 0644) ? -errno : write_all(fd, text, size);
	close(fd);
	if (!ret && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, there ? 0 : RENAME_NOREPLACE))
		ret = -errno;
	if (!ret)
		return folder_sync(folder, err);
	unlink(temporary);
	return error_set(err, ret, "%s: it cannot be written: %s", path, strerror(-ret));
}

int config_write_export(const char *folder, const char *name, const char *uri,
			const struct config_pair *options, unsigned nr_options, struct error *err)
{
	char exports[PATH_MAX], path[PATH_MAX + 80], *text;
	bool there;
	size_t size;
	int ret = name_check(name, err);

	if (!ret)
		ret = path_in(exports, folder, EXPORTS_FOLDER, err);
	if (!ret)
		ret = make_text(name, uri, options, nr_options, &text, &size, err);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/%s" SUFFIX, exports, name);
	ret = look_at_main_file(folder, name, uri, options, nr_options, err);
	if (!ret)
		ret = look_at_file(path, name, uri, options, nr_options, &there, err);
	if (!ret)
		ret = folder_make(folder, FOLDER_MODE, err);
	if (!ret)
		ret = folder_make(exports, FOLDER_MODE, err);
	if (!ret)
		ret = replace_file(exports, name, there, text, size, err);
	free(text);
	return ret == 1 ? 0 : ret;
}

int config_remove_export(const char *folder, const char *name, struct error *err)
{
	char exports[PATH_MAX], path[PATH_MAX + 80];
	bool there;
	int ret = name_check(name, err);

	if (!ret)
		ret = path_in(exports, folder, EXPORTS_FOLDER, err);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/%s" SUFFIX, exports, name);
	ret = look_at_file(path, name, NULL, NULL, 0, &there, err);
	if (ret || !there)
		return ret;
	if (unlink(path) && errno != ENOENT)
		return error_set(err, errno, "%s: it cannot be removed: %m", path);
	return folder_sync(exports, err);
}
