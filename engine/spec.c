/* SPDX-License-Identifier: MIT */
/*
 * The request for an export: parses the URI, the options of every export and those of the URI's
 * backend. Nothing is opened here, so that a command, a file or a client is refused before there is
 * anything to undo.
 *
 * The URI's scheme selects the backend; a bare path means a file. BACKEND_REGISTER puts each
 * backend into a section of the program, so that the engine names none and a new one needs no edit
 * here.
 *
 * Options come from command lines, files and clients in any order. Hence each is set by its name
 * and parsed alone; spec_check() judges the whole. A URI with a password is refused, since URIs
 * appear in logs, records and the output of ps.
 *
 * A spec owns copies of all its texts; an instance points into its spec and must not outlive it.
 * Read in this order: spec_open(), spec_set_any(), spec_check(), spec_to_instance().
 */
#include "engine/spec.h"
#include "common/cpus.h"
#include "engine/buffer.h"
#include "engine/busy_poll.h"
#include "engine/ublk_abi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A request that is longer on its way is not worth a CPU. */
#define POLL_US_MAX 10000u

const struct option_def spec_options[] = {
	[SPEC_ID] = { "id", OPTION_COUNT, NULL, NULL, 0, 1u << 20,
		      "the N of /dev/ublkbN (default: the lowest free number)" },
	[SPEC_QUEUES] = { "queues", OPTION_COUNT, "auto", "auto", 1, UBLK_QUEUES_MAX,
			  "queues, one thread each; auto: one for each CPU" },
	[SPEC_DEPTH] = { "depth", OPTION_COUNT, NULL, "128", 1, UBLK_DEPTH_MAX,
			 "requests in flight, for each queue" },
	[SPEC_BLOCK_SIZE] = { "block-size", OPTION_SIZE, NULL, NULL, 512, 4096,
			      "logical block size: 512, 1024, 2048 or 4096 (default: the "
			      "backend's)" },
	[SPEC_MAX_IO] = { "max-io", OPTION_SIZE, NULL, "1M", 4096, UBLK_IO_MAX,
			  "largest request, a multiple of 4096" },
	[SPEC_READ_ONLY] = { "read-only", OPTION_FLAG, NULL, "off", 0, 0, "refuse writes" },
	[SPEC_IO_PATH] = { "io-path", OPTION_CHOICE, "copy|user-copy|zero-copy|auto", "auto", 0, 0,
			   "how data is moved between kernel and process; auto: the cheapest that "
			   "works" },
	[SPEC_CPUS] = { "cpus", OPTION_TEXT, NULL, NULL, 0, 0,
			"CPUs for the queues' threads, as in 0-3,8 (default: those of the NUMA "
			"node, or of the last-level cache, that submits to the queue)" },
	[SPEC_POLL_US] = { "poll-us", OPTION_COUNT, "auto|off", "off", 1, POLL_US_MAX,
			   "microseconds to spin for the next request before sleeping, while it pays; "
			   "auto: 100" },
	[SPEC_PARTITIONS] = { "partitions", OPTION_CHOICE, "on|off", NULL, 0, 0,
			      "scan the device for partitions (default: depends on the backend)" },
	[SPEC_OPTIONS] = { .name = NULL },
};

/* Weak: without any backend linked in there is no section, and the linker defines neither. */
extern const struct backend *const __start_ublkd_backends[] __attribute__((weak));
extern const struct backend *const __stop_ublkd_backends[] __attribute__((weak));

const struct backend *backend_at(unsigned index)
{
	return index < (size_t)(__stop_ublkd_backends - __start_ublkd_backends)
		       ? __start_ublkd_backends[index]
		       : NULL;
}

const struct backend *backend_find(const char *scheme)
{
	const struct backend *backend;

	for (unsigned i = 0; (backend = backend_at(i)); i++) {
		if (!strcmp(backend->scheme, scheme))
			return backend;
		for (const char *const *alias = backend->aliases; alias && *alias; alias++)
			if (!strcmp(*alias, scheme))
				return backend;
	}
	return NULL;
}

const struct option_value *instance_option(const struct instance *instance, const char *name)
{
	int i = option_find(instance->backend->options, name);

	if (i < 0)
		abort(); /* the backend's own table has it or not */
	return &instance->options[i];
}

bool instance_read_number(struct instance *instance, const char *path, uint64_t *value)
{
	int fd = instance->host->open_file(instance, path, O_RDONLY | O_CLOEXEC, 0);
	char text[24];
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	return sscanf(text, "%" SCNu64, value) == 1;
}

int instance_size(const struct instance *instance, uint64_t *size, struct error *err)
{
	uint32_t block = instance->block_size ? instance->block_size : 512;

	if (size_parse(instance->locator, size))
		return error_set(err, EINVAL, "'%s': use a size below 8E, as in %s:512M",
				 instance->name, instance->backend->scheme);
	if (!*size || *size % block)
		return error_set(err, EINVAL,
				 "'%s': the size must be a multiple of the block size, %u bytes: "
				 "use one as in %s:512M",
				 instance->name, block, instance->backend->scheme);
	return 0;
}

/* "scheme" of "scheme:rest", or NULL: a bare path. */
static char *scheme_of(const char *uri)
{
	size_t n = strspn(uri, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");

	if (uri[n] != ':' || !isalpha((unsigned char)uri[0]))
		return NULL;
	return strndup(uri, n);
}

/* RFC 3986, 3.2.1: "scheme://user:password@host". */
static bool has_password(const char *rest)
{
	const char *host, *colon;

	if (strncmp(rest, "//", 2) != 0)
		return false;
	rest += 2;
	host = memchr(rest, '@', strcspn(rest, "/?#"));
	colon = strchr(rest, ':');
	return host && colon && colon < host;
}

static int unknown_scheme(const char *scheme, const char *uri, struct error *err)
{
	char known[200] = "";
	const struct backend *backend;

	for (unsigned i = 0; (backend = backend_at(i)); i++)
		snprintf(known + strlen(known), sizeof(known) - strlen(known),
			 "%s%s:", i ? ", " : "", backend->scheme);
	return error_set(
		err, EINVAL,
		"'%s': there is no scheme '%s:' (only %s); for a file of that name write ./%s", uri,
		scheme, known, uri);
}

/* A copy of text that lives as long as the spec. */
static char *keep_value(struct spec *spec, const char *text)
{
	char **strings = realloc(spec->strings, (spec->nr_strings + 1) * sizeof(*strings));

	if (!strings)
		return NULL;
	spec->strings = strings;
	strings[spec->nr_strings] = strdup(text);
	return strings[spec->nr_strings] ? strings[spec->nr_strings++] : NULL;
}

int spec_open(struct spec *spec, const char *uri, struct error *err)
{
	char *scheme;
	int ret;

	*spec = (struct spec){ 0 };
	if (!*uri)
		return error_set(err, EINVAL,
				 "the URI is empty: give a path, or a URI such as memory:512M");
	scheme = scheme_of(uri);
	/* A URI is in messages, in records and in what `show` and `ps` tell.  Not in this one. */
	if (scheme && has_password(uri + strlen(scheme) + 1)) {
		ret = error_set(err, EINVAL,
				"other users could read a password in a URI: leave it out, as in "
				"nbds://USER@HOST/EXPORT, and put the key into a file, with -o "
				"tls-psk-file=FILE");
		goto close;
	}
	spec->uri = keep_value(spec, uri);
	if (!spec->uri) {
		ret = error_set(err, ENOMEM, "no memory");
		goto close;
	}
	spec->locator = scheme ? spec->uri + strlen(scheme) + 1 : spec->uri;
	spec->backend = backend_find(scheme ? scheme : "file");
	if (!spec->backend) {
		ret = unknown_scheme(scheme ? scheme : "file", uri, err);
		goto close;
	}
	spec->backend_values =
		calloc(option_count(spec->backend->options) + 1, sizeof(*spec->backend_values));
	if (!spec->backend_values) {
		ret = error_set(err, ENOMEM, "no memory");
		goto close;
	}
	option_defaults(spec_options, spec->values);
	option_defaults(spec->backend->options, spec->backend_values);
	free(scheme);
	return 0;
close:
	free(scheme);
	spec_close(spec);
	return ret;
}

void spec_close(struct spec *spec)
{
	for (unsigned i = 0; i < spec->nr_strings; i++)
		free(spec->strings[i]);
	free(spec->strings);
	free(spec->backend_values);
}

int spec_set(struct spec *spec, const char *name, const char *text, struct error *err)
{
	int i = option_find(spec_options, name);

	if (i < 0)
		return error_set(err, EINVAL, "'%s' is not an option of an export", name);
	if (text) {
		text = keep_value(spec, text);
		if (!text)
			return error_set(err, ENOMEM, "no memory");
	}
	return option_parse(&spec_options[i], text, &spec->values[i], err);
}

int spec_set_backend(struct spec *spec, const char *assignment, struct error *err)
{
	char *copy = keep_value(spec, assignment);
	char of[64];

	if (!copy)
		return error_set(err, ENOMEM, "no memory");
	snprintf(of, sizeof(of), "the %s backend", spec->backend->scheme);
	return option_assign(spec->backend->options, spec->backend_values, copy, of, err);
}

int spec_set_backend_option(struct spec *spec, const char *name, const char *text,
			    struct error *err)
{
	char *assignment;
	int ret;

	if (asprintf(&assignment, "%s=%s", name, text) < 0)
		return error_set(err, ENOMEM, "no memory");
	ret = spec_set_backend(spec, assignment, err);
	free(assignment);
	return ret;
}

int spec_set_any(struct spec *spec, const char *name, const char *text, struct error *err)
{
	if (option_find(spec_options, name) >= 0)
		return spec_set(spec, name, text, err);
	return spec_set_backend_option(spec, name, text, err);
}

int spec_check(const struct spec *spec, struct error *err)
{
	const struct option_value *block = &spec->values[SPEC_BLOCK_SIZE];
	const struct option_value *max_io = &spec->values[SPEC_MAX_IO];
	const struct option_value *cpu_list = &spec->values[SPEC_CPUS];
	struct instance instance;
	struct cpus cpus;

	if (block->set && block->number & (block->number - 1))
		return error_set(err, EINVAL,
				 "block-size: '%s' is not valid: use 512, 1024, 2048 or 4096",
				 block->text);
	if (max_io->number % 4096)
		return error_set(err, EINVAL, "max-io: '%s' is not valid: use a multiple of 4096",
				 max_io->text);
	if (cpu_list->set && cpus_parse(cpu_list->text, &cpus, err))
		return error_prefix(err, "cpus");
	if (!spec->backend->check)
		return 0;
	spec_to_instance(spec, &instance);
	return spec->backend->check(&instance, err);
}

uint32_t spec_poll_us(const struct spec *spec)
{
	const struct option_value *value = &spec->values[SPEC_POLL_US];

	if (value->word < 0)
		return (uint32_t)value->number;
	return value->word ? 0 : BUSY_POLL_AUTO_US;
}

int spec_check_cpus(const struct spec *spec, struct error *err)
{
	const struct option_value *list = &spec->values[SPEC_CPUS];
	struct cpus cpus;

	if (!list->set || (!cpus_parse(list->text, &cpus, err) && cpus_usable(&cpus)))
		return 0;
	return error_set(err, EINVAL,
			 "cpus: '%s': this process may not run on any of these CPUs: use others, "
			 "or leave cpus out",
			 list->text);
}

void spec_to_instance(const struct spec *spec, struct instance *instance)
{
	const struct option_value *v = spec->values;

	*instance = (struct instance){
		.backend = spec->backend,
		.name = spec->uri,
		.uri = spec->uri,
		.locator = spec->locator,
		.options = spec->backend_values,
		.read_only = v[SPEC_READ_ONLY].number,
		.block_size = (uint32_t)v[SPEC_BLOCK_SIZE].number,
		.nr_queues = v[SPEC_QUEUES].word < 0 ? (unsigned)v[SPEC_QUEUES].number
						     : cpus_available(),
		.depth = (unsigned)v[SPEC_DEPTH].number,
		.max_io = (uint32_t)v[SPEC_MAX_IO].number,
	};
}
