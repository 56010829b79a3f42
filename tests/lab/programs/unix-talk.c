/* SPDX-License-Identifier: MIT */
/*
 * unix-talk: a client of a Unix stream socket that does as it is told, and not as the
 * other side would like it.
 *
 *   unix-talk [OPTIONS] SOCKET <REQUEST >REPLY
 *     --connections N   so many, one after the other; all get the request
 *     --deaf MS         reads nothing for so long after sending
 *     --wait MS         goes when nothing has come for so long (default 2000; -1: never)
 *     --replies N       goes when so many have come
 *
 * It sends as much as is taken, then prints what comes on any connection, until each
 * is closed by the other side or the wait is over.  Exit status: 0, 1 where it cannot
 * connect, 3 where all were closed by the other side.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define TAKEN_MS        3000 /* who takes nothing for so long will not */

static struct pollfd links[CONNECTIONS_MAX];
static int nr_links;
static unsigned long replies_wanted;

static int connect_all(const char *path, int nr)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	for (; nr_links < nr; nr_links++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
			fprintf(stderr, "unix-talk: %s: %s\n", path, strerror(errno));
			return -1;
		}
		links[nr_links] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	return 0;
}

static void send_all(const char *data, size_t size)
{
	for (int i = 0; i < nr_links; i++) {
		struct pollfd ready = { .fd = links[i].fd, .events = POLLOUT };
		size_t sent = 0;

		while (sent < size && poll(&ready, 1, TAKEN_MS) > 0) {
			ssize_t n = send(ready.fd, data + sent, size - sent, MSG_DONTWAIT);

			if (n < 0 && errno == EAGAIN)
				continue;
			if (n < 0)
				break;
			sent += (size_t)n;
		}
	}
}

/* Returns the number of connections that are open still. */
static int print_replies(int wait_ms)
{
	static char data[65536];
	unsigned long replies = 0;
	int open = nr_links;

	while (open && (!replies_wanted || replies < replies_wanted) &&
	       poll(links, (nfds_t)nr_links, wait_ms) > 0) {
		for (int i = 0; i < nr_links; i++) {
			ssize_t n;

			if (!links[i].revents)
				continue;
			n = read(links[i].fd, data, sizeof(data));
			if (n > 0) {
				fwrite(data, 1, (size_t)n, stdout);
				fflush(stdout);
				for (ssize_t at = 0; at < n; at++)
					replies += !data[at];
			} else {
				close(links[i].fd);
				links[i].fd = -1;
				open--;
			}
		}
	}
	return open;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "connections", required_argument, NULL, 'c' },
		{ "deaf", required_argument, NULL, 'd' },
		{ "wait", required_argument, NULL, 'w' },
		{ "replies", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	int c, nr = 1, deaf_ms = 0, wait_ms = 2000;
	size_t size = 0, room = 1 << 20, n;
	char *data = malloc(room);

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			nr = atoi(optarg);
			break;
		case 'd':
			deaf_ms = atoi(optarg);
			break;
		case 'w':
			wait_ms = atoi(optarg);
			break;
		case 'r':
			replies_wanted = strtoul(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || nr < 1 || nr > CONNECTIONS_MAX)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	while (data && (n = fread(data + size, 1, room - size, stdin)) > 0) {
		size += n;
		if (size == room)
			data = realloc(data, room *= 2);
	}
	if (!data)
		return 2;
	if (connect_all(argv[optind], nr))
		return 1;
	send_all(data, size);
	if (deaf_ms)
		poll(NULL, 0, deaf_ms);
	return print_replies(wait_ms) ? 0 : 3;
}
