/* SPDX-License-Identifier: MIT */
/*
 * ublkctl resume: a suspended export goes on, and one that failed is tried again; if
 * told so, with other storage than before.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static const struct option_def resume_options[] = {
	{ "accept-storage", OPTION_FLAG, NULL, "off", 0, 0,
	  "also with storage that cannot be shown to be the same" },
	{ .name = NULL },
};

static int resume_main(const struct verb *verb, int argc, char **argv)
{
	bool accept = false;
	const struct client_flag flags[] = { { "accept-storage", &accept }, { .name = NULL } };
	struct client_words words = { .flags = flags };
	json_t *parameters;
	int operand, status;

	status = client_parse(verb, resume_options, &words, argc, argv, 1, 1, "one export",
			      &operand);
	if (status)
		return status;
	/* An ublkd that does not know it is not asked for it. */
	parameters = accept ? json_pack("{s:b}", "acceptStorage", 1) : NULL;
	return client_ask_about(words.socket, "Resume", argv[operand], parameters, CLIENT_FOR_EVER,
				NULL);
}

const struct verb verb_resume = {
	.name = "resume",
	.arguments = "[--accept-storage] NAME",
	.summary = "resume an export's I/O, or retry a failed export",
	.main = resume_main,
};
