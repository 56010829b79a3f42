/* SPDX-License-Identifier: MIT */
/*
 * Each address has one non-blocking connect(2). nbd_dial_step() polls those that are under way,
 * takes the first that is connected, and begins the next address NBD_DIAL_APART_MS after the one
 * before, or at once when one has failed. So an address that is dead costs one interval, and not
 * TCP's time-out of minutes.
 */
#include "backends/nbd/dial.h"
#include "common/error.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static bool is_same(const struct nbd_address *a, const struct nbd_address *b)
{
	return a->length == b->length && !memcmp(&a->at, &b->at, a->length);
}

void nbd_dial_begin(struct nbd_dial *d, const struct nbd_addresses *addresses,
		    const struct nbd_address *last)
{
	unsigned nr = 0;

	*d = (struct nbd_dial){ .error = 0 };
	/* Two passes keep the resolver's order and move `last` to the end. */
	for (unsigned end = 0; end < 2; end++)
		for (unsigned i = 0; i < addresses->nr; i++)
			if ((last && is_same(&addresses->list[i], last)) == (end == 1))
				d->addresses.list[nr++] = addresses->list[i];
	d->addresses.nr = nr;
	for (unsigned i = 0; i < nr; i++)
		d->fds[i] = -1;
}

/* The last error is the one that is reported, when no address is left. */
static void fail(struct nbd_dial *d, unsigned i, int error)
{
	if (d->fds[i] >= 0)
		close(d->fds[i]);
	d->fds[i] = -1;
	d->error = error;
	d->failed = i;
	/* The next one need not wait for its turn. */
	d->next_ms = 0;
}

static void try_address(struct nbd_dial *d, unsigned i, uint64_t now_ms)
{
	const struct nbd_address *a = &d->addresses.list[i];
	int on = 1;

	d->tried[i] = true;
	d->fds[i] = socket(a->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fds[i] < 0) {
		fail(d, i, errno);
		return;
	}
	/* As libnbd does on the sockets that it makes. */
	setsockopt(d->fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(d->fds[i], (const struct sockaddr *)&a->at, a->length) && errno != EINPROGRESS)
		fail(d, i, errno);
	else
		d->next_ms = now_ms + NBD_DIAL_APART_MS;
}

/* Whether the attempt has succeeded; one that has failed is closed. */
static bool is_connected(struct nbd_dial *d, unsigned i)
{
	struct pollfd fd = { .fd = d->fds[i], .events = POLLOUT };
	socklen_t length = sizeof(int);
	int error = 0;

	if (d->fds[i] < 0 || poll(&fd, 1, 0) != 1)
		return false;
	if (getsockopt(d->fds[i], SOL_SOCKET, SO_ERROR, &error, &length))
		error = errno;
	if (error)
		fail(d, i, error);
	return !error;
}

static int take(struct nbd_dial *d, unsigned i, struct nbd_address *winner)
{
	int fd = d->fds[i];

	d->fds[i] = -1;
	*winner = d->addresses.list[i];
	/* The others count as not tried: if the winner does not negotiate, they have their turn. */
	for (unsigned other = 0; other < d->addresses.nr; other++)
		if (d->fds[other] >= 0) {
			close(d->fds[other]);
			d->fds[other] = -1;
			d->tried[other] = false;
		}
	d->next_ms = 0;
	return fd;
}

static unsigned first_left(const struct nbd_dial *d)
{
	unsigned i = 0;

	while (i < d->addresses.nr && d->tried[i])
		i++;
	return i;
}

static bool is_under_way(const struct nbd_dial *d)
{
	for (unsigned i = 0; i < d->addresses.nr; i++)
		if (d->fds[i] >= 0)
			return true;
	return false;
}

int nbd_dial_step(struct nbd_dial *d, uint64_t now_ms, struct nbd_address *winner,
		  struct error *err)
{
	char text[NBD_ADDRESS_TEXT];
	unsigned next;

	for (;;) {
		for (unsigned i = 0; i < d->addresses.nr; i++)
			if (is_connected(d, i))
				return take(d, i, winner);
		next = first_left(d);
		if (next == d->addresses.nr || now_ms < d->next_ms)
			break;
		try_address(d, next, now_ms);
	}
	if (is_under_way(d) || next < d->addresses.nr)
		return -EAGAIN;
	if (!d->error)
		return error_set(err, EHOSTUNREACH, "cannot connect: no address is left");
	nbd_address_format(&d->addresses.list[d->failed].at, text, sizeof(text));
	return nbd_dial_error(err, text, d->error == EAGAIN ? EIO : d->error);
}

int nbd_dial_error(struct error *err, const char *where, int code)
{
	const char *what = *where == '/' ? "path" : "port";

	switch (code) {
	case ECONNREFUSED:
		return error_set(err, code,
				 "%s refuses connections: is the NBD server running there, and is "
				 "the %s right?",
				 where, what);
	case ENOENT:
		return error_set(err, code,
				 "%s: there is no such socket: is the NBD server running, and is "
				 "the path right?",
				 where);
	case ETIMEDOUT:
		return error_set(err, code,
				 "%s does not answer: check the network and the server's firewall",
				 where);
	case ENETUNREACH:
	case EHOSTUNREACH:
		return error_set(err, code, "%s cannot be reached (%s): check the network", where,
				 strerror(code));
	}
	return error_set(err, code, "cannot connect to %s: %s", where, strerror(code));
}

void nbd_dial_wait(const struct nbd_dial *d, unsigned ms)
{
	struct pollfd fds[NBD_ADDRESSES_MAX];

	for (unsigned i = 0; i < d->addresses.nr; i++)
		fds[i] = (struct pollfd){ .fd = d->fds[i], .events = POLLOUT };
	if (nbd_dial_left(d) && ms > NBD_DIAL_APART_MS / 5)
		ms = NBD_DIAL_APART_MS / 5;
	poll(fds, d->addresses.nr, (int)ms);
}

unsigned nbd_dial_left(const struct nbd_dial *d)
{
	unsigned left = 0;

	for (unsigned i = 0; i < d->addresses.nr; i++)
		left += !d->tried[i];
	return left;
}

void nbd_dial_end(struct nbd_dial *d)
{
	for (unsigned i = 0; i < d->addresses.nr; i++) {
		if (d->fds[i] >= 0)
			close(d->fds[i]);
		d->fds[i] = -1;
	}
}
