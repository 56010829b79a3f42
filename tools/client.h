/* SPDX-License-Identifier: MIT */
/*
 * A client of ublkd: calls io.ublkd's methods over the control socket, one at a time; and
 * helpers that the verbs which call ublkd share.
 */
#ifndef UBLKD_CLIENT_H
#define UBLKD_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/option.h"

struct control;
struct verb;

#define CLIENT_SOCKET    "/run/ublkd/io.ublkd"
#define CLIENT_PROMPT_MS 30000 /* for methods that a healthy ublkd answers at once */
#define CLIENT_FOR_EVER  (-1)  /* for methods whose work may take any time */

/* Owner: whoever called client_open(). */
struct client {
	int fd;
	char *in;
	size_t have, room;
	bool refused; /* the last call was invalid, as opposed to failed: exit status EXIT_USAGE */
};

/*
 * Connects to the socket (NULL: CLIENT_SOCKET).  Returns 0, and client_close() is
 * due; or with err filled -errno, of which client_is_absent() says whether there
 * is no ublkd.
 */
int client_open(struct client *client, const char *socket, struct error *err);
void client_close(struct client *client);
bool client_is_absent(int ret);

/*
 * Calls a method of io.ublkd ("Show").  parameters (NULL: none) is released.
 * *reply (may be NULL) is the caller's to release.  wait_ms bounds the wait for
 * the answer.  Returns 0, or with err filled -errno: of an error that ublkd
 * answers, its own message and its errno, or ENOENT (NoSuchExport), EBUSY (Busy,
 * with who holds it), EEXIST (Exists), EINVAL (Invalid), EACCES.
 */
int client_call(struct client *client, const char *method, json_t *parameters, int wait_ms,
		json_t **reply, struct error *err);

/*
 * Calls a method that sends several answers. each(context, reply) is called for each answer
 * (the client releases it), and ends the stream by returning other than 0. Returns that value,
 * 0 if ublkd ended the stream, or -errno with err filled.
 */
int client_stream(struct client *client, const char *method, json_t *parameters,
		  int (*each)(void *context, json_t *reply), void *context, struct error *err);

/*
 * The export that text means: its name, or its device's number, path or link.
 * Returns 0 with *export (a member of List's answer; the caller releases it),
 * -ENOENT where there is none (err filled), or another -errno with err filled.
 */
int client_find(struct client *client, const char *text, json_t **export, struct error *err);

/* The same in a list of ExportInfo; the list's, or NULL. */
json_t *client_match(const json_t *exports, const char *text);

/* Whether that is the device of another program, and no export. */
bool client_is_foreign(const json_t *export);

/* Prints err and returns the exit status that the last call's failure means. */
int client_fail(const struct client *client, const struct error *err);

/* ---- verbs ---- */

#define OPTION_DEF_SOCKET                                                                          \
	{                                                                                          \
		"socket", OPTION_PATH, NULL, CLIENT_SOCKET, 0, 0, "path of ublkd's control socket" \
	}

/* A verb's flag, and what it sets. */
struct client_flag {
	const char *name; /* NULL ends a table */
	bool *on;
};

struct client_words {
	const struct client_flag *flags;
	const char *socket; /* NULL: not given */
};

/* A struct cli's set: context is a struct client_words. */
int client_set(void *context, const struct option_def *def, const char *text, struct error *err);

/*
 * Parses the command line of a verb that takes from `least` to `most` operands
 * (called `what` in a message); options are flags, and --socket comes with them.
 * Returns EXIT_DONE, or the exit status after it has printed the error.
 */
int client_parse(const struct verb *verb, const struct option_def *options,
		 struct client_words *words, int argc, char **argv, int least, int most,
		 const char *what, int *operand);

/* The same for a verb whose only options are --json and --socket (NULL: not given). */
int client_parse_json(const struct verb *verb, int argc, char **argv, int least, int most,
		      const char *what, int *operand, bool *json, const char **socket);

/*
 * All of a verb that is one call: connect, call, report an error.  *reply as
 * client_call()'s.  Returns the exit status.
 */
int client_ask(const char *socket, const char *method, json_t *parameters, int wait_ms,
	       json_t **reply);

/*
 * The same for the method's parameter "name" from an operand as client_find()'s;
 * parameters (NULL: none besides) is released.
 */
int client_ask_about(const char *socket, const char *method, const char *operand,
		     json_t *parameters, int wait_ms, json_t **reply);

/*
 * Without ublkd: opens the kernel's driver for a verb about one device, as in
 * cli_device_id().  Returns EXIT_DONE, and control_close() is due, or the exit status
 * after it has
 * printed the error.
 */
int client_open_driver(const char *operand, struct control *control, uint32_t *id);

/* Whether an ublkd listens at the default socket, even if it hangs. */
bool client_finds_ublkd(void);

/*
 * Without ublkd: *exports is List's answer as far as the kernel and ublkd's records know it
 * (the caller's), and a warning says so.  Returns EXIT_DONE, or the exit status when it has
 * reported the error.
 */
int client_offline(json_t **exports);

/*
 * Prints the results of a method that handles many exports: failures on stderr, the rest on
 * stdout, or all as JSON.  Releases reply.  Returns the exit status: EXIT_FAILED if one export
 * failed.
 */
int client_print_results(json_t *reply, bool json);

/* ---- printing ---- */

/* A string that comes from elsewhere, escaped, into out; fallback where it is missing or null. */
const char *client_text(const json_t *object, const char *key, const char *fallback, char *out,
			size_t size);

/* An integer; 0 where it is missing or null. */
json_int_t client_number(const json_t *object, const char *key);

/* A size as people write it; "-" where it is missing or null. */
const char *client_size(const json_t *object, const char *key, char *out, size_t size);

/* The trouble of an ExportInfo, since when, and what to do; nothing where there is none. */
void client_print_trouble(const json_t *e);

/* The numbers of an object under a title; nothing where there are none. */
void client_print_numbers(const char *title, json_t *numbers);

/* Names a holder of a device: "process 12 (fio)", "mount /mnt". */
const char *client_holder(const json_t *holder, char *out, size_t size);

/* A time in microseconds since 1970, as local ISO 8601 with its offset. */
const char *client_time(json_int_t usec, char *out, size_t size);

#endif
