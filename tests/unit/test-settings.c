/* SPDX-License-Identifier: MIT */
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "common/error.h"
#include "engine/spec.h"
#include "supervisor/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *directory;
static struct settings settings;
static struct error err;

static int set_up(void **state)
{
	(void)state;
	directory = temp_directory();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	settings_close(&settings);
	temp_remove();
	return 0;
}

static void put(const char *name, const char *text)
{
	FILE *f;

	mkdir(temp_path("exports.d"), 0755);
	f = fopen(temp_path(name), "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void load(void)
{
	settings_close(&settings);
	assert_int_equal(settings_load(directory, &settings), 0);
}

/* A text that is parsed; name as for settings_parse(). */
static void parse(const char *name, const char *text, size_t size)
{
	settings_close(&settings);
	settings_init(&settings);
	assert_int_equal(settings_parse(&settings, "FILE", name, text, size), 0);
}

static const char *option_of(const struct settings_export *e, const char *name)
{
	for (unsigned i = 0; i < e->nr_options; i++)
		if (!strcmp(e->options[i].name, name))
			return e->options[i].value;
	return "";
}

static void nothing_is_all_defaults(void **state)
{
	(void)state;
	load();
	assert_int_equal(settings.nr_errors, 0);
	assert_int_equal(settings.nr_exports, 0);
	assert_string_equal(settings.values[SETTINGS_WORKER_USER].text, "ublkd");
	assert_false(settings.values[SETTINGS_CONTROL_GROUP].set);
	assert_int_equal(settings.values[SETTINGS_ON_STOP].word, SETTINGS_STOP_KEEP);
	assert_true(settings.values[SETTINGS_MAX_JOBS].number > 0);
}

static void settings_and_exports_are_read(void **state)
{
	(void)state;
	put("ublkd.conf", "# a comment\n"
			  "[ublkd]\n"
			  "worker-user = nobody\n"
			  "  control-group=disk  \n"
			  "on-stop: remove\r\n"
			  "max-jobs = 3\n"
			  "\n"
			  "[export ram]\n"
			  "uri = memory:1G\n"
			  "queues = 2\n"
			  "; another comment\n"
			  "[export   zero]\n"
			  "uri = null:1T");
	put("exports.d/disk.conf", "\xef\xbb\xbf"
				   "uri = /var/lib/disk.img\n"
				   "create = 10G\n"
				   "\tread-only = off\n");
	put("exports.d/b.conf", "[export]\nuri = null:1G\n");
	put("exports.d/a.conf", "[export a]\nuri = null:1G\n");
	put("exports.d/c.conf~", "nonsense");
	put("exports.d/.d.conf", "nonsense");
	put("exports.d/README", "nonsense");
	load();
	for (unsigned i = 0; i < settings.nr_errors; i++)
		print_error("%s\n", settings.errors[i].text);
	assert_int_equal(settings.nr_errors, 0);
	assert_string_equal(settings.values[SETTINGS_WORKER_USER].text, "nobody");
	assert_string_equal(settings.values[SETTINGS_CONTROL_GROUP].text, "disk");
	assert_int_equal(settings.values[SETTINGS_ON_STOP].word, SETTINGS_STOP_REMOVE);
	assert_int_equal(settings.values[SETTINGS_MAX_JOBS].number, 3);
	assert_int_equal(settings.nr_exports, 5);
	assert_string_equal(settings.exports[0].name, "ram");
	assert_string_equal(settings.exports[0].uri, "memory:1G");
	assert_string_equal(option_of(&settings.exports[0], "queues"), "2");
	assert_int_equal(settings.exports[0].line, 8);
	assert_string_equal(settings.exports[0].file, temp_path("ublkd.conf"));
	assert_string_equal(settings.exports[1].name, "zero");
	assert_string_equal(settings.exports[2].name, "a");
	assert_string_equal(settings.exports[3].name, "b");
	assert_string_equal(settings.exports[4].name, "disk");
	assert_string_equal(settings.exports[4].uri, "/var/lib/disk.img");
	assert_int_equal(settings.exports[4].nr_options, 2);
	assert_string_equal(option_of(&settings.exports[4], "create"), "10G");
	assert_string_equal(option_of(&settings.exports[4], "read-only"), "off");
	assert_ptr_equal(settings_find(&settings, "disk"), &settings.exports[4]);
	assert_null(settings_find(&settings, "c"));
}

/* Each: of ublkd.conf or of an export's file, the line that is refused, and a word of why. */
static const struct {
	const char *name, *text;
	unsigned line;
	const char *why;
} refused[] = {
	{ NULL, "x = 1\n", 1, "outside of a section" },
	{ NULL, "[ublkd]\nx = 1\n", 2, "not a setting" },
	{ NULL, "[ublkd]\nmax-jobs = many\n", 2, "max-jobs" },
	{ NULL, "[ublkd]\nmax-jobs = 0\n", 2, "max-jobs" },
	{ NULL, "[ublkd]\nmax-jobs =\n", 2, "max-jobs" },
	{ NULL, "[ublkd]\non-stop = burn\n", 2, "on-stop" },
	{ NULL, "[ublkd]\non-stop = keep\n\non-stop = keep\n", 4, "line 2" },
	{ NULL, "[ublkd]\n[ublkd]\n", 2, "second time" },
	{ NULL, "[daemon]\n", 1, "not a valid section" },
	{ NULL, "[]\n", 1, "not a valid section" },
	{ NULL, "[ublkd\n", 1, "not a [SECTION]" },
	{ NULL, "[ublkd] # x\n", 1, "not a [SECTION]" },
	{ NULL, "[export]\nuri = null:1G\n", 1, "no name" },
	{ NULL, "[export ]\nuri = null:1G\n", 1, "no name" },
	{ NULL, "[export a/b]\nuri = null:1G\n", 1, "not a valid name" },
	{ NULL, "[export ../a]\nuri = null:1G\n", 1, "not a valid name" },
	{ NULL, "[exporta]\n", 1, "not a valid section" },
	{ NULL, "[export a]\n", 1, "no uri" },
	{ NULL, "[export a]\nuri = null:1G\n[export a]\nuri = null:2G\n", 3, "line 1" },
	{ "a", "", 1, "no uri" },
	{ "a", "uri\n", 1, "KEY = VALUE" },
	{ "a", "uri = null:1G\nread-only\n", 2, "write 'read-only = on'" },
	{ "a", "uri = null:1G\nkeepalive  \n", 2, "write 'keepalive = on'" },
	{ "a", "uri = null:1G\nqueues\n", 2, "KEY = VALUE" },
	{ "a", "uri = \n", 1, "empty" },
	{ "a", "uri = null:1G\nuri = null:2G\n", 2, "line 1" },
	{ "a", "uri = tape:1\n", 1, "no scheme 'tape:'" },
	{ "a", "uri = null:\n", 1, "size" },
	{ "a", "uri = disk.img\n", 1, "absolute path" },
	{ "a", "uri = file:disk.img\n", 1, "absolute path" },
	{ "a", "uri = null:1G\nqueue = 3\n", 2, "'queue' is not an option" },
	{ "a", "uri = null:1G\ncreate = 3G\n", 2, "null backend" },
	{ "a", "uri = null:1G\nqueues = -1\n", 2, "queues" },
	{ "a", "uri = null:1G\nread-only = yes\n", 2, "read-only" },
	{ "a", "uri = null:1G\nread-only =\n", 2, "read-only" },
	{ "a", "uri = null:1G\nblock-size = 1536\n", 2, "block-size" },
	{ "a", "uri = null:1G\nqueues = 1\ncpus = 9-1\n", 3, "cpus" },
	{ "a", "# x\ntls-certificates = /x\nuri = nbd://h/\n", 2, "no TLS" },
	{ "a", "queues = 1\nuri = nbd://h:99999/\n", 2, "port" },
	{ "a", "queues = 1\nuri = memory:100\n", 2, "block" },
	{ "a", "uri = \"null:1G\"\n", 1, "quotes" },
	{ "a", "uri = null:1G ; a comment\n", 1, "lines of their own" },
	{ "a", "[export]\n[export]\nuri = null:1G\n", 2, "one export" },
	{ "a", "uri = null:1G\n[export]\n", 2, "one export" },
	{ "a", "[export b]\nuri = null:1G\n", 1, "'a'" },
	{ "a", "[ublkd]\n[export]\nuri = null:1G\n", 1, "[ublkd]" },
	{ "a", "uri = null:1G\n[export b]\nuri = null:2G\n", 2, "'a'" },
	{ "a", "uri = null:1G\n[x\nqueues = 1\n", 2, "not a [SECTION]" },
	{ "a", "uri = null:1G\n\x1b[1m\n", 2, "0x1b" },
	{ "a", "uri = /a\xff\n", 1, "0xff" },
	{ "a", "uri = /a\xc3\n", 1, "0xc3" },
	{ "a", "uri = nbds://h/\ntls-username = a\xff\n", 2, "0xff is not allowed" },
	{ "a", "uri = nbds://h/\ntls-psk-file = /\xed\xa0\x80\n", 2, "0xed" },
	{ NULL, "[ublkd]\nworker-user = \xc0\xaf\n", 2, "0xc0" },
	{ "a", "uri = /a\rb\n", 1, "0x0d" },
	{ "a", "uri = /a\vb\n", 1, "0x0b" },
	{ "a/b", "uri = null:1G\n", 1, "not a valid name" },
};

static void what_is_wrong_is_told(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		parse(refused[i].name, refused[i].text, strlen(refused[i].text));
		if (!settings.nr_errors || settings.errors[0].line != refused[i].line ||
		    !strstr(settings.errors[0].text, refused[i].why))
			fail_msg("%s: line %u: %s", refused[i].text,
				 settings.nr_errors ? settings.errors[0].line : 0,
				 settings.nr_errors ? settings.errors[0].text : "no error");
		if (settings.nr_errors > 1)
			fail_msg("%s: line %u: %s", refused[i].text, settings.errors[1].line,
				 settings.errors[1].text);
		assert_null(strchr(settings.errors[0].text, '\n'));
		assert_string_equal(settings.errors[0].file, "FILE");
		if (refused[i].name)
			assert_int_equal(settings.nr_exports, 0);
	}
}

static void zero_bytes_are_refused(void **state)
{
	static const char text[] = "uri = null:1G\0\n";
	static const char comment[] = "# \0x\nuri = null:1G\n";

	(void)state;
	parse("a", text, sizeof(text) - 1);
	assert_int_equal(settings.nr_errors, 1);
	assert_non_null(strstr(settings.errors[0].text, "0x00"));
	parse("a", comment, sizeof(comment) - 1);
	assert_int_equal(settings.nr_errors, 1);
	assert_int_equal(settings.nr_exports, 0);
}

/* All errors, those of one declaration and of others. */
static void one_error_hides_no_other(void **state)
{
	static const char text[] = "[ublkd]\nmax-jobs = x\non-stop = remove\n"
				   "[export a]\nuri = null:1G\nqueues = x\ndepth = y\nz = 1\n"
				   "[export b]\nuri = null:1G\n"
				   "[bad\nuri = null:1G\n"
				   "[export c]\nuri = null:1G\n";

	(void)state;
	parse(NULL, text, strlen(text));
	assert_int_equal(settings.nr_errors, 5);
	assert_null(settings.errors[0].name);
	assert_string_equal(settings.errors[1].name, "a");
	assert_int_equal(settings.errors[1].line, 6);
	assert_int_equal(settings.errors[2].line, 7);
	assert_int_equal(settings.errors[3].line, 8);
	assert_int_equal(settings.errors[4].line, 11);
	assert_int_equal(settings.nr_exports, 2);
	assert_string_equal(settings.exports[0].name, "b");
	assert_string_equal(settings.exports[1].name, "c");
	assert_int_equal(settings.values[SETTINGS_ON_STOP].word, SETTINGS_STOP_REMOVE);
	assert_int_equal(settings.values[SETTINGS_MAX_JOBS].number, 16);
}

static void endless_errors_are_cut_short(void **state)
{
	char *text = malloc(200000);

	(void)state;
	memset(text, '\n', 200000);
	for (unsigned i = 0; i < 200000; i += 2)
		text[i] = 'x';
	parse("a", text, 200000);
	assert_true(settings.nr_errors > 10 && settings.nr_errors < 100);
	assert_int_equal(settings.nr_exports, 0);
	free(text);
}

/* Or a file of that whole name would be made. */
static void comments_behind_values_are_refused(void **state)
{
	static const char *const texts[] = { "uri = /x.img   # my disk\ncreate = 1M\n",
					     "uri = /x.img ; my disk\n" };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		parse("a", texts[i], strlen(texts[i]));
		assert_int_equal(settings.nr_exports, 0);
		assert_int_equal(settings.errors[0].line, 1);
		assert_non_null(strstr(settings.errors[0].text, "comment"));
	}
	parse("a", "uri = /x#1.img\n", 15);
	assert_int_equal(settings.nr_errors, 0);
	assert_string_equal(settings.exports[0].uri, "/x#1.img");
}

static void long_values_are_read_whole(void **state)
{
	char text[SETTINGS_LINE_MAX + 200], path[SETTINGS_LINE_MAX + 100];

	(void)state;
	/* A path of each length around what inih takes at once, with what it would drop. */
	for (unsigned n = 2; n < 2000; n += n < 500 ? 1 : 97) {
		for (unsigned i = 0; i < n; i++)
			path[i] = "/ab#cd e;f  \xc3\xa4=x:y[z]"[i % 21];
		path[0] = '/';
		path[n] = 0;
		for (unsigned i = 1; i + 1 < n; i++)
			if (path[i - 1] == ' ' && (path[i] == ';' || path[i] == '#'))
				path[i] = ',';
		/* Not half a letter, nor a blank, at the end. */
		for (unsigned i = n; i-- > 1 && ((path[i] & 0x80) || path[i] == ' ');)
			path[i] = 'e';
		snprintf(text, sizeof(text), "queues = 1\n  uri = %s\ndepth = 4\n", path);
		parse("a", text, strlen(text));
		if (settings.nr_errors)
			fail_msg("%u: %s", n, settings.errors[0].text);
		assert_string_equal(settings.exports[0].uri, path);
		assert_int_equal(settings.exports[0].nr_options, 2);
	}
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[SETTINGS_LINE_MAX - 5] = 0;
	snprintf(text, sizeof(text), "uri = %s\n", path);
	parse("a", text, strlen(text));
	assert_int_equal(settings.nr_errors, 1);
	assert_non_null(strstr(settings.errors[0].text, "longer"));
	/* Values that cannot be parted without a loss are refused. */
	memset(path, ' ', 500);
	memcpy(path, "/a", 2);
	strcpy(path + 500, "b");
	snprintf(text, sizeof(text), "uri = %s\nqueues = 1\n", path);
	parse("a", text, strlen(text));
	assert_int_equal(settings.nr_exports, 0);
	assert_int_equal(settings.errors[0].line, 1);
	memset(text, 'k', 1000);
	strcpy(text + 1000, " = 1\n");
	parse("a", text, strlen(text));
	assert_int_equal(settings.nr_exports, 0);
}

static void files_are_told_apart(void **state)
{
	char *huge;

	(void)state;
	put("ublkd.conf", "[export twice]\nuri = null:1G\n");
	put("exports.d/twice.conf", "uri = null:2G\n");
	put("exports.d/good.conf", "uri = null:1G\n");
	put("exports.d/a b.conf", "uri = null:1G\n");
	assert_int_equal(symlink("loop.conf", temp_path("exports.d/loop.conf")), 0);
	assert_int_equal(mkfifo(temp_path("exports.d/pipe.conf"), 0600), 0);
	assert_int_equal(mkdir(temp_path("exports.d/directory.conf"), 0700), 0);
	put("exports.d/open.conf", "uri = null:1G\n");
	assert_int_equal(chmod(temp_path("exports.d/open.conf"), 0666), 0);
	huge = malloc(SETTINGS_FILE_MAX + 2);
	memset(huge, '\n', SETTINGS_FILE_MAX + 1);
	huge[SETTINGS_FILE_MAX + 1] = 0;
	put("exports.d/huge.conf", huge);
	free(huge);
	load();
	assert_int_equal(settings.nr_exports, 2);
	assert_string_equal(settings.exports[0].uri, "null:1G");
	assert_string_equal(settings.exports[1].name, "good");
	assert_int_equal(settings.nr_errors, 7);
	for (unsigned i = 0; i < settings.nr_errors; i++) {
		const struct settings_error *e = &settings.errors[i];

		if (!strcmp(e->file, temp_path("exports.d/twice.conf"))) {
			assert_int_equal(e->line, 1);
			assert_non_null(strstr(e->text, temp_path("ublkd.conf")));
			assert_non_null(strstr(e->text, "line 1"));
			assert_string_equal(e->name, "twice");
		} else {
			assert_int_equal(e->line, 0);
		}
	}
}

/* Loads, and expects one error, which is about path and tells what to do. */
static void is_refused(const char *path)
{
	load();
	assert_int_equal(settings.nr_exports, 0);
	assert_int_equal(settings.nr_errors, 1);
	assert_string_equal(settings.errors[0].file, path);
	assert_non_null(strstr(settings.errors[0].text, "chmod go-w"));
}

static void a_file_that_others_can_write_is_refused(void **state)
{
	static const mode_t modes[] = { 0602, 0620, 0666 };
	char path[PATH_MAX];

	(void)state;
	put("exports.d/a.conf", "uri = null:1G\n");
	snprintf(path, sizeof(path), "%s", temp_path("exports.d/a.conf"));
	if (geteuid() == 0) /* group 0 is root's own */
		assert_int_equal(chown(path, 0, 12345), 0);
	for (unsigned i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		assert_int_equal(chmod(path, modes[i]), 0);
		is_refused(path);
	}
	assert_int_equal(chmod(path, 0640), 0);
	load();
	assert_int_equal(settings.nr_errors, 0);
	assert_int_equal(settings.nr_exports, 1);
}

static void a_directory_that_others_can_write_is_refused(void **state)
{
	char exports[PATH_MAX];

	(void)state;
	put("exports.d/a.conf", "uri = null:1G\n");
	snprintf(exports, sizeof(exports), "%s", temp_path("exports.d"));
	assert_int_equal(chmod(exports, 01777), 0);
	is_refused(exports);
	assert_int_equal(chmod(exports, 0755), 0);
	assert_int_equal(chmod(directory, 0777), 0);
	is_refused(directory);
	if (geteuid() == 0) {
		assert_int_equal(chmod(directory, 0755), 0);
		assert_int_equal(chown(exports, 12345, 0), 0);
		is_refused(exports);
		assert_int_equal(chown(exports, 0, 0), 0);
	}
	assert_int_equal(chmod(directory, 0700), 0);
	load();
	assert_int_equal(settings.nr_errors, 0);
	assert_int_equal(settings.nr_exports, 1);
}

static void what_is_no_directory_is_told(void **state)
{
	(void)state;
	remove(temp_path("exports.d"));
	assert_int_equal(symlink("/dev/null", temp_path("exports.d")), 0);
	load();
	assert_int_equal(settings.nr_errors, 1);
}

static void an_export_is_written_and_removed(void **state)
{
	struct settings_pair options[] = { { (char *)"create", (char *)"10G", 0 },
					   { (char *)"read-only", (char *)"off", 0 } };
	struct settings_pair turned[] = { options[1], options[0] };
	struct stat before, after;
	mode_t mask = umask(0077);

	(void)state;
	assert_int_equal(settings_remove_export(directory, "disk", &err), 0);
	assert_int_equal(settings_write_export(directory, "disk", "/a b.img", options, 2, &err), 0);
	umask(mask);
	load();
	assert_int_equal(settings.nr_errors, 0);
	assert_int_equal(settings.nr_exports, 1);
	assert_string_equal(settings.exports[0].uri, "/a b.img");
	assert_true(settings.exports[0].written);
	assert_int_equal(stat(temp_path("exports.d/disk.conf"), &before), 0);
	assert_int_equal(before.st_mode & 0777, 0644);
	/* The same again writes nothing; something else replaces it. */
	assert_int_equal(settings_write_export(directory, "disk", "/a b.img", turned, 2, &err), 0);
	assert_int_equal(stat(temp_path("exports.d/disk.conf"), &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(settings_write_export(directory, "disk", "/b.img", NULL, 0, &err), 0);
	load();
	assert_string_equal(settings.exports[0].uri, "/b.img");
	assert_int_equal(settings.exports[0].nr_options, 0);
	assert_int_equal(settings_remove_export(directory, "disk", &err), 1);
	assert_int_equal(settings_remove_export(directory, "disk", &err), 0);
	load();
	assert_int_equal(settings.nr_exports, 0);
	/* Nothing is left: the directory is empty. */
	assert_int_equal(rmdir(temp_path("exports.d")), 0);
}

static void what_others_wrote_stays(void **state)
{
	(void)state;
	put("exports.d/mine.conf", "# by hand\nuri = null:1G\n");
	put("exports.d/bad.conf", "nonsense\n");
	put("ublkd.conf", "[export main]\nuri = null:1G\nqueues = 1\n");
	assert_int_equal(settings_write_export(directory, "mine", "null:2G", NULL, 0, &err),
			 -EEXIST);
	assert_int_equal(settings_write_export(directory, "mine", "null:1G", NULL, 0, &err), 0);
	assert_int_equal(settings_write_export(directory, "bad", "null:1G", NULL, 0, &err),
			 -EEXIST);
	assert_int_equal(settings_write_export(directory, "main", "null:1G", NULL, 0, &err),
			 -EEXIST);
	assert_non_null(strstr(err.text, "line 1"));
	assert_int_equal(settings_remove_export(directory, "mine", &err), -EEXIST);
	assert_int_equal(settings_remove_export(directory, "bad", &err), -EEXIST);
	load();
	assert_int_equal(settings.nr_exports, 2);
	assert_int_equal(access(temp_path("exports.d/bad.conf"), F_OK), 0);
}

/* Whether it could be written is found out without a trace. */
static void what_could_be_written_is_found_out(void **state)
{
	(void)state;
	assert_int_equal(settings_check_export(directory, "disk", "null:1G", NULL, 0, &err), 0);
	load();
	assert_int_equal(settings.nr_exports, 0);
	assert_int_equal(rmdir(temp_path("exports.d")), 0);
	put("exports.d/mine.conf", "# by hand\nuri = null:1G\n");
	assert_int_equal(settings_check_export(directory, "mine", "null:2G", NULL, 0, &err),
			 -EEXIST);
	assert_int_equal(settings_check_export(directory, "mine", "null:1G", NULL, 0, &err), 0);
	assert_int_equal(settings_check_export(directory, "a", "/a\nb", NULL, 0, &err), -EINVAL);
	/* A file that ublkd wrote stays as it is. */
	assert_int_equal(settings_write_export(directory, "disk", "null:1G", NULL, 0, &err), 0);
	assert_int_equal(settings_check_export(directory, "disk", "null:2G", NULL, 0, &err), 0);
	load();
	assert_string_equal(settings_find(&settings, "disk")->uri, "null:1G");
}

static void a_half_written_file_is_no_hindrance(void **state)
{
	(void)state;
	put("exports.d/.disk.conf", "# Written");
	assert_int_equal(settings_write_export(directory, "disk", "null:1G", NULL, 0, &err), 0);
	load();
	assert_int_equal(settings.nr_exports, 1);
	assert_int_equal(access(temp_path("exports.d/.disk.conf"), F_OK), -1);
}

static void what_no_file_can_hold_is_refused(void **state)
{
	static const char *const uris[] = { "",
					    "/a\nb",
					    "/a ",
					    " /a",
					    "/a ;b",
					    "/a\tb",
					    "/a\xff",
					    "/a\n[export b]",
					    "\"/a\"",
					    "/a\r",
					    "/a\x01b",
					    "relative",
					    "tape:1",
					    ";/a",
					    "/a\nqueues = 2",
					    "null:nonsense" };
	struct settings_pair twice[] = { { (char *)"queues", (char *)"1", 0 },
					 { (char *)"queues", (char *)"1", 0 } };
	struct settings_pair odd = { (char *)"x = 1\nqueues", (char *)"1", 0 };
	struct settings_pair uri = { (char *)"uri", (char *)"null:1G", 0 };

	(void)state;
	for (unsigned i = 0; i < sizeof(uris) / sizeof(*uris); i++) {
		assert_int_equal(settings_write_export(directory, "a", uris[i], NULL, 0, &err),
				 -EINVAL);
		assert_null(strchr(err.text, '\n'));
	}
	assert_int_equal(settings_write_export(directory, "a", "null:1G", twice, 2, &err), -EINVAL);
	assert_int_equal(settings_write_export(directory, "a", "null:1G", &odd, 1, &err), -EINVAL);
	assert_int_equal(settings_write_export(directory, "a", "null:1G", &uri, 1, &err), -EINVAL);
	assert_int_equal(settings_write_export(directory, "a/b", "null:1G", NULL, 0, &err),
			 -EINVAL);
	assert_int_equal(settings_remove_export(directory, "a/b", &err), -EINVAL);
	assert_int_equal(access(temp_path("exports.d"), F_OK), -1);
}

static uint64_t seed = 1;

static unsigned chance(unsigned n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(seed >> 33) % n;
}

/* Whatever path there is: it comes back as it was, or is refused. */
static void any_path_comes_back_or_is_refused(void **state)
{
	static const char letters[] = "/ab=:;# \t\n\r\"'[]\\%\xc3\xa4\xff\x01k";
	unsigned good = 0;
	char uri[400];

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		unsigned n = 1 + chance(round % 8 ? 12 : sizeof(uri) - 2);

		uri[0] = '/';
		for (unsigned i = 1; i < n; i++)
			uri[i] = chance(round % 16 ? 3 : 50) ? (char)('a' + chance(26))
							     : letters[chance(sizeof(letters) - 1)];
		uri[n] = 0;
		if (settings_write_export(directory, "x", uri, NULL, 0, &err))
			continue;
		good++;
		load();
		assert_int_equal(settings.nr_errors, 0);
		assert_int_equal(settings.nr_exports, 1);
		assert_string_equal(settings.exports[0].uri, uri);
		assert_int_equal(settings.exports[0].nr_options, 0);
	}
	assert_true(good > 300 && good < 3000);
}

static void check(void)
{
	load();
	assert_int_equal(settings_check(directory, &settings), 0);
}

/* Expects one error: in the file of that name, at that line, of that export, with that word. */
static void finds(const char *name, unsigned line, const char *export, const char *why)
{
	const struct settings_error *e;

	check();
	if (settings.nr_errors != 1)
		fail_msg("%s: %u errors, the last is '%s'", why, settings.nr_errors,
			 settings.nr_errors ? settings.errors[settings.nr_errors - 1].text : "");
	e = &settings.errors[0];
	if (strcmp(e->file, temp_path(name)) != 0 || e->line != line || !strstr(e->text, why))
		fail_msg("%s: %s:%u: %s", why, e->file, e->line, e->text);
	assert_int_equal(!e->name, !export);
	if (export)
		assert_string_equal(e->name, export);
}

/* An export's file: first, the path as the URI, last. */
static void put_export(const char *name, const char *first, const char *path, const char *last)
{
	char text[2 * PATH_MAX];

	snprintf(text, sizeof(text), "%suri = %s\n%s", first, path, last);
	put(name, text);
}

static void a_check_finds_unknown_users_and_groups(void **state)
{
	(void)state;
	put("ublkd.conf", "[ublkd]\nworker-user = no-such-user\n");
	finds("ublkd.conf", 2, NULL, "no-such-user");
	put("ublkd.conf", "[ublkd]\nworker-user = root\n");
	finds("ublkd.conf", 2, NULL, "without privileges");
	put("ublkd.conf", "[ublkd]\n\ncontrol-group = no-such-group\n");
	finds("ublkd.conf", 3, NULL, "control-group: there is no group 'no-such-group'");
	put("ublkd.conf", "[ublkd]\nread-group = no-such-group\nworker-user = nobody\n");
	finds("ublkd.conf", 2, NULL, "read-group");
	put("ublkd.conf", "[ublkd]\nread-group = root\ncontrol-group = root\n");
	check();
	assert_int_equal(settings.nr_errors, 0);
}

static void a_check_finds_files_that_are_not_read(void **state)
{
	static const char *const fine[] = { "exports.d/.a.cfg", "exports.d/a.conf~",
					    "exports.d/a.conf.off", "exports.d/README.txt" };

	(void)state;
	for (unsigned i = 0; i < sizeof(fine) / sizeof(*fine); i++)
		put(fine[i], "");
	assert_int_equal(mkdir(temp_path("exports.d/directory"), 0755), 0);
	check();
	assert_int_equal(settings.nr_errors, 0);
	put("exports.d/data.cfg", "");
	finds("exports.d/data.cfg", 0, NULL, "ends in .conf");
}

static void a_check_finds_missing_storage(void **state)
{
	char path[PATH_MAX];

	(void)state;
	snprintf(path, sizeof(path), "%s", temp_path("disk"));
	put_export("exports.d/a.conf", "queues = 1\n", path, "");
	finds("exports.d/a.conf", 2, "a", "create = SIZE");
	/* It is for the check alone: ublkd tries the export again until the file is there. */
	load();
	assert_int_equal(settings.nr_errors, 0);
	put_export("exports.d/a.conf", "", temp_path("disk/below"), "create = 1M\n");
	finds("exports.d/a.conf", 1, "a", "no directory");
	put_export("exports.d/a.conf", "", path, "create = 1M\n");
	check();
	assert_int_equal(settings.nr_errors, 0);
	put_export("exports.d/a.conf", "", directory, "");
	finds("exports.d/a.conf", 1, "a", "neither a regular file");
	put_export("exports.d/a.conf", "", path, "");
	temp_file("disk", 4096);
	check();
	assert_int_equal(settings.nr_errors, 0);
}

static void a_check_finds_what_two_exports_share(void **state)
{
	char path[PATH_MAX], other[PATH_MAX];

	(void)state;
	snprintf(path, sizeof(path), "%s", temp_file("disk", 4096));
	snprintf(other, sizeof(other), "%s", temp_path("link"));
	assert_int_equal(symlink("disk", other), 0);
	put_export("exports.d/a.conf", "", path, "");
	put_export("exports.d/b.conf", "read-only = on\n", other, "");
	finds("exports.d/b.conf", 2, "b", "the export 'a' has the same storage");
	put_export("exports.d/a.conf", "", path, "read-only = on\n");
	check();
	assert_int_equal(settings.nr_errors, 0);
	put_export("exports.d/a.conf", "", temp_file("second", 4096), "");
	check();
	assert_int_equal(settings.nr_errors, 0);
	snprintf(path, sizeof(path), "%s", temp_path("new"));
	put_export("exports.d/a.conf", "", path, "create = 1M\n");
	put_export("exports.d/b.conf", "", path, "create = 1M\n");
	finds("exports.d/b.conf", 1, "b", "same storage");
	put("exports.d/a.conf", "uri = nbd://h/x\n");
	put("exports.d/b.conf", "uri = nbd://h/x\n");
	finds("exports.d/b.conf", 1, "b", "same storage");
	put("exports.d/b.conf", "uri = nbd://h/y\nid = 7\n");
	put("exports.d/c.conf", "uri = memory:1M\n\nid = 7\n");
	finds("exports.d/c.conf", 3, "c", "the export 'b' has the same id");
	put("exports.d/c.conf", "uri = memory:1M\nid = 8\n");
	put("exports.d/d.conf", "uri = memory:1M\n");
	check();
	assert_int_equal(settings.nr_errors, 0);
	assert_int_equal(settings.nr_exports, 4);
}

/* A backend's option whose name is an export's option too could not be said in a file. */
static void keys_are_no_ones_twice(void **state)
{
	const struct backend *backend;

	(void)state;
	assert_int_equal(option_find(spec_options, "uri"), -1);
	for (unsigned i = 0; (backend = backend_at(i)); i++)
		for (unsigned j = 0; j < option_count(backend->options); j++) {
			assert_int_equal(option_find(spec_options, backend->options[j].name), -1);
			assert_string_not_equal(backend->options[j].name, "uri");
			assert_true(strlen(backend->options[j].name) < 40);
		}
}

int main(void)
{
#define WITH_DIRECTORY(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		WITH_DIRECTORY(nothing_is_all_defaults),
		WITH_DIRECTORY(settings_and_exports_are_read),
		WITH_DIRECTORY(what_is_wrong_is_told),
		WITH_DIRECTORY(zero_bytes_are_refused),
		WITH_DIRECTORY(one_error_hides_no_other),
		WITH_DIRECTORY(endless_errors_are_cut_short),
		WITH_DIRECTORY(comments_behind_values_are_refused),
		WITH_DIRECTORY(long_values_are_read_whole),
		WITH_DIRECTORY(files_are_told_apart),
		WITH_DIRECTORY(what_is_no_directory_is_told),
		WITH_DIRECTORY(a_file_that_others_can_write_is_refused),
		WITH_DIRECTORY(a_directory_that_others_can_write_is_refused),
		WITH_DIRECTORY(an_export_is_written_and_removed),
		WITH_DIRECTORY(what_others_wrote_stays),
		WITH_DIRECTORY(what_could_be_written_is_found_out),
		WITH_DIRECTORY(a_half_written_file_is_no_hindrance),
		WITH_DIRECTORY(what_no_file_can_hold_is_refused),
		WITH_DIRECTORY(any_path_comes_back_or_is_refused),
		WITH_DIRECTORY(a_check_finds_unknown_users_and_groups),
		WITH_DIRECTORY(a_check_finds_files_that_are_not_read),
		WITH_DIRECTORY(a_check_finds_missing_storage),
		WITH_DIRECTORY(a_check_finds_what_two_exports_share),
		cmocka_unit_test(keys_are_no_ones_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
