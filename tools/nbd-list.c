/* SPDX-License-Identifier: MIT */
/*
 * ublkctl nbd-list: the exports that a server has, and what each can do.
 */
#include "engine/host_local.h"
#include "engine/spec.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct nbd_listing {
	struct cli_uri uri;
	bool json;
	json_t *array;
};

/* A server's words are whatever bytes it likes. */
static json_t *json_of(const char *text)
{
	char escaped[4096];
	json_t *string;

	if (!text)
		return json_null();
	string = json_string(text);
	return string ? string : json_string(text_escape(text, escaped, sizeof(escaped)));
}

static json_t *block_json(uint32_t bytes)
{
	return bytes ? json_integer(bytes) : json_null();
}

static void found_json(struct nbd_listing *l, const struct backend_found *f)
{
	json_t *one = json_object(), *abilities = json_array();

	for (const char *const *a = f->abilities; *a; a++)
		json_array_append_new(abilities, json_string(*a));
	json_object_set_new(one, "name", json_of(f->name));
	json_object_set_new(one, "description", json_of(f->description));
	json_object_set_new(one, "refused", json_of(f->refused));
	json_object_set_new(one, "size", f->size ? json_integer((json_int_t)f->size) : json_null());
	json_object_set_new(one, "min-block", block_json(f->min_block));
	json_object_set_new(one, "preferred-block", block_json(f->preferred_block));
	json_object_set_new(one, "max-block", block_json(f->max_block));
	json_object_set_new(one, "abilities", abilities);
	json_array_append_new(l->array, one);
}

static void print_block(const char *what, uint32_t bytes)
{
	char size[24];

	if (bytes)
		printf(" %s %s", what, size_format(bytes, size, sizeof(size)));
}

static void found(void *context, const struct backend_found *f)
{
	struct nbd_listing *l = context;
	char text[4096], size[24];

	if (l->array) {
		found_json(l, f);
		return;
	}
	printf("'%s'", text_escape(f->name, text, sizeof(text)));
	if (f->description)
		printf(" (%s)", text_escape(f->description, text, sizeof(text)));
	if (f->refused) {
		printf(": %s\n", text_escape(f->refused, text, sizeof(text)));
		return;
	}
	/* nbd-server only says how big an export is to who opens it. */
	printf(": %s,", f->size ? size_format(f->size, size, sizeof(size)) : "size not said");
	for (const char *const *a = f->abilities; *a; a++)
		printf(" %s", *a);
	if (f->min_block || f->preferred_block || f->max_block) {
		printf(", blocks:");
		print_block("least", f->min_block);
		print_block("preferred", f->preferred_block);
		print_block("most", f->max_block);
	}
	putchar('\n');
}

static int list(struct nbd_listing *l, struct error *err)
{
	const struct backend *backend = l->uri.spec.backend;
	struct instance instance;
	int ret;

	if (!backend->list)
		return error_set(err, EINVAL, "'%s': there is no server to ask: give an NBD URI",
				 l->uri.spec.uri);
	spec_to_instance(&l->uri.spec, &instance);
	instance.host = &host_here;
	if (l->json)
		l->array = json_array();
	ret = backend->list(&instance, found, l, err);
	if (ret)
		json_decref(l->array);
	else if (l->json)
		cli_print_json(l->array, false);
	return ret;
}

static int nbd_list_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def options[] = { OPTION_DEF_JSON, { .name = NULL } };
	static const struct option_def *const tables[] = { options, NULL };
	struct nbd_listing l = { 0 };
	struct cli cli = {
		.verb = verb,
		.tables = tables,
		.set = cli_set_flag,
		.context = &l.json,
		.uri = &l.uri,
	};
	struct error err;
	int status = EXIT_DONE;

	if (cli_parse_uri(&cli, argc, argv, &err))
		status = cli_fail(EXIT_USAGE, &err);
	else if (list(&l, &err))
		status = cli_fail(err.code == EINVAL && !l.uri.spec.backend->list ? EXIT_USAGE
										  : EXIT_FAILED,
				  &err);
	if (l.uri.is_open)
		spec_close(&l.uri.spec);
	return status;
}

const struct verb verb_nbd_list = {
	.name = "nbd-list",
	.arguments = "[OPTIONS] URI",
	.summary = "list the exports of an NBD server, and what each can do",
	.main = nbd_list_main,
};
