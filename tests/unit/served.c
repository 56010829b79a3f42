/* SPDX-License-Identifier: MIT */
#include "tests/unit/served.h"
#include "engine/host_local.h"
#include "common/log.h"
#include "tests/unit/test.h"

static void set_word(struct served *s, char *word)
{
	char *equals = strchr(word, '=');
	int ret;

	if (!strncmp(word, "-o", 2)) {
		ret = spec_set_backend(&s->spec, word + 2, &s->err);
	} else {
		if (equals)
			*equals = 0;
		ret = spec_set(&s->spec, word, equals ? equals + 1 : NULL, &s->err);
	}
	if (ret)
		fail_msg("%s", s->err.text);
}

void served_open(struct served *s, const char *words)
{
	char copy[1024], *word, *rest = copy;

	*s = (struct served){ 0 };
	snprintf(copy, sizeof(copy), "%s", words);
	word = strsep(&rest, " ");
	if (spec_open(&s->spec, word, &s->err))
		fail_msg("%s", s->err.text);
	while ((word = strsep(&rest, " ")))
		if (*word)
			set_word(s, word);
	if (spec_check(&s->spec, &s->err))
		fail_msg("%s", s->err.text);
	if (control_open(&s->control, SERVED_DEADLINE_MS, &s->err))
		fail_msg("%s", s->err.text);
}

void served_close(struct served *s)
{
	control_close(&s->control);
	spec_close(&s->spec);
}

int served_start(struct served *s)
{
	s->err = (struct error){ 0 };
	return standalone_start(&s->standalone, &s->spec, &host_here, &s->control, &s->err);
}

int served_stop(struct served *s)
{
	int ret;

	s->err = (struct error){ 0 };
	ret = standalone_stop(&s->standalone, &s->err);
	standalone_forget(&s->standalone);
	return ret;
}

void served_begin(struct served *s, const char *words)
{
	served_open(s, words);
	if (served_start(s))
		fail_msg("%s: %s", words, s->err.text);
}

void served_end(struct served *s)
{
	if (served_stop(s))
		fail_msg("%s", s->err.text);
	served_close(s);
}

static void *no_work(void *arg)
{
	return arg;
}

void bound_time(unsigned seconds)
{
	pthread_t thread;

	alarm(seconds);
	/* A sanitizer's own thread comes with the first: not while they are counted. */
	if (!pthread_create(&thread, NULL, no_work, NULL))
		pthread_join(thread, NULL);
	/* Log lines of starts and stops are of no interest here. */
	log_setup("test", getenv("TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
}
