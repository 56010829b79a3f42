/* SPDX-License-Identifier: MIT */
/*
 * The configuration, of any text: a libFuzzer target.
 *
 *   fuzz-settings --seeds=DIRECTORY    writes inputs to begin with, and ends
 *
 * The first byte says what the rest is: the text of ublkd.conf, that of an export's
 * file, or the URI and the options (strings that end in NUL) of an export that is to
 * be written.  What is read is written, and what was written is read again, and must
 * be what it was.
 */
#include "common/error.h"
#include "engine/spec.h"
#include "supervisor/settings.h"
#include "supervisor/name.h"
#include "tests/fuzz/seeds.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_MOST 8
#define LINE_SHORT   150 /* that inih takes at once, with "KEY = " */

enum {
	INPUT_MAIN,
	INPUT_EXPORT,
	INPUT_WRITTEN,
	INPUTS
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char directory[300];

/* Nothing here is to outlive the machine's end. */
int fsync(int fd)
{
	(void)fd;
	return 0;
}

static void broken(const char *what, const char *value)
{
	fprintf(stderr, "broken: %s: %s\n", what, value);
	abort();
}

static void check_same(const struct settings_export *e, const char *uri,
		       const struct settings_pair *options, unsigned nr_options)
{
	if (strcmp(e->uri, uri) != 0)
		broken("another URI", e->uri);
	if (e->nr_options != nr_options)
		broken("more options, or fewer", uri);
	for (unsigned i = 0; i < nr_options; i++)
		if (strcmp(e->options[i].name, options[i].name) != 0 ||
		    strcmp(e->options[i].value, options[i].value) != 0)
			broken("another option", options[i].name);
}

/* Writes an export, and reads it again.  Whether it was accepted. */
static bool write_and_read(const char *name, const char *uri, const struct settings_pair *options,
			   unsigned nr_options)
{
	struct settings settings;
	struct error err;

	if (settings_write_export(directory, name, uri, options, nr_options, &err)) {
		if (!*err.text || strpbrk(err.text, "\n\x1b"))
			broken("a message", err.text);
		return false;
	}
	if (settings_load(directory, &settings))
		abort();
	if (settings.nr_errors)
		broken("what was written is refused", settings.errors[0].text);
	if (settings.nr_exports != 1 || strcmp(settings.exports[0].name, name) != 0)
		broken("something else was written", name);
	check_same(&settings.exports[0], uri, options, nr_options);
	settings_close(&settings);
	if (settings_remove_export(directory, name, &err) < 0)
		broken("it cannot be removed", err.text);
	return true;
}

/* A long value is parted elsewhere behind "KEY = " than behind "KEY=", or cannot be. */
static bool is_short(const struct settings_export *e)
{
	for (unsigned i = 0; i < e->nr_options; i++)
		if (strlen(e->options[i].value) > LINE_SHORT)
			return false;
	return strlen(e->uri) <= LINE_SHORT;
}

static void check_config(const struct settings *settings)
{
	for (unsigned i = 0; i < settings->nr_errors; i++) {
		const struct settings_error *e = &settings->errors[i];

		if (!*e->text || strpbrk(e->text, "\n\x1b"))
			broken("a message", e->text);
		if (e->name && name_check(e->name, NULL))
			broken("a name", e->name);
	}
	for (unsigned i = 0; i < settings->nr_exports; i++) {
		const struct settings_export *e = &settings->exports[i];

		if (name_check(e->name, NULL))
			broken("a name", e->name);
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(settings->exports[j].name, e->name))
				broken("twice", e->name);
		if (!write_and_read(e->name, e->uri, e->options, e->nr_options) && is_short(e))
			broken("what was read cannot be written", e->uri);
	}
}

static void try_to_write(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *at = text, *words[1 + 2 * OPTIONS_MOST];
	struct settings_pair options[OPTIONS_MOST];
	unsigned n = 0;

	memcpy(text, data, size);
	text[size] = 0;
	while (at <= text + size && n < 1 + 2 * OPTIONS_MOST) {
		words[n++] = at;
		at += strlen(at) + 1;
	}
	for (unsigned i = 0; i < (n - 1) / 2; i++)
		options[i] = (struct settings_pair){ .name = words[1 + 2 * i],
						     .value = words[2 + 2 * i] };
	write_and_read("fuzz", words[0], options, (n - 1) / 2);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct settings settings;
	unsigned kind;

	if (!size)
		return 0;
	kind = data[0] % INPUTS;
	if (kind == INPUT_WRITTEN) {
		try_to_write(data + 1, size - 1);
		return 0;
	}
	settings_init(&settings);
	if (settings_parse(&settings, "FILE", kind == INPUT_EXPORT ? "fuzz" : NULL,
			   (const char *)data + 1, size - 1))
		abort();
	check_config(&settings);
	settings_close(&settings);
	return 0;
}

/* ---- inputs to begin with ---- */

static void write_seeds(const char *where)
{
	static const char main_file[] = "\0[ublkd]\nworker-user = nobody\non-stop=remove\n# c\n"
					"[export a]\nuri = memory:1G\nhugepages = 2M\n"
					"[export b]\nuri: null:1T\r\nqueues = 2\n";
	static const char export_file[] = "\1[export]\n  uri = /a b#c=d[e]\ncreate = 10G\n"
					  "read-only = on\n; c\nmax-io = 1M\n";
	static const char nbd_file[] =
		"\1\xef\xbb\xbfuri = nbd://h:1/\xc3\xa4?tls=on\nretain = trust\n"
		"tls-psk-file = /k\nconnections = auto\n";
	static const char written[] = "\2/a ;b\0create\0001G\0direct\0off";
	char longest[500] = "\1uri = /";

	seeds_write(where, main_file, sizeof(main_file) - 1);
	seeds_write(where, export_file, sizeof(export_file) - 1);
	seeds_write(where, nbd_file, sizeof(nbd_file) - 1);
	seeds_write(where, written, sizeof(written) - 1);
	for (size_t i = strlen(longest); i + 1 < sizeof(longest); i++)
		longest[i] = "ab cd;ef#g"[i % 10];
	seeds_write(where, longest, sizeof(longest));
}

static void remove_directory(void)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/exports.d", directory);
	rmdir(path);
	rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);
	const char *where = getenv("TMPDIR");

	if (seeds) {
		write_seeds(seeds);
		exit(0);
	}
	snprintf(directory, sizeof(directory), "%s/fuzz-settings.XXXXXX", where ? where : "/tmp");
	if (!mkdtemp(directory)) {
		perror(directory);
		exit(1);
	}
	atexit(remove_directory);
	return 0;
}
