/* SPDX-License-Identifier: MIT */
/*
 * ublkctl export: asks ublkd to create an export. It takes the options of 'ublkctl run' and
 * checks them here in the same way, so that a wrong command line fails without ublkd.
 *
 * ublkd has another working directory, so relative paths (of a file, of a Unix socket in a URI,
 * of options) are made absolute before they are sent.
 */
#include "engine/spec.h"
#include "supervisor/name.h"
#include "tools/client.h"
#include "tools/verbs.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option_def export_options[] = {
	{ "persist", OPTION_FLAG, NULL, "off", 0, 0, "create the export again at boot" },
	OPTION_DEF_CREATE,
	OPTION_DEF_JSON,
	OPTION_DEF_SOCKET,
	{ .name = NULL },
};

/* The command line is read twice, see cli_parse_uri(). */
struct export_wish {
	struct cli_uri uri;
	bool json, persist;
	const char *socket;
	char *directory; /* where a relative path begins */
	json_t *options; /* by name, as ublkd wants them */
};

/* ---- absolute paths ---- */

static char *make_absolute(const struct export_wish *wish, const char *path)
{
	char *absolute;

	if (*path == '/')
		return strdup(path);
	return asprintf(&absolute, "%s/%s", strcmp(wish->directory, "/") ? wish->directory : "",
			path) < 0
		       ? NULL
		       : absolute;
}

/* The directory, percent-encoded for a URI, with a '/' at its end. */
static size_t write_directory(const char *directory, char *out)
{
	size_t n = 0;

	for (; *directory; directory++) {
		if (isalnum((unsigned char)*directory) || strchr("/-._~", *directory))
			out[n++] = *directory;
		else
			n += (size_t)sprintf(out + n, "%%%02X", (unsigned char)*directory);
	}
	if (!n || out[n - 1] != '/')
		out[n++] = '/';
	return n;
}

/* "nbd+unix:///?socket=PATH" */
static char *make_socket_absolute(const struct export_wish *wish, const char *uri)
{
	const char *query = strchr(uri, '?'), *path = query ? strstr(query, "socket=") : NULL;
	char *absolute;
	size_t n;

	if (!path || (path[-1] != '?' && path[-1] != '&'))
		return strdup(uri);
	path += strlen("socket=");
	if (*path == '/' || !strncasecmp(path, "%2f", 3))
		return strdup(uri);
	absolute = malloc(strlen(uri) + 3 * strlen(wish->directory) + 2);
	if (!absolute)
		return NULL;
	n = (size_t)(path - uri);
	memcpy(absolute, uri, n);
	n += write_directory(wish->directory, absolute + n);
	strcpy(absolute + n, path);
	return absolute;
}

static char *uri_for_ublkd(const struct export_wish *wish)
{
	const struct spec *spec = &wish->uri.spec;
	size_t scheme = (size_t)(spec->locator - spec->uri);
	char *path, *uri = NULL;

	/* A path alone is a file's. */
	if (spec->backend != backend_find("file"))
		return strstr(spec->uri, "+unix:") ? make_socket_absolute(wish, spec->uri)
						   : strdup(spec->uri);
	path = make_absolute(wish, spec->locator);
	if (path && asprintf(&uri, "%.*s%s", (int)scheme, spec->uri, path) < 0)
		uri = NULL;
	free(path);
	return uri;
}

/* ---- the command line ---- */

/* JSON text is UTF-8, but a path may be any bytes: refuse those instead of sending nothing. */
static int check_utf8(const char *what, const char *text, struct error *err)
{
	json_t *string = json_string(text);
	char shown[1000];

	if (!string)
		return error_set(err, EINVAL, "%s: '%s' is not valid UTF-8", what,
				 text_escape(text, shown, sizeof(shown)));
	json_decref(string);
	return 0;
}

static int keep(struct export_wish *wish, const struct option_def *def, const char *text,
		struct error *err)
{
	char *path = text && def->type == OPTION_PATH ? make_absolute(wish, text) : NULL;
	const char *value = path ? path : text ? text : "on";
	int ret = check_utf8(def->name, value, err);

	if (!ret)
		json_object_set_new(wish->options, def->name, json_string(value));
	free(path);
	return ret;
}

static int set_option(void *context, const struct option_def *def, const char *text,
		      struct error *err)
{
	struct export_wish *wish = context;
	struct option_value value;
	int ret;

	if (!strcmp(def->name, "json"))
		return cli_set_flag(&wish->json, def, text, err);
	if (!strcmp(def->name, "persist"))
		return cli_set_flag(&wish->persist, def, text, err);
	if (!strcmp(def->name, "socket")) {
		wish->socket = text;
		return option_parse(def, text, &value, err);
	}
	ret = cli_uri_set(&wish->uri, def, text, err);
	return ret || !wish->uri.is_open ? ret : keep(wish, def, text, err);
}

static int keep_backend_option(void *context, const char *assignment, struct error *err)
{
	struct export_wish *wish = context;
	const struct option_def *table;
	const char *equals = strchr(assignment, '=');
	char name[64];
	int i, ret = cli_uri_set_backend(&wish->uri, assignment, err);

	if (ret || !wish->uri.is_open)
		return ret;
	table = wish->uri.spec.backend->options;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(assignment, "="), assignment);
	i = option_find(table, name);
	return i < 0 ? 0 : keep(wish, &table[i], equals ? equals + 1 : NULL, err);
}

static int parse_arguments(struct export_wish *wish, const struct verb *verb, int argc, char **argv,
			   char **name, struct error *err)
{
	static const struct option_def *const tables[] = { spec_options, export_options, NULL };
	struct cli cli = {
		.verb = verb,
		.tables = tables,
		.set = set_option,
		.set_backend = keep_backend_option,
		.context = wish,
		.uri = &wish->uri,
	};
	int operand, ret = cli_parse(&cli, argc, argv, &operand, err);

	if (ret)
		return ret;
	if (argc - operand == 1) {
		*name = cli_split_name(&argv[operand]);
		if (*name && name_check(*name, err))
			return -EINVAL;
	}
	return cli_parse_uri(&cli, argc, argv, err);
}

/* ---- the verb ---- */

static int print_export(json_t *reply, bool json)
{
	json_t *export = json_object_get(reply, "export");
	char device[256];

	if (json)
		cli_print_json(json_incref(export), false);
	else
		printf("%s\n", client_text(export, "device", "-", device, sizeof(device)));
	json_decref(reply);
	return EXIT_DONE;
}

static int ask(const struct export_wish *wish, const char *name)
{
	char *uri = uri_for_ublkd(wish);
	json_t *parameters, *reply;
	struct error err;
	int status;

	if (!uri) {
		error_set(&err, ENOMEM, "no memory for a URI");
		return cli_fail(EXIT_FAILED, &err);
	}
	if (check_utf8("URI", uri, &err)) {
		free(uri);
		return cli_fail(EXIT_USAGE, &err);
	}
	parameters = json_pack("{s:s, s:O, s:b}", "uri", uri, "options", wish->options, "persist",
			       (int)wish->persist);
	free(uri);
	if (name)
		json_object_set_new(parameters, "name", json_string(name));
	status = client_ask(wish->socket, "Export", parameters, CLIENT_FOR_EVER, &reply);
	return status ? status : print_export(reply, wish->json);
}

static int export_main(const struct verb *verb, int argc, char **argv)
{
	struct export_wish wish = { .options = json_object(), .directory = getcwd(NULL, 0) };
	char *name = NULL;
	struct error err;
	int status;

	if (!wish.directory) {
		error_set(&err, errno, "cannot determine the current directory: %s",
			  strerror(errno));
		status = cli_fail(EXIT_FAILED, &err);
	} else if (parse_arguments(&wish, verb, argc, argv, &name, &err)) {
		status = cli_fail(EXIT_USAGE, &err);
	} else {
		status = ask(&wish, name);
	}
	if (wish.uri.is_open)
		spec_close(&wish.uri.spec);
	json_decref(wish.options);
	free(wish.directory);
	return status;
}

const struct verb verb_export = {
	.name = "export",
	.arguments = "[OPTIONS] [NAME=]URI",
	.summary = "create an export, and print the path of its device",
	.main = export_main,
};
