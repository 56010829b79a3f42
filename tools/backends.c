/* SPDX-License-Identifier: MIT */
/*
 * ublkctl backends: the kinds of storage, with the options of each backend.
 */
#include "engine/backend.h"
#include "tools/verbs.h"

#include <stdio.h>

static void print_json(void)
{
	json_t *array = json_array();
	const struct backend *b;

	for (unsigned i = 0; (b = backend_at(i)); i++)
		json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:o}", "scheme", b->scheme,
						       "uri", b->syntax, "summary", b->summary,
						       "options", cli_options_json(b->options)));
	cli_print_json(array, false);
}

static int backends_main(const struct verb *verb, int argc, char **argv)
{
	const struct backend *b;
	int operand, status;
	bool json;

	status = cli_parse_json(verb, argc, argv, 0, 0, &json, &operand);
	if (status)
		return status;
	if (json) {
		print_json();
		return EXIT_DONE;
	}
	for (unsigned i = 0; (b = backend_at(i)); i++) {
		printf("%-14s %s\n", b->syntax, b->summary);
		cli_print_options(b->options, "-o ");
	}
	return EXIT_DONE;
}

const struct verb verb_backends = {
	.name = "backends",
	.arguments = "[--json]",
	.summary = "list the kinds of storage and their options",
	.main = backends_main,
};
