/* SPDX-License-Identifier: MIT */
/*
 * ublkctl suspend: pauses all I/O to a device until 'ublkctl resume'.
 */
#include "tools/client.h"
#include "tools/verbs.h"

static int suspend_main(const struct verb *verb, int argc, char **argv)
{
	struct client_words words = { 0 };
	int operand, status;

	status = client_parse(verb, NULL, &words, argc, argv, 1, 1, "one export", &operand);
	if (status)
		return status;
	return client_ask_about(words.socket, "Suspend", argv[operand], NULL, CLIENT_FOR_EVER,
				NULL);
}

const struct verb verb_suspend = {
	.name = "suspend",
	.arguments = "NAME",
	.summary = "pause all I/O to an export",
	.main = suspend_main,
};
