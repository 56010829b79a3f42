/* SPDX-License-Identifier: MIT */
/*
 * ublkctl resume: resumes a suspended export and retries a failed one; with --accept-storage
 * also if its storage is not what the device was created for.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static const struct option_def resume_options[] = {
	{ "accept-storage", OPTION_FLAG, NULL, "off", 0, 0,
	  "accept storage that is not, or cannot be shown to be, what the device was created for" },
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
	/* Left out if not set: an older ublkd refuses the parameter. */
	parameters = accept ? json_pack("{s:b}", "acceptStorage", 1) : NULL;
	return client_ask_about(words.socket, "Resume", argv[operand], parameters, CLIENT_FOR_EVER,
				NULL);
}

const struct verb verb_resume = {
	.name = "resume",
	.arguments = "[--accept-storage] NAME",
	.summary = "resume I/O to a suspended export, or retry a failed export",
	.main = resume_main,
};
