/* SPDX-License-Identifier: MIT */
/*
 * Records of exports, as an earlier ublkd or a crash left them: a libFuzzer target.
 *
 *   fuzz-record [LIBFUZZER-OPTIONS] CORPUS...
 *   fuzz-record --seeds=DIRECTORY       writes inputs to begin with, and ends
 *
 * An input is a record's file.
 *
 * Whatever it says: no sanitizer's report; it is refused with one line that names the
 * file, or it is an export whose own record is taken, and says the same.
 */
#include "common/error.h"
#include "common/log.h"
#include "supervisor/export.h"
#include "supervisor/record.h"
#include "tests/fuzz/seeds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/fuzz-record-XXXXXX", path[64];

static void broken(const char *what)
{
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void ignore_change(struct export *export)
{
	(void)export;
}

static void put(const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		broken("the record cannot be written");
	close(fd);
}

static void check_same(const struct export *a, const struct export *b)
{
	if (strcmp(a->uri, b->uri) != 0 || !json_equal(a->options, b->options) ||
	    a->origin != b->origin || a->wanted.goal != b->wanted.goal || a->state != b->state ||
	    a->device.cookie != b->device.cookie || a->device.exists != b->device.exists ||
	    memcmp(&a->owner, &b->owner, sizeof(a->owner)) != 0)
		broken("a record says something else when it is written again");
	if (a->device.exists && (a->device.info.dev_id != b->device.info.dev_id ||
				 a->device.info.nr_hw_queues != b->device.info.nr_hw_queues ||
				 a->worker.process.pid != b->worker.process.pid ||
				 a->worker.process.started != b->worker.process.started ||
				 strcmp(a->storage.identity, b->storage.identity) != 0 ||
				 a->storage.limits.size != b->storage.limits.size))
		broken("a device is another one when its record is written again");
}

static void check_paths(const struct export *export)
{
	if (export->worker.process.pid < 0)
		broken("a process whose number is a group of processes");
	if ((unsigned)export->state >= EXPORT_STATES)
		broken("a state that there is not");
	if (export->device.exists && !export->storage.limits.logical_block)
		broken("a device without blocks");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct export *export = NULL, *again = NULL;
	struct error err = { 0 };

	put(data, size);
	if (!record_read(&export, "disk", &err)) {
		check_paths(export);
		/* An identity may have been cut. */
		if (record_write(export, &err))
			broken(err.text);
		if (record_read(&again, "disk", &err))
			broken("its own record is refused");
		check_same(export, again);
		export_destroy(again);
		export_destroy(export);
		uv_run(uv_default_loop(), UV_RUN_NOWAIT);
	} else if (!*err.text || strchr(err.text, '\n')) {
		broken("a refusal that is not one line");
	}
	return 0;
}

static void write_seeds(const char *where)
{
	static const char *const uris[] = { "null:1G", "memory:64M", "file:/a", "nbd://h/x" };
	static char text[4096];
	struct error err;

	for (unsigned i = 0; i < 4; i++)
		for (unsigned has_device = 0; has_device < 2; has_device++) {
			struct export *export;
			ssize_t n;
			int fd;

			if (export_create(&export, "disk", uris[i],
					  json_pack("{s:s}", "queues", "2"), ORIGIN_REQUESTED,
					  &err))
				broken(err.text);
			export->state = has_device ? EXPORT_LIVE : EXPORT_DECLARED;
			export->device.exists = has_device;
			export->device.cookie = 0x1234;
			export->device.info.nr_hw_queues = 2;
			export->storage.limits = (struct backend_limits){ .size = 1 << 30,
									  .logical_block = 512,
									  .physical_block = 4096 };
			export->worker.process.pid = 7;
			export->owner = (struct owner){ i, i, i ? 1 : 0, { i } };
			if (record_write(export, &err))
				broken(err.text);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			n = read(fd, text, sizeof(text));
			close(fd);
			seeds_write(where, text, n > 0 ? (size_t)n : 0);
			export_destroy(export);
		}
}

static void clean(void)
{
	unlink(path);
	rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seeds = seeds_directory(*argc, *argv);

	if (!mkdtemp(directory))
		broken("no directory for records");
	atexit(clean);
	snprintf(path, sizeof(path), "%s/disk.json", directory);
	record_directory = directory;
	export_changed = ignore_change;
	log_setup("fuzz", LOG_LEVEL_ERROR);
	if (seeds) {
		write_seeds(seeds);
		exit(0);
	}
	return 0;
}
