/* SPDX-License-Identifier: MIT */
/*
 * The exports of a server, and what each can do.
 */
#include "backends/nbd/list.h"
#include "backends/nbd/connect.h"
#include "backends/nbd/explain.h"
#include "backends/nbd/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ABILITIES_MAX 16

struct listing {
	char **names, **descriptions;
	unsigned nr;
	bool no_memory;
};

/* libnbd frees name and description after the call. */
static int listed(void *user_data, const char *name, const char *description)
{
	struct listing *l = user_data;
	char **names = realloc(l->names, (l->nr + 1) * sizeof(*names));
	char **descriptions;

	if (names)
		l->names = names;
	descriptions = realloc(l->descriptions, (l->nr + 1) * sizeof(*descriptions));
	if (descriptions)
		l->descriptions = descriptions;
	if (!names || !descriptions || !(l->names[l->nr] = strdup(name))) {
		l->no_memory = true;
		return -1;
	}
	l->descriptions[l->nr++] = *description ? strdup(description) : NULL;
	return 0;
}

static void free_listing(struct listing *l)
{
	for (unsigned i = 0; i < l->nr; i++) {
		free(l->names[i]);
		free(l->descriptions[i]);
	}
	free(l->names);
	free(l->descriptions);
}

static int at_options(struct nbd_handle *h)
{
	return nbd_aio_is_negotiating(h) || nbd_aio_is_ready(h);
}

/* Connects as far as the server's options. */
static struct nbd_handle *negotiate(const struct instance *instance, struct error *err)
{
	struct nbd_handle *h =
		nbd_connect_now(instance, NULL, true, NBD_CONNECT_MS, at_options, err);

	char place[NBD_PLACE_TEXT];

	if (!h || !nbd_aio_is_ready(h))
		return h;
	error_set(err, EOPNOTSUPP,
		  "%s speaks the protocol's old style, which has a single export and no list",
		  nbd_place(instance, nbd_aio_get_fd(h), place, sizeof(place)));
	nbd_close(h);
	return NULL;
}

static void report_export(const char *name, const char *description, const struct nbd_facts *f,
			  const char *refused, backend_found_callback *found, void *context)
{
	const char *abilities[ABILITIES_MAX] = { NULL };
	unsigned n = 0;
	const struct {
		bool has;
		const char *name;
	} all[] = {
		{ f->read_only, "read-only" },
		{ f->rotational, "rotational" },
		{ f->flush, "flush" },
		{ f->fua, "fua" },
		{ f->trim, "trim" },
		{ f->zero, "write-zeroes" },
		{ f->fast_zero, "fast-zero" },
		{ f->multi_conn, "multi-conn" },
		{ f->structured, "structured" },
		{ f->tls, "tls" },
	};

	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i].has)
			abilities[n++] = all[i].name;
	found(context, &(struct backend_found){
			       .name = name,
			       .description = description,
			       .refused = refused,
			       .size = f->size,
			       .min_block = f->min_block,
			       .preferred_block = f->preferred_block,
			       .max_block = f->max_block,
			       .abilities = abilities,
		       });
}

static int option_done(void *user_data, int *error)
{
	*(int *)user_data = *error;
	return 1;
}

/*
 * NBD_OPT_INFO for each export on the connection that listed them: a refusal concerns that export
 * only.
 */
static void describe_one(struct nbd_handle *h, const struct instance *instance, const char *name,
			 const char *description, backend_found_callback *found, void *context)
{
	struct nbd_facts facts = { 0 };
	struct error err = { 0 };
	int refused = 0;
	nbd_completion_callback completion = { .callback = option_done, .user_data = &refused };

	if (nbd_set_export_name(h, name) || nbd_aio_opt_info(h, completion))
		nbd_error(&err, "cannot ask for it");
	else if (!nbd_server_run(h, instance, NBD_CONNECT_MS, nbd_aio_is_negotiating, &err))
		refused ? error_set(&err, refused, "the server refuses access: %s",
				    strerror(refused))
			: nbd_server_facts(h, &facts, &err);
	report_export(name, description, &facts, err.code ? err.text : NULL, found, context);
}

int nbd_list(const struct instance *instance, backend_found_callback *found, void *context,
	     struct error *err)
{
	struct listing listing = { 0 };
	struct nbd_handle *h = negotiate(instance, err);
	int refused = 0;
	nbd_list_callback each = { .callback = listed, .user_data = &listing };
	nbd_completion_callback completion = { .callback = option_done, .user_data = &refused };
	char place[NBD_PLACE_TEXT];
	int ret = 0;

	if (!h)
		return -err->code;
	nbd_place(instance, nbd_aio_get_fd(h), place, sizeof(place));
	if (nbd_aio_opt_list(h, each, completion))
		ret = nbd_explain_last(err, instance, place);
	else
		ret = nbd_server_run(h, instance, NBD_CONNECT_MS, nbd_aio_is_negotiating, err);
	/* libnbd has one errno for a server that wants TLS first and for one that has no list. */
	if (!ret && refused == ENOTSUP && !nbd_get_tls_negotiated(h))
		ret = error_set(
			err, refused,
			"%s does not list its exports: it cannot, or it requires TLS (write "
			"nbds:// for nbd://)",
			place);
	else if (!ret && refused)
		ret = error_set(err, refused, "%s does not list its exports: %s", place,
				strerror(refused));
	if (!ret && listing.no_memory)
		ret = error_set(err, ENOMEM, "no memory for the server's list");
	for (unsigned i = 0; !ret && i < listing.nr; i++)
		describe_one(h, instance, listing.names[i], listing.descriptions[i], found,
			     context);
	free_listing(&listing);
	nbd_close(h);
	return ret;
}
