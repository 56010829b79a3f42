/* SPDX-License-Identifier: MIT */
/*
 * The resolver thread, and the lookups that wait for it.
 *
 * A resolver is shared by its owner and its thread, and the last of the two frees it:
 * the owner never waits for the thread, which may sit in getaddrinfo() for minutes after
 * the owner has gone.  The same holds for a lookup: it is in the resolver's list until it
 * is done, and if it is ended while the thread works on it, the thread frees it.
 *
 * One mutex guards all of this.  The thread wakes a queue with the mutex held, so that
 * nbd_lookup_end() is also the end of all uses of that queue.
 */
#include "backends/nbd/resolve.h"
#include "common/clock.h"
#include "engine/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnbd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Owner: whoever started it, or the thread once it was ended in the midst. */
struct nbd_lookup {
	struct nbd_resolver *resolver;
	struct nbd_lookup *next;
	char host[NBD_HOST_MAX], port[NBD_PORT_MAX];
	struct nbd_handle *handle;
	struct queue *wake;
	bool running, ended;
	atomic_bool done; /* found and err stay as they are from then on */
	struct nbd_addresses found;
	struct error err; /* code 0: found */
};

struct nbd_resolver {
	pthread_mutex_t mutex;
	pthread_cond_t asked, answered;
	struct nbd_lookup *waiting; /* the oldest first; the thread works on the first */
	bool quit;
	unsigned users; /* the owner and the thread */
};

/* ---- addresses ---- */

const char *nbd_address_format(const struct sockaddr_storage *at, char *out, size_t size)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)at;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)at;
	char host[INET6_ADDRSTRLEN];

	*out = 0;
	if (at->ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host)))
		snprintf(out, size, "%s:%u", host, ntohs(v4->sin_port));
	else if (at->ss_family == AF_INET6 &&
		 inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host)))
		snprintf(out, size, "[%s]:%u", host, ntohs(v6->sin6_port));
	return out;
}

/*
 * RFC 8305, 4: the families take turns, beginning with the one that the resolver
 * prefers, so that a family that leads nowhere costs one attempt and not all of them.
 */
static void take_in_turns(const struct addrinfo *all, struct nbd_addresses *found)
{
	const struct addrinfo *same = all, *other = all;
	bool turn = true; /* of the preferred family */

	found->nr = 0;
	while ((same || other) && found->nr < NBD_ADDRESSES_MAX) {
		const struct addrinfo **from;

		while (same && same->ai_family != all->ai_family)
			same = same->ai_next;
		while (other && other->ai_family == all->ai_family)
			other = other->ai_next;
		from = (turn && same) || !other ? &same : &other;
		turn = !turn;
		if (!*from)
			continue;
		if ((*from)->ai_addrlen <= sizeof(struct sockaddr_storage)) {
			struct nbd_address *a = &found->list[found->nr++];

			*a = (struct nbd_address){ .length = (*from)->ai_addrlen };
			memcpy(&a->at, (*from)->ai_addr, (*from)->ai_addrlen);
		}
		*from = (*from)->ai_next;
	}
}

static int code_of(int answer)
{
	switch (answer) {
	case EAI_AGAIN:
		return ETIMEDOUT; /* its name servers do not answer */
	case EAI_MEMORY:
		return ENOMEM;
	case EAI_SYSTEM:
		return errno && errno != EAGAIN ? errno : EIO;
	}
	return ENOENT;
}

int nbd_resolve_error(struct error *err, int code, const char *host, const char *reason)
{
	return error_set(err, code, "cannot resolve '%s': %s: %s", host, reason,
			 code == ETIMEDOUT
				 ? "check the name servers (/etc/resolv.conf) and the network"
				 : "check the name, or write the server's IP address");
}

static int resolve(const char *host, const char *port, int flags, struct nbd_addresses *found,
		   struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags }, *all;
	int answer = getaddrinfo(host, port, &hints, &all);

	if (answer)
		return nbd_resolve_error(err, code_of(answer), host,
					 answer == EAI_SYSTEM ? strerror(errno)
							      : gai_strerror(answer));
	take_in_turns(all, found);
	freeaddrinfo(all);
	return found->nr ? 0 : nbd_resolve_error(err, ENOENT, host, "the name has no address");
}

int nbd_resolve_numeric(const char *host, const char *port, struct nbd_addresses *found,
			struct error *err)
{
	return resolve(host, port, AI_NUMERICHOST | AI_NUMERICSERV, found, err);
}

/* ---- the thread ---- */

/* Mutex held; unlocks it. */
static void leave(struct nbd_resolver *r)
{
	bool last = --r->users == 0;

	pthread_mutex_unlock(&r->mutex);
	if (!last)
		return;
	pthread_cond_destroy(&r->asked);
	pthread_cond_destroy(&r->answered);
	pthread_mutex_destroy(&r->mutex);
	free(r);
}

static void free_lookup(struct nbd_lookup *l)
{
	nbd_close(l->handle);
	free(l);
}

static void remove_lookup(struct nbd_lookup *l)
{
	struct nbd_lookup **at = &l->resolver->waiting;

	while (*at && *at != l)
		at = &(*at)->next;
	if (*at)
		*at = l->next;
}

/* Mutex held. */
static void finish(struct nbd_lookup *l)
{
	remove_lookup(l);
	l->running = false;
	if (l->ended) {
		free_lookup(l);
		return;
	}
	atomic_store(&l->done, true);
	if (l->wake)
		queue_wake(l->wake);
}

/* Mutex held.  The others that wait for the same answer. */
static void share(struct nbd_resolver *r, const struct nbd_addresses *found,
		  const struct error *err, const char *host, const char *port)
{
	struct nbd_lookup *l = r->waiting, *next;

	for (; l; l = next) {
		next = l->next;
		if (l->handle || strcmp(l->host, host) != 0 || strcmp(l->port, port) != 0)
			continue;
		l->found = *found;
		l->err = *err;
		finish(l);
	}
}

/* Mutex held, but while it asks. */
static void answer_first(struct nbd_resolver *r)
{
	struct nbd_lookup *l = r->waiting;
	struct nbd_addresses found = { .nr = 0 };
	struct error err = { .code = 0 };
	char host[NBD_HOST_MAX], port[NBD_PORT_MAX];

	l->running = true;
	memcpy(host, l->host, sizeof(host));
	memcpy(port, l->port, sizeof(port));
	pthread_mutex_unlock(&r->mutex);
	if (!l->handle)
		resolve(host, port, AI_NUMERICSERV, &found, &err);
	else if (nbd_aio_connect_tcp(l->handle, host, port))
		/* connect.c, which knows the server, explains it. */
		error_set(&err, nbd_get_errno() ? nbd_get_errno() : EIO, "%s",
			  nbd_get_error() ? nbd_get_error() : "no reason given");
	pthread_mutex_lock(&r->mutex);
	if (l->handle) {
		l->err = err;
		finish(l);
	} else {
		share(r, &found, &err, host, port);
	}
	pthread_cond_broadcast(&r->answered);
}

/* Ends only between two lookups: getaddrinfo(3) cannot be interrupted. */
static void *resolver_main(void *arg)
{
	struct nbd_resolver *r = arg;

	pthread_mutex_lock(&r->mutex);
	while (!r->quit) {
		if (r->waiting)
			answer_first(r);
		else
			pthread_cond_wait(&r->asked, &r->mutex);
	}
	leave(r);
	return NULL;
}

struct nbd_resolver *nbd_resolver_create(struct error *err)
{
	struct nbd_resolver *r = calloc(1, sizeof(*r));
	sigset_t all, before;
	pthread_t thread;
	int ret;

	if (!r) {
		error_set(err, ENOMEM, "no memory");
		return NULL;
	}
	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->asked, NULL);
	clock_condition(&r->answered);
	r->users = 2;
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&thread, NULL, resolver_main, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret) {
		error_set(err, ret, "cannot start the resolver's thread: %s", strerror(ret));
		r->users = 1;
		pthread_mutex_lock(&r->mutex);
		leave(r);
		return NULL;
	}
	pthread_detach(thread);
	return r;
}

void nbd_resolver_release(struct nbd_resolver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->mutex);
	r->quit = true;
	pthread_cond_signal(&r->asked);
	leave(r);
}

/* ---- lookups ---- */

struct nbd_lookup *nbd_lookup_start(struct nbd_resolver *r, const char *host, const char *port,
				    struct nbd_handle *handle, struct queue *wake)
{
	struct nbd_lookup *l = calloc(1, sizeof(*l)), **last;

	if (!l)
		return NULL;
	l->resolver = r;
	l->handle = handle;
	l->wake = wake;
	snprintf(l->host, sizeof(l->host), "%s", host);
	snprintf(l->port, sizeof(l->port), "%s", port);
	pthread_mutex_lock(&r->mutex);
	for (last = &r->waiting; *last; last = &(*last)->next)
		;
	*last = l;
	pthread_cond_signal(&r->asked);
	pthread_mutex_unlock(&r->mutex);
	return l;
}

int nbd_lookup_result(struct nbd_lookup *l, struct nbd_addresses *found, struct error *err)
{
	if (!atomic_load(&l->done))
		return -EAGAIN;
	*err = l->err;
	*found = l->found;
	return -err->code;
}

const char *nbd_lookup_host(const struct nbd_lookup *l)
{
	return l->host;
}

bool nbd_lookup_wait(struct nbd_lookup *l, unsigned ms)
{
	struct timespec until = clock_in_ms(ms);

	pthread_mutex_lock(&l->resolver->mutex);
	while (!atomic_load(&l->done))
		if (pthread_cond_timedwait(&l->resolver->answered, &l->resolver->mutex, &until))
			break;
	pthread_mutex_unlock(&l->resolver->mutex);
	return atomic_load(&l->done);
}

struct nbd_handle *nbd_lookup_take(struct nbd_lookup *l)
{
	struct nbd_handle *handle = l->handle;

	l->handle = NULL;
	return handle;
}

void nbd_lookup_end(struct nbd_lookup *l)
{
	struct nbd_resolver *r;

	if (!l)
		return;
	r = l->resolver;
	pthread_mutex_lock(&r->mutex);
	if (l->running) {
		l->ended = true;
	} else {
		remove_lookup(l);
		free_lookup(l);
	}
	pthread_mutex_unlock(&r->mutex);
}
