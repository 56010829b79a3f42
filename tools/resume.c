/* SPDX-License-Identifier: MIT */
/*
 * ublkctl resume: a suspended export goes on, and one that failed is tried again.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static int resume_main(const struct verb *verb, int argc, char **argv)
{
	struct client_words words = { 0 };
	int operand, status;

	status = client_parse(verb, NULL, &words, argc, argv, 1, 1, "one export", &operand);
	if (status)
		return status;
	return client_ask_about(words.socket, "Resume", argv[operand], NULL, CLIENT_FOR_EVER, NULL);
}

const struct verb verb_resume = {
	.name = "resume",
	.arguments = "NAME",
	.summary = "have an export's I/O go on, also one that failed",
	.main = resume_main,
};
