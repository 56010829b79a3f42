/* SPDX-License-Identifier: MIT */
/*
 * What ublkctl's verbs share: the connection to ublkd, calls and their answers, and how these are
 * printed.
 *
 * Varlink, as far as a client needs it, is a JSON object and a NUL byte each way; one call at a
 * time, or a stream of answers to one call. A wait is bounded by the caller's time (wait_ms), so
 * that a hung ublkd is reported; verbs whose work may take long wait without bound.
 *
 * An error of ublkd's becomes one line, with its holders where there are any; which exit status
 * it is (usage or failure) is decided here for all verbs.
 *
 * Without ublkd some verbs work on devices by themselves: client_open_driver() is their way.
 */
#include "tools/client.h"
#include "common/clock.h"
#include "common/log.h"
#include "engine/control.h"
#include "engine/ublk_abi.h"
#include "supervisor/describe_offline.h"
#include "tools/verbs.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INTERFACE    "io.ublkd."
#define SERVICE      "org.varlink.service."
#define CONNECT_MS   10000u
#define STEP_MS      20u
#define FIRST_ROOM   65536u
#define REPLY_MAX    (256u << 20)
#define MESSAGE_SIZE 4096

/* ---- the connection ---- */

bool client_is_absent(int ret)
{
	return ret == -ENOENT || ret == -ECONNREFUSED;
}

static int connect_to(int fd, const char *path, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG, "'%s' is too long for the path of a socket",
				 path);
	strcpy(address.sun_path, path);
	/* EAGAIN: the backlog of ublkd's socket is full. */
	for (unsigned ms = 0; connect(fd, (struct sockaddr *)&address, sizeof(address));
	     ms += STEP_MS) {
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN && ms < CONNECT_MS) {
			usleep(STEP_MS * 1000);
			continue;
		}
		if (errno == EAGAIN)
			return error_set(
				err, ETIMEDOUT,
				"ublkd does not answer at %s: see 'systemctl status ublkd'", path);
		if (client_is_absent(-errno))
			return error_set(err, errno,
					 "ublkd is not running (nothing listens at %s): run "
					 "'systemctl start ublkd', or use 'ublkctl run', which "
					 "needs no ublkd",
					 path);
		if (errno == EACCES || errno == EPERM)
			return error_set(err, errno,
					 "%s: %s: run as root, or as a member of the group that "
					 "read-group or control-group in ublkd.conf names",
					 path, strerror(errno));
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	}
	return 0;
}

int client_open(struct client *client, const char *socket_path, struct error *err)
{
	int ret;

	*client = (struct client){ 0 };
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return error_set(err, errno, "socket: %s", strerror(errno));
	ret = connect_to(client->fd, socket_path ? socket_path : CLIENT_SOCKET, err);
	if (ret)
		close(client->fd);
	return ret;
}

void client_close(struct client *client)
{
	close(client->fd);
	free(client->in);
}

/* Until events; bounded by the time `until` of the monotonic clock in ms, if not negative. */
static int wait_for(struct client *client, short events, int64_t until, struct error *err)
{
	struct pollfd fd = { .fd = client->fd, .events = events };
	int64_t left = -1;
	int n;

	do {
		if (until >= 0) {
			left = until - (int64_t)clock_ms();
			left = left < 0 ? 0 : left;
		}
		n = poll(&fd, 1, (int)left);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, errno, "poll: %s", strerror(errno));
	return n ? 0
		 : error_set(err, ETIMEDOUT,
			     "ublkd did not answer in time: see 'systemctl status ublkd'");
}

static int64_t time_in(int wait_ms)
{
	return wait_ms < 0 ? -1 : (int64_t)clock_ms() + wait_ms;
}

static int send_all(struct client *client, const char *text, size_t length, int64_t until,
		    struct error *err)
{
	while (length) {
		ssize_t n = send(client->fd, text, length, MSG_NOSIGNAL);
		int ret;

		if (n >= 0) {
			text += n;
			length -= (size_t)n;
			continue;
		}
		if (errno == EPIPE)
			return 0; /* ublkd may have sent the reason: receive() reads it */
		if (errno != EAGAIN && errno != EINTR)
			return error_set(err, errno, "ublkd: %s", strerror(errno));
		ret = wait_for(client, POLLOUT, until, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int grow_buffer(struct client *client, struct error *err)
{
	size_t room = client->room ? client->room * 2 : FIRST_ROOM;
	char *more;

	if (client->have < client->room)
		return 0;
	more = room <= REPLY_MAX ? realloc(client->in, room) : NULL;
	if (!more)
		return error_set(err, EMSGSIZE, "ublkd's answer is too long");
	client->in = more;
	client->room = room;
	return 0;
}

/* The next answer's text is in client->in, *length long with its NUL. */
static int receive(struct client *client, size_t *length, int64_t until, struct error *err)
{
	size_t looked = 0;

	for (;;) {
		const char *end =
			memchr(client->in ? client->in + looked : "x", 0, client->have - looked);
		ssize_t n;
		int ret;

		if (end) {
			*length = (size_t)(end - client->in) + 1;
			return 0;
		}
		looked = client->have;
		ret = grow_buffer(client, err);
		if (ret)
			return ret;
		n = recv(client->fd, client->in + client->have, client->room - client->have, 0);
		if (n > 0) {
			client->have += (size_t)n;
			continue;
		}
		if (!n)
			return error_set(err, ECONNRESET,
					 "ublkd closed the connection: see 'journalctl -u ublkd'");
		if (errno != EAGAIN && errno != EINTR)
			return error_set(err, errno, "ublkd: %s", strerror(errno));
		ret = wait_for(client, POLLIN, until, err);
		if (ret)
			return ret;
	}
}

static int receive_json(struct client *client, json_t **answer, int64_t until, struct error *err)
{
	json_error_t error;
	size_t length = 0;
	int ret = receive(client, &length, until, err);

	if (ret)
		return ret;
	*answer = json_loads(client->in, 0, &error);
	memmove(client->in, client->in + length, client->have - length);
	client->have -= length;
	if (json_is_object(*answer))
		return 0;
	json_decref(*answer);
	return error_set(err, EBADMSG, "malformed answer (is this ublkd's socket?): %s",
			 error.text);
}

static int send_call(struct client *client, const char *method, json_t *parameters, bool more,
		     int64_t until, struct error *err)
{
	json_t *request = json_pack("{s:o, s:o}", "method", json_sprintf(INTERFACE "%s", method),
				    "parameters", parameters ? parameters : json_object());
	char *text;
	int ret;

	if (request && more)
		json_object_set_new(request, "more", json_true());
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!text)
		return error_set(err, EINVAL, "an argument is not valid UTF-8");
	ret = send_all(client, text, strlen(text) + 1, until, err);
	free(text);
	return ret;
}

/* ---- what ublkd answers ---- */

static void add_text(char *out, size_t size, const char *text)
{
	size_t length = strlen(out);

	snprintf(out + length, size - length, "%s", text);
}

/* "...: held by process 12 (fio), mount /mnt" */
static void add_holders(const json_t *parameters, char *out, size_t size)
{
	const json_t *holders = json_object_get(parameters, "holders");
	char text[512];

	for (size_t i = 0; i < json_array_size(holders); i++) {
		add_text(out, size, i ? ", " : ": held by ");
		add_text(out, size, client_holder(json_array_get(holders, i), text, sizeof(text)));
	}
}

/* An error of org.varlink.service: the two programs differ in version, or access is denied. */
static int service_error(const char *name, const json_t *parameters, struct error *err)
{
	char text[256];

	if (!strcmp(name, "PermissionDenied"))
		return error_set(err, EACCES,
				 "permission denied: run as root, or as a member of the group that "
				 "control-group in ublkd.conf names");
	if (!strcmp(name, "InvalidParameter"))
		return error_set(
			err, EINVAL,
			"ublkd does not accept this '%s': it may be older than this ublkctl",
			client_text(parameters, "parameter", "?", text, sizeof(text)));
	return error_set(err, EOPNOTSUPP,
			 "ublkd does not support this call (%s): it is older than this ublkctl: "
			 "upgrade ublkd",
			 name);
}

static int answer_error(struct client *client, const char *name, const json_t *parameters,
			struct error *err)
{
	char message[MESSAGE_SIZE];
	json_int_t code;

	if (!strncmp(name, SERVICE, strlen(SERVICE))) {
		client->refused = !strcmp(name, SERVICE "InvalidParameter");
		return service_error(name + strlen(SERVICE), parameters, err);
	}
	if (!strncmp(name, INTERFACE, strlen(INTERFACE)))
		name += strlen(INTERFACE);
	client_text(parameters, "message", name, message, sizeof(message));
	if (!strcmp(name, "NoSuchExport"))
		return error_set(err, ENOENT, "%s", message);
	if (!strcmp(name, "Exists"))
		return error_set(err, EEXIST, "%s", message);
	if (!strcmp(name, "NotPermitted"))
		return error_set(err, EACCES, "%s", message);
	if (!strcmp(name, "Busy")) {
		add_holders(parameters, message, sizeof(message));
		return error_set(err, EBUSY, "%s", message);
	}
	client->refused = !strcmp(name, "Invalid");
	code = client_number(parameters, "errno");
	return error_set(err,
			 client->refused           ? EINVAL
			 : code > 0 && code < 4096 ? (int)code
						   : EIO,
			 "%s", message);
}

/* Splits an answer into error and reply. *continues: more answers follow. */
static int take_answer(struct client *client, json_t *answer, json_t **reply, bool *continues,
		       struct error *err)
{
	const json_t *error = json_object_get(answer, "error");
	json_t *parameters = json_object_get(answer, "parameters");

	*continues = json_is_true(json_object_get(answer, "continues"));
	if (error)
		return answer_error(client,
				    json_is_string(error) ? json_string_value(error) : "an error",
				    parameters, err);
	if (reply)
		*reply = json_is_object(parameters) ? json_incref(parameters) : json_object();
	return 0;
}

int client_call(struct client *client, const char *method, json_t *parameters, int wait_ms,
		json_t **reply, struct error *err)
{
	int64_t until = time_in(wait_ms);
	json_t *answer;
	bool ignored;
	int ret;

	client->refused = false;
	ret = send_call(client, method, parameters, false, until, err);
	if (!ret)
		ret = receive_json(client, &answer, until, err);
	if (ret)
		return ret;
	ret = take_answer(client, answer, reply, &ignored, err);
	json_decref(answer);
	return ret;
}

int client_stream(struct client *client, const char *method, json_t *parameters,
		  int (*each)(void *context, json_t *reply), void *context, struct error *err)
{
	bool continues = true;
	int ret;

	client->refused = false;
	ret = send_call(client, method, parameters, true, -1, err);
	while (!ret && continues) {
		json_t *answer, *reply;

		ret = receive_json(client, &answer, -1, err);
		if (ret)
			break;
		ret = take_answer(client, answer, &reply, &continues, err);
		if (!ret) {
			ret = each(context, reply);
			json_decref(reply);
		}
		json_decref(answer);
	}
	return ret;
}

static bool is_called(const json_t *export, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(export, key));

	return value && !strcmp(value, text);
}

static bool has_id(const json_t *export, uint32_t id)
{
	const json_t *value = json_object_get(export, "id");

	return json_is_integer(value) && json_integer_value(value) == id;
}

json_t *client_match(const json_t *exports, const char *text)
{
	struct error ignored;
	uint32_t id;
	bool is_device = !cli_device_id(text, &id, &ignored);

	for (size_t i = 0; i < json_array_size(exports); i++) {
		json_t *one = json_array_get(exports, i);

		if (is_called(one, "name", text) || is_called(one, "device", text) ||
		    is_called(one, "link", text) || (is_device && has_id(one, id)))
			return one;
	}
	return NULL;
}

int client_find(struct client *client, const char *text, json_t **export, struct error *err)
{
	json_t *reply, *found;
	int ret = client_call(client, "List", NULL, CLIENT_PROMPT_MS, &reply, err);

	if (ret)
		return ret;
	found = client_match(json_object_get(reply, "exports"), text);
	if (found)
		*export = json_incref(found);
	else
		ret = error_set(err, ENOENT, "there is no export '%s': 'ublkctl list' shows them",
				text);
	json_decref(reply);
	return ret;
}

bool client_is_foreign(const json_t *export)
{
	return is_called(export, "origin", "foreign");
}

/* ---- verbs ---- */

int client_fail(const struct client *client, const struct error *err)
{
	return cli_fail(client->refused ? EXIT_USAGE : EXIT_FAILED, err);
}

int client_set(void *context, const struct option_def *def, const char *text, struct error *err)
{
	struct client_words *words = context;
	struct option_value value;
	int ret = option_parse(def, text, &value, err);

	if (ret)
		return ret;
	if (!strcmp(def->name, "socket"))
		words->socket = text;
	for (const struct client_flag *f = words->flags; f && f->name; f++)
		if (!strcmp(f->name, def->name))
			*f->on = value.number;
	return 0;
}

int client_parse(const struct verb *verb, const struct option_def *options,
		 struct client_words *words, int argc, char **argv, int least, int most,
		 const char *what, int *operand)
{
	static const struct option_def common[] = { OPTION_DEF_SOCKET, { .name = NULL } };
	const struct option_def *tables[3] = { options ? options : common, common, NULL };
	struct cli cli = { .verb = verb, .tables = tables, .set = client_set, .context = words };
	struct error err;

	if (!options)
		tables[1] = NULL;
	if (cli_parse(&cli, argc, argv, operand, &err))
		return cli_fail(EXIT_USAGE, &err);
	if (argc - *operand >= least && argc - *operand <= most)
		return EXIT_DONE;
	if (most)
		error_set(&err, EINVAL, "expected %s: ublkctl %s %s", what, verb->name,
			  verb->arguments);
	else
		error_set(&err, EINVAL, "unexpected argument '%s': ublkctl %s %s", argv[*operand],
			  verb->name, verb->arguments);
	return cli_fail(EXIT_USAGE, &err);
}

int client_parse_json(const struct verb *verb, int argc, char **argv, int least, int most,
		      const char *what, int *operand, bool *json, const char **socket)
{
	static const struct option_def options[] = { OPTION_DEF_JSON, { .name = NULL } };
	const struct client_flag flags[] = { { "json", json }, { .name = NULL } };
	struct client_words words = { .flags = flags };
	int status;

	*json = false;
	status = client_parse(verb, options, &words, argc, argv, least, most, what, operand);
	*socket = words.socket;
	return status;
}

int client_ask(const char *socket, const char *method, json_t *parameters, int wait_ms,
	       json_t **reply)
{
	struct client client;
	struct error err;
	int status = EXIT_DONE;

	if (client_open(&client, socket, &err)) {
		json_decref(parameters);
		return cli_fail(EXIT_FAILED, &err);
	}
	if (client_call(&client, method, parameters, wait_ms, reply, &err))
		status = client_fail(&client, &err);
	client_close(&client);
	return status;
}

int client_ask_about(const char *socket, const char *method, const char *operand,
		     json_t *parameters, int wait_ms, json_t **reply)
{
	json_t *export = NULL, *name = NULL, *asked = parameters ? parameters : json_object();
	struct client client;
	struct error err;
	int status, ret;
	uint32_t id;

	ret = client_open(&client, socket, &err);
	if (ret) {
		json_decref(asked);
		return cli_fail(EXIT_FAILED, &err);
	}
	/* Text that cannot mean a device is a name: spare ublkd the list of all exports. */
	if (strchr(operand, '/') || !cli_device_id(operand, &id, &err)) {
		ret = client_find(&client, operand, &export, &err);
		if (!ret)
			name = json_incref(json_object_get(export, "name"));
		json_decref(export);
	} else {
		name = json_string(operand);
	}
	if (!ret)
		json_object_set_new(asked, "name", name);
	if (!ret && !name)
		ret = error_set(&err, EINVAL, "'%s' is not an export", operand);
	if (!ret)
		ret = client_call(&client, method, json_incref(asked), wait_ms, reply, &err);
	status = ret ? client_fail(&client, &err) : EXIT_DONE;
	json_decref(asked);
	client_close(&client);
	return status;
}

int client_open_driver(const char *operand, struct control *control, uint32_t *id)
{
	struct error err;

	if (cli_device_id(operand, id, &err)) {
		error_prefix(&err,
			     "ublkd is not running, and only ublkd knows the names of exports");
		return cli_fail(EXIT_USAGE, &err);
	}
	if (control_open(control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	return EXIT_DONE;
}

bool client_finds_ublkd(void)
{
	struct client client;
	struct error ignored;
	int ret = client_open(&client, NULL, &ignored);

	if (!ret)
		client_close(&client);
	return !client_is_absent(ret);
}

int client_offline(json_t **exports)
{
	struct control control;
	struct error err;
	int ret;

	if (control_open(&control, CONTROL_DEADLINE_MS, &err))
		return cli_fail(EXIT_FAILED, &err);
	ret = describe_offline(&control, exports, &err);
	control_close(&control);
	if (ret)
		return cli_fail(EXIT_FAILED, &err);
	log_line(LOG_LEVEL_WARNING, NULL, "%s",
		 "ublkd is not running: showing what the kernel and ublkd's records say; run "
		 "'systemctl start ublkd' to start it");
	return EXIT_DONE;
}

int client_print_results(json_t *reply, bool json)
{
	const json_t *results = json_object_get(reply, "results");
	char name[256], message[MESSAGE_SIZE];
	int status = EXIT_DONE;
	struct error err;

	for (size_t i = 0; i < json_array_size(results); i++) {
		const json_t *r = json_array_get(results, i);
		bool done = json_is_true(json_object_get(r, "done"));

		client_text(r, "name", "?", name, sizeof(name));
		client_text(r, "message", done ? "done" : "failed", message, sizeof(message));
		if (!done) {
			error_set(&err, EIO, "%s: %s", name, message);
			status = cli_fail(EXIT_FAILED, &err);
		} else if (!json) {
			printf("%s: %s\n", name, message);
		}
	}
	if (json)
		cli_print_json(json_incref(json_object_get(reply, "results")), false);
	json_decref(reply);
	return status;
}

/* ---- printing ---- */

const char *client_text(const json_t *object, const char *key, const char *fallback, char *out,
			size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text_escape(text ? text : fallback, out, size);
}

json_int_t client_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

const char *client_size(const json_t *object, const char *key, char *out, size_t size)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_integer(value))
		return size_format((uint64_t)json_integer_value(value), out, (unsigned)size);
	snprintf(out, size, "-");
	return out;
}

void client_print_trouble(const json_t *e)
{
	char name[256], health[32], reason[MESSAGE_SIZE], cure[MESSAGE_SIZE], since[64];

	if (!json_is_string(json_object_get(e, "reason")))
		return;
	printf("\n%s: ", client_text(e, "name", "?", name, sizeof(name)));
	if (json_is_string(json_object_get(e, "cure")))
		printf("%s since %s: ", client_text(e, "health", "", health, sizeof(health)),
		       client_time(client_number(e, "healthSinceUsec"), since, sizeof(since)));
	printf("%s\n", client_text(e, "reason", "?", reason, sizeof(reason)));
	if (*client_text(e, "cure", "", cure, sizeof(cure)))
		printf("  %s\n", cure);
}

void client_print_numbers(const char *title, json_t *numbers)
{
	const char *key;
	char text[256];
	json_t *value;

	if (!json_object_size(numbers))
		return;
	printf("\n%s\n", title);
	json_object_foreach(numbers, key, value) {
		printf("  %-18s %lld\n", text_escape(key, text, sizeof(text)),
		       (long long)json_integer_value(value));
	}
}

const char *client_holder(const json_t *holder, char *out, size_t size)
{
	char text[256], words[300];

	client_text(holder, "kind", "something", out, size);
	if (json_is_integer(json_object_get(holder, "pid"))) {
		snprintf(words, sizeof(words), " %lld", (long long)client_number(holder, "pid"));
		add_text(out, size, words);
	}
	if (*client_text(holder, "command", "", text, sizeof(text))) {
		snprintf(words, sizeof(words), " (%s)", text);
		add_text(out, size, words);
	}
	if (*client_text(holder, "path", "", text, sizeof(text))) {
		snprintf(words, sizeof(words), " %s", text);
		add_text(out, size, words);
	}
	return out;
}

const char *client_time(json_int_t usec, char *out, size_t size)
{
	time_t time = (time_t)(usec / 1000000);
	struct tm local;

	if (!localtime_r(&time, &local) || !strftime(out, size, "%Y-%m-%dT%H:%M:%S%z", &local))
		snprintf(out, size, "-");
	return out;
}
