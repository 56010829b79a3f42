/* SPDX-License-Identifier: MIT */
/*
 * ublkctl nbd-list: the exports of an NBD server, with size, block sizes and abilities.
 */
#include "common/json_set.h"
#include "engine/host_local.h"
#include "engine/spec.h"
#include "tools/table.h"
#include "tools/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct nbd_listing {
	struct cli_uri uri;
	bool json;
	json_t *array;
	struct table table;
};

static void set_known(json_t *json, const char *key, uint64_t number)
{
	if (number)
		json_set_number(json, key, number);
}

static void found_json(struct nbd_listing *l, const struct backend_found *f)
{
	json_t *one = json_object(), *abilities = json_array();

	for (const char *const *a = f->abilities; *a; a++)
		json_array_append_new(abilities, json_string(*a));
	cli_set_text(one, "name", f->name);
	cli_set_text(one, "description", f->description);
	cli_set_text(one, "refused", f->refused);
	set_known(one, "size", f->size);
	set_known(one, "minBlock", f->min_block);
	set_known(one, "preferredBlock", f->preferred_block);
	set_known(one, "maxBlock", f->max_block);
	json_object_set_new(one, "abilities", abilities);
	json_array_append_new(l->array, one);
}

static void add_block(char *out, size_t size, const char *what, uint32_t bytes)
{
	size_t used = strlen(out);
	char text[24];

	if (bytes)
		snprintf(out + used, size - used, "%s%s %s", used ? ", " : "", what,
			 size_format(bytes, text, sizeof(text)));
}

/* "min 512, best 4K, max 32M"; the server may leave out any of the three. */
static void add_blocks(struct table *table, const struct backend_found *f)
{
	char text[100] = "";

	add_block(text, sizeof(text), "min", f->min_block);
	add_block(text, sizeof(text), "best", f->preferred_block);
	add_block(text, sizeof(text), "max", f->max_block);
	table_add(table, *text ? text : "-");
}

static void found_text(struct nbd_listing *l, const struct backend_found *f)
{
	char text[4096], words[4096] = "";

	table_add(&l->table, *f->name ? text_escape(f->name, text, sizeof(text)) : "(default)");
	/* nbd-server reports an export's size only to a client that opens it. */
	table_add(&l->table, f->size ? size_format(f->size, text, sizeof(text)) : "-");
	add_blocks(&l->table, f);
	for (const char *const *a = f->abilities; !f->refused && *a; a++)
		snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s%s",
			 *words ? " " : "", *a);
	table_add(&l->table, f->refused ? text_escape(f->refused, text, sizeof(text)) : words);
	table_add(&l->table, f->description ? text_escape(f->description, text, sizeof(text)) : "");
}

static void found(void *context, const struct backend_found *f)
{
	struct nbd_listing *l = context;

	if (l->array)
		found_json(l, f);
	else
		found_text(l, f);
}

static int list(struct nbd_listing *l, struct error *err)
{
	static const struct table_column columns[] = {
		{ "EXPORT", TABLE_LEFT },    { "SIZE", TABLE_RIGHT },      { "BLOCKS", TABLE_LEFT },
		{ "ABILITIES", TABLE_LEFT }, { "DESCRIPTION", TABLE_CUT }, { .title = NULL }
	};
	const struct backend *backend = l->uri.spec.backend;
	struct instance instance;
	int ret;

	if (!backend->list)
		return error_set(err, EINVAL, "'%s' is not on a server: use an NBD URI",
				 l->uri.spec.uri);
	spec_to_instance(&l->uri.spec, &instance);
	instance.host = &host_here;
	if (l->json)
		l->array = json_array();
	table_begin(&l->table, columns);
	ret = backend->list(&instance, found, l, err);
	if (ret) {
		json_decref(l->array);
		table_drop(&l->table);
	} else if (l->json) {
		table_drop(&l->table);
		cli_print_json(l->array, false);
	} else {
		table_end(&l->table, "");
	}
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
	.summary = "list the exports of an NBD server",
	.main = nbd_list_main,
};
