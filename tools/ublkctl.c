/* SPDX-License-Identifier: MIT */
/*
 * ublkctl: finds the verb and calls it.
 */
#include "common/log.h"
#include "tools/verbs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct verb *const verbs[] = { &verb_run,
					    &verb_export,
					    &verb_list,
					    &verb_show,
					    &verb_stats,
					    &verb_monitor,
					    &verb_remove,
					    &verb_resize,
					    &verb_suspend,
					    &verb_resume,
					    &verb_upgrade,
					    &verb_reload,
					    &verb_shutdown,
					    &verb_features,
					    &verb_backends,
					    &verb_nbd_list,
					    &verb_check_config,
					    &verb_wait,
					    NULL };

static void print_help(void)
{
	printf("usage: ublkctl VERB [OPTIONS] [ARGUMENTS]\n"
	       "Make block devices from files, NBD exports and memory, and manage them.\n\n"
	       "verbs:\n");
	for (const struct verb *const *v = verbs; *v; v++)
		printf("  %-12s %s\n", (*v)->name, (*v)->summary);
	printf("\n'ublkctl VERB --help' prints a verb's arguments and options; --version prints the "
	       "version.\n");
}

/* A pipe or socket without a reader: poll(2) reports POLLERR. 'ublkctl list | head' is no error. */
static bool reader_has_gone(void)
{
	struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

/* At exit: output that could not be written (disk full) is an error, unless its reader is gone. */
static void check_output(void)
{
	struct error err;

	errno = 0;
	if ((!fflush(stdout) && !ferror(stdout)) || reader_has_gone())
		return;
	/* If an earlier write failed, stdio has not kept its errno. */
	error_set(&err, EIO, "writing the output%s%s", errno ? ": " : " has failed",
		  errno ? strerror(errno) : "");
	_exit(cli_fail(EXIT_FAILED, &err));
}

int main(int argc, char **argv)
{
	struct error err;

	log_setup("ublkctl", LOG_LEVEL_INFO);
	atexit(check_output);
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		error_set(&err, EINVAL, "a verb is missing: 'ublkctl --help' lists them");
		return cli_fail(EXIT_USAGE, &err);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help();
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "--version")) {
		cli_print_version();
		return EXIT_DONE;
	}
	for (const struct verb *const *v = verbs; *v; v++)
		if (!strcmp(argv[1], (*v)->name))
			return (*v)->main(*v, argc - 1, argv + 1);
	error_set(&err, EINVAL, "unknown verb '%s': 'ublkctl --help' lists them", argv[1]);
	return cli_fail(EXIT_USAGE, &err);
}
