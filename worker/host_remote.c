/* SPDX-License-Identifier: MIT */
#include "worker/host_remote.h"
#include "worker/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static int socket_fd = -1; /* guarded by gate, as is the rest */
static json_int_t last_id;
static int memory = -1;
static int kept[HOST_CONNECTIONS]; /* connections, for the next ublkd */
static uint64_t kept_wait_ms[HOST_CONNECTIONS];
static bool is_kept[HOST_CONNECTIONS];

static void tell_kept(unsigned slot)
{
	if (socket_fd >= 0)
		link_send(socket_fd,
			  json_pack("{s:s, s:i, s:I}", "ask", "keep", "slot", (int)slot, "wait",
				    kept_wait_ms[slot] > INT64_MAX
					    ? (json_int_t)-1
					    : (json_int_t)kept_wait_ms[slot]),
			  &kept[slot], is_kept[slot]);
}

void host_remote_use(int socket)
{
	pthread_mutex_lock(&gate);
	if (socket_fd >= 0)
		close(socket_fd);
	socket_fd = socket;
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		if (is_kept[i])
			tell_kept(i);
	pthread_mutex_unlock(&gate);
}

int host_remote_memory(void)
{
	return memory;
}

/* Waits for the answer to id.  Returns its result, and its descriptor in place of 0. */
static int wait_answer(json_int_t id, int ms)
{
	struct pollfd ready = { .fd = socket_fd, .events = POLLIN };
	struct link_fds fds;
	json_t *answer;
	int ret;

	for (;;) {
		ret = poll(&ready, 1, ms);
		if (ret < 0 && errno == EINTR)
			continue;
		if (ret <= 0)
			return ret ? -errno : -ETIMEDOUT;
		ret = link_receive(socket_fd, &answer, &fds);
		if (ret == -EAGAIN || ret == -EBADMSG)
			continue;
		if (ret)
			return -ENOTCONN;
		/* An answer that came too late is dropped. */
		if (json_integer_value(json_object_get(answer, "answer")) == id) {
			ret = (int)json_integer_value(json_object_get(answer, "result"));
			if (ret >= 0)
				ret = fds.nr ? link_take_fd(&fds, 0) : 0;
			json_decref(answer);
			link_close_fds(&fds);
			return ret;
		}
		json_decref(answer);
		link_close_fds(&fds);
	}
}

/* question is released. */
/*
 * The gate is held until the answer is there: questions of several threads are asked one after the
 * other, so ublkd needs no queue of them.
 */
static int ask(json_t *question, int ms)
{
	int ret = -ENOTCONN;

	if (!question)
		return -ENOMEM;
	pthread_mutex_lock(&gate);
	if (socket_fd >= 0) {
		json_object_set_new(question, "id", json_integer(++last_id));
		ret = link_send(socket_fd, question, NULL, 0);
		ret = ret ? -ENOTCONN : wait_answer(last_id, ms);
	} else {
		json_decref(question);
	}
	pthread_mutex_unlock(&gate);
	return ret;
}

static int ask_open(struct instance *instance, const char *path, int flags, unsigned mode)
{
	(void)instance;
	return ask(json_pack("{s:s, s:s, s:i, s:i}", "ask", "open", "path", path, "flags", flags,
			     "mode", (int)mode),
		   ASK_MS);
}

static void ask_remove(struct instance *instance, const char *path)
{
	int ret = ask(json_pack("{s:s, s:s}", "ask", "remove", "path", path), ASK_MS);

	if (ret < 0)
		log_warning(instance->name,
			    "cannot remove %s, which was created for this "
			    "export",
			    path);
}

static int ask_connect(const struct instance *instance, const char *path)
{
	(void)instance;
	return ask(json_pack("{s:s, s:s}", "ask", "connect", "path", path), ASK_CONNECT_MS);
}

static int ask_keep_memory(struct instance *instance, unsigned flags)
{
	int fd = ask(json_pack("{s:s, s:i}", "ask", "memory", "flags", (int)flags), ASK_MS);

	(void)instance;
	if (fd < 0)
		return fd;
	/* For the next ublkd, which the service manager may not have given it to. */
	if (memory >= 0)
		close(memory);
	/*
	 * A copy of its own: the backend closes fd when it ends, and a worker that only holds the
	 * memory must keep it.
	 */
	memory = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd;
}

static void ask_keep_connection(const struct instance *instance, unsigned slot, int fd,
				uint64_t wait_ms)
{
	/*
	 * Copied, since an ublkd that starts later is sent all of them (host_remote_use()), and fd
	 * may be closed by then.
	 */
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (fd >= 0 && copy < 0) {
		log_warning(instance->name, "cannot hand a connection to ublkd: no descriptor is "
					    "left");
		return;
	}
	pthread_mutex_lock(&gate);
	if (is_kept[slot])
		close(kept[slot]);
	kept[slot] = copy;
	kept_wait_ms[slot] = wait_ms;
	is_kept[slot] = copy >= 0;
	tell_kept(slot);
	pthread_mutex_unlock(&gate);
}

const struct backend_host host_remote = {
	.open_file = ask_open,
	.remove_file = ask_remove,
	.connect_unix = ask_connect,
	.keep_memory = ask_keep_memory,
	.keep_connection = ask_keep_connection,
};
