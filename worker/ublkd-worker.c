/* SPDX-License-Identifier: MIT */
/*
 * ublkd-worker: one process an export, which opens the storage and serves the device, and has no
 * right to anything else.
 *
 * It is told what to do by ublkd over a channel (link.h), one request at a time, and goes from
 * state to state as it obeys; a request out of order is refused and changes nothing. It outlives
 * ublkd: without a channel it keeps serving, and listens for the next ublkd on its own socket.
 *
 * The main thread does all of that; the queues' threads serve, and report their end through an
 * eventfd. Nothing here waits for a queue's I/O, so that ublkd's check is answered even while the
 * storage hangs.
 *
 * Read obey() and the do_*() before it, which are the requests in their usual order; serve_ublkd()
 * is the loop.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "engine/ring_policy.h"
#include "engine/serve.h"
#include "engine/ublk_abi.h"
#include "worker/host_remote.h"
#include "worker/limits.h"
#include "worker/conditions.h"
#include "worker/link.h"
#include "worker/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEALTH_EVERY_MS 200   /* at most so often */
#define HEALTH_RETRY_MS 2000  /* where ublkd does not read */
#define FIRST_MS        30000 /* for ublkd to connect, at the start */
#define CHECK_MS        5000  /* for a queue to do a round */
#define DRAIN_MS        10000 /* for a backend to answer what it has */
#define NAP_NS          2000000

enum worker_state {
	WORKER_NEW,
	WORKER_SET_UP, /* it knows its export, and has no privilege */
	WORKER_OPEN,   /* so is the storage */
	WORKER_SERVING,
	WORKER_HOLDING, /* it serves no more, and only keeps the memory for the next one */
	WORKER_ENDING   /* nothing is held any more; the process is to end */
};

/* Of log lines; -1: not known yet.  Atomic: queues' threads log, too. */
static long log_device = -1;

/* This process. */
struct self {
	enum worker_state state;
	int start; /* to the ublkd that has it started, until there is a link; -1 from then on */
	int listener;
	int link; /* -1: no ublkd is there */
	struct spec spec;
	char name[80];
	enum open_reason reason;
	uint32_t live_block;
	struct counters *counters;
	int counters_fd, char_fd;
	struct serving serving;
	json_int_t device;  /* its number */
	int status;         /* of the process */
	bool health_waits;  /* a change of conditions is to be reported */
	bool health_unsent; /* and could not be */
	uint64_t health_due_ms;
};

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

static void keep_signals_away(void)
{
	static const int ignored[] = { SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };

	/* Those that a shutdown or a terminal sends to all: the device is in use still. */
	for (unsigned i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
}

/* ---- what ublkd asks for: each fills *reply, or err ---- */

static const char *state_name(enum worker_state state)
{
	static const char *const names[] = {
		[WORKER_NEW] = "new",
		[WORKER_SET_UP] = "set up",
		[WORKER_OPEN] = "open",
		[WORKER_SERVING] = "serving",
		[WORKER_HOLDING] = "holding memory",
		[WORKER_ENDING] = "ending",
	};

	return names[state];
}

static int in_state(const struct self *w, enum worker_state wanted, struct error *err)
{
	return w->state == wanted ? 0
				  : error_set(err, EPROTO, "request not valid in state '%s'",
					      state_name(w->state));
}

static int read_spec(struct self *w, const json_t *request, struct error *err)
{
	const char *uri = json_string_value(json_object_get(request, "uri"));
	json_t *options = json_object_get(request, "options"), *value;
	const char *name;
	int ret;

	if (!uri)
		return error_set(err, EPROTO, "the URI is missing");
	ret = spec_open(&w->spec, uri, err);
	if (ret)
		return ret;
	json_object_foreach(options, name, value) {
		ret = spec_set_any(&w->spec, name, json_string_value(value), err);
		if (ret)
			break;
	}
	if (!ret)
		ret = spec_check(&w->spec, err);
	if (ret) {
		spec_close(&w->spec);
		w->spec = (struct spec){ 0 };
	}
	return ret;
}

/*
 * The status of the worker's unit, as in `systemctl status`: a datagram to $NOTIFY_SOCKET, whose
 * first byte '@' stands for 0 (sd_notify(3), "Notes"). libsystemd can do the same, and brings a
 * dozen libraries into each worker, a tenth of its memory.
 */
static void tell_status(const char *name)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	char text[sizeof(((struct self *)0)->name) + 32];
	size_t length = path ? strlen(path) : 0;
	int n, fd;

	if (!length || length >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, length);
	if (*path == '@')
		to.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof(text), "STATUS=serves the export %s", name);
	sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
	close(fd);
}

static int do_setup(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		    struct error *err)
{
	struct instance instance;
	struct sandbox sandbox = {
		.uid = (uid_t)json_integer_value(json_object_get(request, "uid")),
		.gid = (gid_t)json_integer_value(json_object_get(request, "gid")),
		.instance = &instance,
	};
	const char *name = json_string_value(json_object_get(request, "name"));
	int ret = in_state(w, WORKER_NEW, err);

	(void)reply;
	if (!ret && owner_from_json(json_object_get(request, "owner"), &sandbox.owner))
		ret = error_set(err, EPROTO, "invalid owner");
	if (ret)
		return ret;
	snprintf(w->name, sizeof(w->name), "%s", name ? name : "?");
	w->reason = json_is_true(json_object_get(request, "resumed"))    ? OPEN_TAKEOVER
		    : json_is_true(json_object_get(request, "restored")) ? OPEN_AGAIN
									 : OPEN_FIRST;
	w->live_block = (uint32_t)json_integer_value(json_object_get(request, "block"));
	host_remote_use(link_take_fd(fds, 0));
	ret = read_spec(w, request, err);
	if (ret)
		return ret;
	spec_to_instance(&w->spec, &instance);
	/*
	 * Read while /proc is there: in the sandbox it is not, and a refused io_uring could not be
	 * explained.
	 */
	ring_policy_read(NULL);
	/* Before its socket is out of sight of the new root directory. */
	tell_status(w->name);
	ret = sandbox_enter(&sandbox, err);
	keep_signals_away();
	if (!ret)
		w->state = WORKER_SET_UP;
	return ret;
}

/* The device's; 0 for what an earlier ublkd leaves to the worker. */
static int read_shape(const json_t *request, struct device_shape *shape)
{
	json_int_t queues = json_integer_value(json_object_get(request, "queues"));
	json_int_t depth = json_integer_value(json_object_get(request, "depth"));
	json_int_t max_io = json_integer_value(json_object_get(request, "max-io"));

	if (queues < 0 || queues > UBLK_QUEUES_MAX || depth < 0 || depth > UBLK_DEPTH_MAX ||
	    max_io < 0 || max_io > UBLK_IO_MAX)
		return -EPROTO;
	*shape = (struct device_shape){ (unsigned)queues, (unsigned)depth, (uint32_t)max_io };
	return 0;
}

static int do_open(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		   struct error *err)
{
	const struct instance *e = &w->serving.instance;
	struct device_shape shape;
	int ret = in_state(w, WORKER_SET_UP, err);

	if (ret)
		return ret;
	ret = read_shape(request, &shape);
	if (ret)
		return error_set(err, EPROTO, "invalid shape of the device");
	if (w->counters)
		counters_destroy(w->counters);
	if (w->counters_fd >= 0)
		close(w->counters_fd);
	w->counters_fd = link_take_fd(fds, 0);
	w->counters = counters_map(w->counters_fd, true);
	if (!w->counters)
		return error_set(err, errno, "the counters' memory: %s", strerror(errno));
	ret = serving_open(&w->serving,
			   &(struct serving_of){
				   .spec = &w->spec,
				   .name = w->name,
				   .reason = w->reason,
				   .live_block = w->live_block,
				   .shape = shape,
				   .host = &host_remote,
				   .counters = w->counters,
			   },
			   err);
	if (ret)
		return ret;
	w->state = WORKER_OPEN;
	json_object_set_new(reply, "queues", json_integer(e->nr_queues));
	json_object_set_new(reply, "depth", json_integer(e->depth));
	json_object_set_new(reply, "limits", limits_to_json(&e->limits));
	json_object_set_new(reply, "identity", json_string(e->identity));
	return 0;
}

/* The CPUs of each queue; the caller frees them. */
static struct cpus *read_cpus(const json_t *texts, unsigned nr)
{
	struct cpus *cpus = calloc(nr, sizeof(*cpus));
	struct error ignored;

	for (unsigned i = 0; cpus && i < nr; i++) {
		const char *text = json_string_value(json_array_get(texts, i));

		if (!text || cpus_parse(text, &cpus[i], &ignored))
			cpus[i] = (struct cpus){ 0 };
	}
	return cpus;
}

static int do_serve(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		    struct error *err)
{
	struct serving_setup setup = { .recoverable = true };
	struct cpus *cpus = NULL;
	struct error later;
	int ret = in_state(w, WORKER_OPEN, err);

	(void)reply;
	if (ret)
		return ret;
	w->device = json_integer_value(json_object_get(request, "device"));
	__atomic_store_n(&log_device, (long)w->device, __ATOMIC_RELAXED);
	setup.nr_queues = (unsigned)json_integer_value(json_object_get(request, "queues"));
	setup.depth = (unsigned)json_integer_value(json_object_get(request, "depth"));
	setup.path = (enum io_path)json_integer_value(json_object_get(request, "path"));
	setup.max_io = (uint32_t)json_integer_value(json_object_get(request, "max-io"));
	if (w->char_fd >= 0)
		close(w->char_fd);
	w->char_fd = setup.char_fd = link_take_fd(fds, 0);
	if (setup.char_fd < 0 || !setup.nr_queues ||
	    setup.nr_queues > w->serving.instance.nr_queues || !setup.depth)
		return error_set(err, EPROTO, "the device does not match");
	setup.cpus = cpus = read_cpus(json_object_get(request, "cpus"), setup.nr_queues);
	w->serving.instance.was_live = w->reason == OPEN_TAKEOVER;
	/*
	 * Sealed only after the queues have started: each makes its io_uring and its thread on the
	 * way.
	 */
	ret = serving_start(&w->serving, &setup, err);
	if (!ret)
		ret = sandbox_seal(err);
	free(cpus);
	if (!ret) {
		w->state = WORKER_SERVING;
		return 0;
	}
	/* Why a queue ended is why it was not ready. */
	serving_quit(&w->serving);
	if (serving_join(&w->serving, &later) && later.code != ETIMEDOUT)
		*err = later;
	return ret;
}

static int do_live(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		   struct error *err)
{
	(void)request;
	(void)fds;
	(void)reply;
	(void)err;
	w->serving.instance.was_live = true;
	return 0;
}

static int do_hello(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		    struct error *err)
{
	struct health_condition conditions[CAUSES];

	(void)request;
	(void)err;
	host_remote_use(link_take_fd(fds, 0));
	json_object_set_new(reply, "serving", json_boolean(w->state == WORKER_SERVING));
	json_object_set_new(reply, "device", json_integer(w->device));
	json_object_set_new(reply, "size",
			    json_integer((json_int_t)w->serving.instance.limits.size));
	serving_conditions(&w->serving, conditions);
	json_object_set_new(reply, "conditions", conditions_to_json(conditions));
	return 0;
}

/*
 * Wakes each queue and waits for a round of it: a queue without one is stuck. The
 * verb is "look" on the wire: an ublkd may be younger or older than its workers.
 */
static int do_check(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		    struct error *err)
{
	unsigned nr = w->serving.instance.nr_queues, moved = 0;
	json_t *stuck = json_array(), *threads = json_array();
	uint64_t *before, end = clock_ms() + CHECK_MS;
	int ret = in_state(w, WORKER_SERVING, err);

	(void)request;
	(void)fds;
	before = calloc(nr ? nr : 1, sizeof(*before));
	for (unsigned i = 0; !ret && before && i < nr; i++) {
		before[i] = counters_queue(w->counters, i)->rounds;
		json_array_append_new(threads, json_integer(serving_thread(&w->serving, i)));
	}
	if (!ret && before)
		serving_wake(&w->serving);
	while (!ret && before && moved < nr) {
		moved = 0;
		for (unsigned i = 0; i < nr; i++)
			moved += __atomic_load_n(&counters_queue(w->counters, i)->rounds,
						 __ATOMIC_RELAXED) != before[i];
		if (moved < nr && clock_ms() > end)
			break;
		if (moved < nr)
			nap();
	}
	for (unsigned i = 0; !ret && before && i < nr; i++)
		if (__atomic_load_n(&counters_queue(w->counters, i)->rounds, __ATOMIC_RELAXED) ==
		    before[i])
			json_array_append_new(stuck, json_integer(i));
	free(before);
	json_object_set_new(reply, "stuck", stuck);
	json_object_set_new(reply, "threads", threads);
	return ret;
}

static int do_size(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		   struct error *err)
{
	json_int_t size = json_integer_value(json_object_get(request, "size"));
	int ret = in_state(w, WORKER_SERVING, err);

	(void)fds;
	(void)reply;
	if (!ret && size > 0)
		serving_set_size(&w->serving, (uint64_t)size);
	return ret;
}

/* sized: to a size of the client's choice. */
static int check_resize(const struct instance *e, bool sized, struct error *err)
{
	if (e->backend->resize && (!sized || e->backend->set_size))
		return 0;
	return error_set(err, EOPNOTSUPP, "this kind of storage cannot be resized here%s",
			 e->backend->resize ? ": leave the size out" : "");
}

static int do_can_resize(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
			 struct error *err)
{
	struct instance *e = &w->serving.instance;
	int ret = in_state(w, WORKER_SERVING, err);

	(void)request;
	(void)fds;
	(void)reply;
	if (ret)
		return ret;
	ret = check_resize(e, true, err);
	return ret ? ret : e->backend->set_size(e, 0, err);
}

static int do_resize(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		     struct error *err)
{
	json_int_t size = json_integer_value(json_object_get(request, "size"));
	struct instance *e = &w->serving.instance;
	int ret = in_state(w, WORKER_SERVING, err);

	(void)fds;
	if (!ret)
		ret = check_resize(e, size > 0, err);
	if (!ret && size > 0)
		ret = e->backend->set_size(e, (uint64_t)size, err);
	if (!ret)
		ret = e->backend->resize(e, err);
	json_object_set_new(reply, "size", json_integer((json_int_t)e->limits.size));
	return ret;
}

/* The queues have ended.  Lets go of all; the kernel first, whose users wait. */
static void let_go(struct self *w)
{
	if (w->char_fd >= 0)
		close(w->char_fd);
	w->char_fd = -1;
	if (!w->serving.stuck)
		serving_close(&w->serving);
	w->state = WORKER_ENDING;
}

/* Until nothing is in flight, and the storage can be left to another process. */
static int drain(struct self *w, struct error *err)
{
	struct instance *e = &w->serving.instance;
	uint64_t end = clock_ms() + DRAIN_MS;
	int ret = -EAGAIN;

	serving_drain(&w->serving, true);
	while (ret == -EAGAIN && clock_ms() <= end) {
		if (!serving_is_drained(&w->serving))
			error_set(err, EAGAIN, "requests in flight were not answered within %d s",
				  DRAIN_MS / 1000);
		else
			ret = e->backend->settled ? e->backend->settled(e, err) : 0;
		if (ret)
			nap();
	}
	if (ret == -EAGAIN)
		err->code = ETIMEDOUT;
	return ret ? -err->code : 0;
}

static int do_drain(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		    struct error *err)
{
	int ret = in_state(w, WORKER_SERVING, err);

	(void)fds;
	(void)reply;
	if (ret)
		return ret;
	ret = drain(w, err);
	if (ret) {
		serving_drain(&w->serving, false);
		return ret;
	}
	serving_quit(&w->serving);
	ret = serving_join(&w->serving, err);
	let_go(w);
	if (json_is_true(json_object_get(request, "hold")))
		w->state = WORKER_HOLDING;
	return ret;
}

static int do_end(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		  struct error *err)
{
	struct error ignored;

	(void)request;
	(void)fds;
	(void)reply;
	(void)err;
	if (w->state == WORKER_SERVING) {
		serving_quit(&w->serving);
		serving_join(&w->serving, &ignored);
	}
	if (w->state == WORKER_OPEN || w->state == WORKER_SERVING)
		let_go(w);
	w->state = WORKER_ENDING;
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct self *w, const json_t *request, struct link_fds *fds, json_t *reply,
		   struct error *err);
} verbs[] = {
	{ "setup", do_setup },   { "open", do_open },
	{ "serve", do_serve },   { "live", do_live },
	{ "hello", do_hello },   { "look", do_check },
	{ "size", do_size },     { "drain", do_drain },
	{ "end", do_end },       { "can-resize", do_can_resize },
	{ "resize", do_resize },
};

static int report(struct self *w, json_t *message, const int *fds, unsigned nr)
{
	int ret;

	if (w->link < 0) {
		json_decref(message);
		return -ENOTCONN;
	}
	ret = link_send(w->link, message, fds, nr);
	if (ret && ret != -EPIPE)
		log_warning(w->name, "cannot send a message to ublkd: %s", strerror(-ret));
	return ret;
}

/* An unknown verb is answered with ENOSYS, which a younger ublkd takes for "this worker cannot". */
static void obey(struct self *w, json_t *request, struct link_fds *fds)
{
	const char *name = json_string_value(json_object_get(request, "do"));
	json_int_t id = json_integer_value(json_object_get(request, "id"));
	int out[2] = { w->counters_fd, host_remote_memory() };
	struct error err = { 0 };
	json_t *reply = json_object();
	int ret = -ENOSYS;

	for (unsigned i = 0; name && i < sizeof(verbs) / sizeof(*verbs); i++)
		if (!strcmp(name, verbs[i].name))
			ret = verbs[i].run(w, request, fds, reply, &err);
	if (ret == -ENOSYS)
		error_set(&err, ENOSYS, "this worker does not know the request '%s'",
			  name ? name : "?");
	if (ret) {
		json_decref(reply);
		report(w, link_failure(id, &err), NULL, 0);
		return;
	}
	json_object_set_new(reply, "done", json_integer(id));
	if (!strcmp(name, "hello") && w->counters_fd >= 0)
		report(w, reply, out, out[1] >= 0 ? 2 : 1);
	else
		report(w, reply, NULL, 0);
}

/* ---- the loop ---- */

/*
 * A worker that serves goes on without ublkd, and so does one that alone holds a memory export's
 * content. Any other is half set up and ends.
 */
static void lose_link(struct self *w)
{
	close(w->link);
	w->link = -1;
	host_remote_use(-1);
	/* The one that held the memory before it may be gone. */
	if (w->state == WORKER_OPEN && w->reason == OPEN_TAKEOVER && host_remote_memory() >= 0) {
		let_go(w);
		w->state = WORKER_HOLDING;
	}
	if (w->state != WORKER_SERVING && w->state != WORKER_HOLDING) {
		w->state = WORKER_ENDING;
		w->status = EXIT_FAILURE;
	}
}

static void take_requests(struct self *w)
{
	struct link_fds fds;
	json_t *request;
	int ret;

	while (w->state != WORKER_ENDING && w->link >= 0) {
		ret = link_receive(w->link, &request, &fds);
		if (ret == -EAGAIN)
			return;
		if (ret && ret != -EBADMSG) {
			lose_link(w);
			return;
		}
		if (!ret)
			obey(w, request, &fds);
		json_decref(request);
		link_close_fds(&fds);
	}
}

static void leave_start(struct self *w)
{
	if (w->start >= 0)
		close(w->start);
	w->start = -1;
}

/* The newest one counts: an older one is dead, or about to be. */
static void take_link(struct self *w)
{
	int fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (w->link >= 0)
		close(w->link);
	w->link = fd;
	leave_start(w);
}

static void queue_ended(struct self *w)
{
	struct error err = { 0 };

	if (serving_has_failed(&w->serving))
		serving_quit(&w->serving);
	serving_join(&w->serving, &err);
	let_go(w);
	w->status = err.code ? EXIT_FAILURE : EXIT_SUCCESS;
	if (err.code)
		log_error(w->name, "%s", err.text);
	text_make_printable(err.text);
	report(w,
	       json_pack("{s:s, s:i, s:s}", "event", "ended", "code", err.code, "text",
			 err.code ? err.text : ""),
	       NULL, 0);
}

static void grown(struct self *w)
{
	uint64_t size = serving_grown(&w->serving);

	/* First for us, then for the kernel: nothing that it sends may be refused. */
	if (size > w->serving.instance.limits.size) {
		serving_set_size(&w->serving, size);
		report(w, json_pack("{s:s, s:I}", "event", "grown", "size", (json_int_t)size), NULL,
		       0);
	}
}

/* ublkd ends a worker that floods it with messages, and conditions may come and go fast. */
static void report_health(struct self *w)
{
	struct health_condition conditions[CAUSES];
	uint64_t now = clock_ms();
	int ret;

	if (now < w->health_due_ms) {
		w->health_waits = true;
		return;
	}
	w->health_waits = false;
	if (!serving_conditions(&w->serving, conditions) && !w->health_unsent)
		return;
	w->health_due_ms = now + HEALTH_EVERY_MS;
	ret = report(w,
		     json_pack("{s:s, s:o}", "event", "health", "conditions",
			       conditions_to_json(conditions)),
		     NULL, 0);
	/* An ublkd that is stopped reads nothing; the next one asks for all (hello). */
	w->health_unsent = w->health_waits = ret == -EAGAIN;
	if (w->health_unsent)
		w->health_due_ms = now + HEALTH_RETRY_MS;
}

static int poll_ms(const struct self *w)
{
	uint64_t now = clock_ms();

	if (w->state == WORKER_NEW)
		return FIRST_MS;
	if (!w->health_waits || w->state != WORKER_SERVING)
		return -1;
	return w->health_due_ms > now ? (int)(w->health_due_ms - now) : 0;
}

static void serve_ublkd(struct self *w)
{
	while (w->state != WORKER_ENDING) {
		bool serving = w->state == WORKER_SERVING;
		struct pollfd fds[] = {
			{ .fd = w->listener, .events = POLLIN },
			{ .fd = w->link, .events = POLLIN },
			{ .fd = serving ? serving_event(&w->serving) : -1, .events = POLLIN },
			{ .fd = serving ? serving_grown_event(&w->serving) : -1, .events = POLLIN },
			{ .fd = w->start, .events = POLLIN },
		};
		int ret = poll(fds, sizeof(fds) / sizeof(*fds), poll_ms(w));

		if (!ret && w->state == WORKER_NEW) {
			w->status = EXIT_FAILURE;
			return;
		}
		if (serving && (fds[3].revents || w->health_waits))
			report_health(w);
		if (ret < 0)
			continue;
		/*
		 * Before requests are read: an answer must not come from a device that has ended.
		 */
		if (fds[2].revents) {
			queue_ended(w);
			return;
		}
		if (fds[3].revents)
			grown(w);
		if (fds[1].revents)
			take_requests(w);
		if (fds[0].revents)
			take_link(w);
		/* Dead before it has connected: nobody else knows of this process. */
		if (fds[4].revents && w->start >= 0 && poll(fds, 1, 0) <= 0) {
			w->status = EXIT_FAILURE;
			return;
		}
	}
}

/* The arguments of a worker: a name, and a socket to listen at. */
static int begin_process(struct self *w)
{
	struct pollfd ready = { .fd = w->start, .events = POLLIN };
	struct link_fds fds;
	json_t *message;
	const char *name;

	if (poll(&ready, 1, FIRST_MS) <= 0 || link_receive(w->start, &message, &fds))
		return -EPIPE;
	name = json_string_value(json_object_get(message, "name"));
	snprintf(w->name, sizeof(w->name), "%s", name ? name : "?");
	w->listener = link_take_fd(&fds, 0);
	json_decref(message);
	link_close_fds(&fds);
	if (w->listener < 0 || listen(w->listener, 4))
		return -EBADMSG;
	return 0;
}

static const char *device_of(const char *about, char *out, size_t size)
{
	long device = __atomic_load_n(&log_device, __ATOMIC_RELAXED);

	(void)about;
	snprintf(out, size, UBLK_BLOCK_PREFIX "%ld", device);
	return device < 0 ? NULL : out;
}

int main(void)
{
	struct self w = { .start = WORKER_START_FD, .link = -1, .counters_fd = -1, .char_fd = -1 };

	log_setup("ublkd-worker", getenv("UBLKD_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	log_set_device_of(device_of);
	keep_signals_away();
	if (begin_process(&w)) {
		log_error(NULL, "ublkd-worker is started by ublkd and cannot be run by hand");
		return EXIT_FAILURE;
	}
	serve_ublkd(&w);
	return w.status;
}
