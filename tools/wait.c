/* SPDX-License-Identifier: MIT */
/*
 * ublkctl wait: waits until an export is live, for deploy/ublk@.service. It polls instead of
 * using Monitor, so that it also waits for an ublkd that is still starting.
 */
#include "common/clock.h"
#include "common/log.h"
#include "tools/client.h"
#include "tools/verbs.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define ASK_AGAIN_MS 200

static const struct option_def wait_options[] = {
	{ "timeout", OPTION_TIME, NULL, "90s", 0, 0, "give up after this time" },
	OPTION_DEF_SOCKET,
	{ .name = NULL },
};

struct wait_words {
	struct client_words words; /* first: it is client_set()'s, too */
	uint64_t timeout_ms;
};

static int set(void *context, const struct option_def *def, const char *text, struct error *err)
{
	struct wait_words *w = context;
	struct option_value value;
	int ret;

	if (strcmp(def->name, "timeout") != 0)
		return client_set(&w->words, def, text, err);
	ret = option_parse(def, text, &value, err);
	if (!ret)
		w->timeout_ms = value.number;
	return ret;
}

/*
 * Returns 0: the export is live; -EAGAIN: not yet; another -errno: it will not become live.
 * err is filled for both.
 */
static int check_export(const char *socket, const char *name, struct error *err)
{
	json_t *reply = NULL, *export;
	char state[32], health[32], reason[3000], cure[1000], shown[200];
	struct client client;
	int ret = client_open(&client, socket, err);

	if (ret)
		return client_is_absent(ret) ? -EAGAIN : ret;
	ret = client_call(&client, "Show", json_pack("{s:s}", "name", name), CLIENT_PROMPT_MS,
			  &reply, err);
	client_close(&client);
	/* The connection broke: ublkd is restarting. */
	if (ret)
		return ret == -EPIPE || ret == -ECONNRESET ? -EAGAIN : ret;
	export = json_object_get(json_object_get(reply, "details"), "export");
	client_text(export, "state", "unknown", state, sizeof(state));
	client_text(export, "reason", "", reason, sizeof(reason));
	client_text(export, "cure", "", cure, sizeof(cure));
	text_escape(name, shown, sizeof(shown));
	if (strcmp(state, "live") != 0 && strcmp(state, "suspended") != 0) {
		ret = error_set(err, ETIMEDOUT, "'%s' has no device: %s%s%s", shown,
				*reason ? reason : state, *cure ? ": " : "", cure);
		if (strcmp(state, "failed") != 0)
			ret = -EAGAIN;
	} else if (*cure) {
		log_warning(NULL, "'%s' is %s, but %s: %s: %s", shown, state,
			    client_text(export, "health", "?", health, sizeof(health)), reason,
			    cure);
	}
	json_decref(reply);
	return ret;
}

static int wait_main(const struct verb *verb, int argc, char **argv)
{
	static const struct option_def *const tables[] = { wait_options, NULL };
	struct wait_words w = { .timeout_ms = 90000 };
	struct cli cli = { .verb = verb, .tables = tables, .set = set, .context = &w };
	const struct timespec pause = { .tv_nsec = ASK_AGAIN_MS * 1000000L };
	uint64_t begin = clock_ms();
	struct error err;
	int operand, ret;

	if (cli_parse(&cli, argc, argv, &operand, &err))
		return cli_fail(EXIT_USAGE, &err);
	if (argc - operand != 1) {
		error_set(&err, EINVAL, "expected one export: ublkctl %s %s", verb->name,
			  verb->arguments);
		return cli_fail(EXIT_USAGE, &err);
	}
	while ((ret = check_export(w.words.socket, argv[operand], &err)) == -EAGAIN) {
		if (clock_ms() - begin >= w.timeout_ms)
			return cli_fail(EXIT_TIMEOUT, &err);
		nanosleep(&pause, NULL);
	}
	return ret ? cli_fail(EXIT_FAILED, &err) : EXIT_DONE;
}

const struct verb verb_wait = {
	.name = "wait",
	.arguments = "[--timeout TIME] NAME",
	.summary = "wait until an export is live",
	.main = wait_main,
};
