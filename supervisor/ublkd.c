/* SPDX-License-Identifier: MIT */
/*
 * ublkd: its arguments, its start and its end.
 *
 * Order of the start: the configuration, the descriptors that the service manager kept, the state
 * directory with its lock (one ublkd for a machine), the control ring; then, in a fiber, what an
 * earlier ublkd left is adopted before the socket is served, so that no client sees a table that
 * is half full; then the configuration's exports are made. READY is sent when each has been
 * tried once.
 *
 * A signal ends the loop, not the exports: they live on in their workers, and the next ublkd
 * finds them (on-stop=keep). Whatever flow is under way then looks to it like a crash.
 */
#include <config.h>
#include "common/clock.h"
#include "common/directory.h"
#include "common/error.h"
#include "common/log.h"
#include "common/process.h"
#include "engine/ring_policy.h"
#include "supervisor/api.h"
#include "supervisor/control_async.h"
#include "supervisor/host.h"
#include "supervisor/heartbeat.h"
#include "supervisor/reconcile.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"
#include "varlink/varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define SOCKET_NAME  "io.ublkd"
#define FIRST_TRY_MS 10000u /* for declared exports, before ublkd counts as started */

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2
};

static const struct option_def options[] = {
	{ "config", OPTION_PATH, NULL, SETTINGS_DIRECTORY, 0, 0,
	  "directory of ublkd.conf and exports.d" },
	{ "state", OPTION_PATH, NULL, "/run/ublkd", 0, 0,
	  "directory for records that outlive ublkd, but not a reboot" },
	{ "worker", OPTION_PATH, NULL, LIBEXECDIR "/ublkd-worker", 0, 0,
	  "the program that serves an export" },
	{ "verbose", OPTION_FLAG, NULL, "off", 0, 0, "log more" },
	{ .name = NULL },
};

enum {
	CONFIG,
	STATE,
	WORKER,
	VERBOSE,
	OPTIONS
};

static struct option_value values[OPTIONS];
static uv_loop_t *loop;
static pthread_t loop_thread;
static struct varlink *server;
static uv_signal_t signals[3];
static uv_timer_t watchdog;
static int lock = -1;
static bool ending;

/* ---- the command line ---- */

static void print_help(void)
{
	char syntax[80], left[120];

	printf("usage: ublkd [OPTIONS]\n"
	       "Serve files, NBD exports and memory as block devices, and keep them "
	       "alive.\n\noptions:\n");
	for (const struct option_def *o = options; o->name; o++) {
		option_syntax(o, syntax, sizeof(syntax));
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->type == OPTION_FLAG ? "" : " ",
			 o->type == OPTION_FLAG ? "" : syntax);
		printf("  %-24s %s", left, o->help);
		if (o->type != OPTION_FLAG)
			printf(" (default: %s)", o->dflt);
		putchar('\n');
	}
	printf("  %-24s print this help\n  %-24s print the version\n", "--help", "--version");
}

static int parse(int argc, char **argv, struct error *err)
{
	struct option longs[OPTIONS + 3] = { { 0 } };
	int c;

	option_defaults(options, values);
	for (int i = 0; i < OPTIONS; i++)
		longs[i] = (struct option){ options[i].name,
					    options[i].type == OPTION_FLAG ? no_argument
									   : required_argument,
					    NULL, 0x100 + i };
	longs[OPTIONS] = (struct option){ "help", no_argument, NULL, 'h' };
	longs[OPTIONS + 1] = (struct option){ "version", no_argument, NULL, 'V' };
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (c == 'h') {
			print_help();
			exit(EXIT_DONE);
		}
		if (c == 'V') {
			printf("ublkd %s\n", PACKAGE_VERSION);
			exit(EXIT_DONE);
		}
		if (c == ':')
			return error_set(err, EINVAL, "'%s' needs a value: see 'ublkd --help'",
					 argv[optind - 1]);
		if (c < 0x100)
			return error_set(err, EINVAL,
					 "unknown option '%s': 'ublkd --help' lists them",
					 argv[optind - 1]);
		if (option_parse(&options[c - 0x100], optarg, &values[c - 0x100], err))
			return -EINVAL;
	}
	return optind == argc ? 0
			      : error_set(err, EINVAL,
					  "'%s': ublkd takes options only: see 'ublkd --help'",
					  argv[optind]);
}

/* ---- the state directory ---- */

static char *path_in_state(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", values[STATE].text, name) < 0)
		abort(); /* at the start there is memory, or nothing to lose */
	return path;
}

/* Only one ublkd at a time works with a state directory. */
static int take_lock(struct error *err)
{
	char *path = path_in_state("lock"), pid[24] = "";
	int ret = 0;

	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock >= 0 && !flock(lock, LOCK_EX | LOCK_NB)) {
		/* A second ublkd names this process in its error message. */
		snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
		if (ftruncate(lock, 0) || pwrite(lock, pid, strlen(pid), 0) < 0)
			log_debug(NULL, "%s: %m", path);
	} else if (lock >= 0 && errno == EWOULDBLOCK) {
		ret = pread(lock, pid, sizeof(pid) - 1, 0) > 0 ? atoi(pid) : 0;
		ret = error_set(err, EWOULDBLOCK,
				"another ublkd is running (process %d, which has %s locked): one "
				"ublkd serves all exports",
				ret, path);
	} else {
		ret = error_set(err, errno, "cannot lock %s: %s", path, strerror(errno));
	}
	free(path);
	return ret;
}

static int make_state(struct error *err)
{
	const char *directories[] = { values[STATE].text, NAME_RECORDS, NULL, NULL };
	const mode_t modes[] = { 0755, 0755, 0700, 0700 };
	int ret;

	directories[2] = record_directory = path_in_state("exports");
	directories[3] = worker_setup.directory = path_in_state("workers");
	worker_setup.program = values[WORKER].text;
	worker_setup.starter = path_in_state("worker");
	for (unsigned i = 0; i < 4; i++) {
		ret = directory_make(directories[i], modes[i], err);
		if (ret)
			return ret;
	}
	return take_lock(err);
}

static int find_worker_user(struct error *err)
{
	const char *name = supervisor_settings.values[SETTINGS_WORKER_USER].text;
	const struct passwd *user = getpwnam(name);

	if (!user || !user->pw_uid)
		return error_set(err, ENOENT,
				 "worker-user: there is no user '%s' without privileges: create it "
				 "(systemd-sysusers creates the user ublkd), or name another user "
				 "in ublkd.conf",
				 name);
	worker_setup.uid = user->pw_uid;
	worker_setup.gid = user->pw_gid;
	return 0;
}

/* ---- the socket ---- */

static int own_socket(struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *path = path_in_state(SOCKET_NAME);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	/* We hold the lock, so no other ublkd listens at this socket. */
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address))) {
		error_set(err, errno, "%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	free(path);
	return fd;
}

/*
 * The socket is for root only, unless the configuration names a group. The mode of a file has room
 * for one group, not two, so everybody may connect then, and api_may() checks each peer.
 */
static void open_socket_to_groups(void)
{
	bool groups = supervisor_settings.values[SETTINGS_READ_GROUP].text ||
		      supervisor_settings.values[SETTINGS_CONTROL_GROUP].text;
	char *path = path_in_state(SOCKET_NAME);

	if (chmod(path, groups ? 0666 : 0600))
		log_warning(NULL, "cannot change the mode of %s: %s", path, strerror(errno));
	free(path);
}

/* Takes descriptors from the service manager: the control socket, and memory that it kept. */
static int take_descriptors(void)
{
	static const char memory[] = HOST_MEMORY_PREFIX;
	char **names = NULL;
	int nr = sd_listen_fds_with_names(1, &names), found = -1;

	for (int i = 0; i < nr; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (!strncmp(names[i], memory, sizeof(memory) - 1))
			supervisor_take_memory(names[i] + sizeof(memory) - 1, fd);
		else if (found < 0 && sd_is_socket_unix(fd, SOCK_STREAM, -1, NULL, 0) > 0)
			found = fd;
		else
			close(fd);
		free(names[i]);
	}
	free(names);
	return found;
}

static int open_interface(int fd, struct error *err)
{
	static const struct varlink_interface *const interfaces[] = { &api_interface, NULL };
	struct varlink_setup setup = {
		.vendor = "ublkd",
		.product = "ublkd",
		.version = PACKAGE_VERSION,
		.url = "io.ublkd",
		.may = api_may,
	};
	int ret = varlink_create(&server, loop, &setup, err);

	if (ret)
		return ret;
	if (fd < 0)
		fd = own_socket(err);
	if (fd < 0)
		return -err->code;
	ret = varlink_listen(server, fd, interfaces, err);
	if (ret)
		return ret;
	open_socket_to_groups();
	return 0;
}

/* ---- start, reload, stop ---- */

static void ignore_result(void *context, const char *name, bool done, const char *message)
{
	(void)context;
	(void)name;
	(void)done;
	(void)message;
}

static void start_serving(void *context)
{
	struct error err;

	(void)context;
	supervisor_adopt();
	if (open_interface(*(int *)context, &err)) {
		log_error(NULL, "%s", err.text);
		exit(EXIT_FAILED);
	}
	supervisor_reload(ignore_result, NULL);
	/* Exports that wait for a network must not hold up those on local disks. */
	supervisor_settle_all(FIRST_TRY_MS);
	sd_notify(0, "READY=1");
	log_debug(NULL, "ready");
}

static void stop_loop(void)
{
	if (ending)
		return;
	ending = true;
	log_info(NULL, supervisor_exports ? "ublkd stops; its exports stay live" : "ublkd stops");
	sd_notify(0, "STOPPING=1");
	api_end_monitors();
	uv_stop(loop);
}

static void stop_by_signal(void *context)
{
	(void)context;
	if (supervisor_settings.values[SETTINGS_ON_STOP].word == SETTINGS_STOP_REMOVE)
		supervisor_remove_all(false, ignore_result, NULL);
	stop_loop();
}

static void reload(void *context)
{
	char text[64];

	(void)context;
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
		 (unsigned long long)clock_ns() / 1000);
	sd_notify(0, text);
	supervisor_reload(ignore_result, NULL);
	sd_notify(0, "READY=1");
}

static void on_signal(uv_signal_t *handle, int number)
{
	(void)handle;
	fiber_start(number == SIGHUP ? reload : stop_by_signal, NULL);
}

static void keep_alive(uv_timer_t *timer)
{
	(void)timer;
	sd_notify(0, "WATCHDOG=1");
}

static void watch_signals(void)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
	uint64_t usec;

	for (unsigned i = 0; i < 3; i++) {
		uv_signal_init(loop, &signals[i]);
		uv_signal_start(&signals[i], on_signal, numbers[i]);
	}
	heartbeat_start(loop, &supervisor_exports);
	uv_timer_init(loop, &watchdog);
	if (sd_watchdog_enabled(0, &usec) > 0)
		uv_timer_start(&watchdog, keep_alive, usec / 2000, usec / 2000);
}

/* kernel.io_uring_disabled may allow io_uring to root and refuse it to workers: say so at once. */
static void warn_of_policy(void)
{
	struct error err;

	ring_policy_read(NULL);
	if (ring_policy_refuses(worker_setup.gid, false, &err))
		log_warning(NULL, "no export can be served: %s", err.text);
}

/* For log lines: the device of an export. Only the loop's thread may read the table of exports. */
static const char *device_of(const char *about, char *out, size_t size)
{
	const struct export *export =
		pthread_equal(pthread_self(), loop_thread) ? supervisor_find(about) : NULL;

	return export && *device_path(&export->device, out, size) ? out : NULL;
}

int main(int argc, char **argv)
{
	struct error err;
	int socket;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps children: nothing waits for a slow exit */
	log_setup("ublkd", LOG_LEVEL_INFO);
	loop_thread = pthread_self();
	log_set_device_of(device_of);
	if (parse(argc, argv, &err)) {
		log_error(NULL, "%s", err.text);
		return EXIT_USAGE;
	}
	if (values[VERBOSE].number) {
		log_setup("ublkd", LOG_LEVEL_DEBUG);
		setenv("UBLKD_VERBOSE", "1", 1);
	}
	loop = uv_default_loop();
	fiber_setup(loop);
	supervisor_setup();
	export_changed = api_report_change;
	api_stop = stop_loop;
	supervisor_paths = (struct supervisor_paths){ values[CONFIG].text, values[STATE].text };
	settings_load(values[CONFIG].text, &supervisor_settings);
	socket = take_descriptors();
	if (make_state(&err) || find_worker_user(&err) ||
	    control_async_open(loop, CONTROL_DEADLINE_MS, &err)) {
		log_error(NULL, "%s%s", err.text, geteuid() ? ": run ublkd as root" : "");
		return EXIT_FAILED;
	}
	process_prepare_for_io(NULL);
	warn_of_policy();
	watch_signals();
	fiber_start(start_serving, &socket);
	uv_run(loop, UV_RUN_DEFAULT);

	/* The next ublkd finds flows that are under way, as after a crash. */
	if (server)
		varlink_close(server, NULL, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	return EXIT_DONE;
}
