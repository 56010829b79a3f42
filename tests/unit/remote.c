/* SPDX-License-Identifier: MIT */
#include "tests/unit/remote.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PATIENCE_MS 20000

static struct sockaddr_un at = { .sun_family = AF_UNIX };
static pid_t server;

static bool answers(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool connected = !connect(fd, (const struct sockaddr *)&at, sizeof(at));

	close(fd);
	return connected;
}

/* Whether the server has ended, within so many milliseconds. */
static bool has_ended(unsigned ms)
{
	for (unsigned i = 0; i <= ms; i++) {
		if (waitpid(server, NULL, WNOHANG) == server) {
			server = 0;
			return true;
		}
		if (i < ms)
			sleep_us(1000);
	}
	return false;
}

const char *remote_start(const char *socket, const char *const *words)
{
	const char *argv[20] = { "nbdkit", "--exit-with-parent", "--unix", at.sun_path };
	int ret;

	if (snprintf(at.sun_path, sizeof(at.sun_path), "%s", socket) >= (int)sizeof(at.sun_path))
		fail_msg("%s: too long a name for a socket: set TMPDIR", socket);
	for (unsigned i = 0; i < 14 && words[i]; i++)
		argv[4 + i] = words[i];
	unlink(at.sun_path);
	ret = posix_spawnp(&server, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ);
	if (ret) {
		server = 0;
		if (ret != ENOENT)
			fail_msg("nbdkit: %s", strerror(ret));
		return NULL;
	}
	for (unsigned ms = 0; !answers(); ms++) {
		if (has_ended(1))
			fail_msg("nbdkit has ended");
		if (ms > PATIENCE_MS)
			fail_msg("nbdkit does not answer");
	}
	return at.sun_path;
}

const char *remote_file(const char *path)
{
	const char *const words[] = { "file", path, NULL };
	char socket[sizeof(at.sun_path) + 1];

	if (server)
		return at.sun_path;
	snprintf(socket, sizeof(socket), "%s.socket", path);
	return remote_start(socket, words);
}

void remote_freeze(bool on)
{
	int status;

	if (!server)
		return;
	kill(server, on ? SIGSTOP : SIGCONT);
	/* Its threads go on for a while, unless that is waited for. */
	if (on && waitpid(server, &status, WUNTRACED) == server && !WIFSTOPPED(status))
		server = 0;
}

void remote_kill(void)
{
	if (!server)
		return;
	kill(server, SIGKILL);
	if (!has_ended(PATIENCE_MS))
		fail_msg("nbdkit does not end");
}

void remote_end(void)
{
	if (!server)
		return;
	kill(server, SIGTERM);
	if (!has_ended(PATIENCE_MS))
		remote_kill();
}
