/* SPDX-License-Identifier: MIT */
/*
 * ktls: stands for a GnuTLS that was built with --enable-ktls, which Debian's is not.  Loaded by
 * LD_PRELOAD into a program that uses GnuTLS.
 *
 * After a handshake it gives the session's keys to the kernel, as lib/system/ktls.c of GnuTLS
 * 3.8.9 does.  From then on sending and receiving are system calls, and GnuTLS is not asked.
 *
 * KTLS in the environment:
 *   tx           the kernel does sending alone
 *   say=FILE     before the next data is sent and while FILE is there, it is removed and a
 *                record that is no data is sent: its bytes, of which the first is the type
 */
#include "tests/lib/tls-record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* gnutls/gnutls.h, without the need for it. */
#define E_AGAIN         (-28)
#define E_INTERRUPTED   (-52)
#define E_PUSH_ERROR    (-53)
#define E_PULL_ERROR    (-54)
#define E_PREMATURE_END (-110)
#define PROTOCOL_TLS1_3 5

struct datum {
	unsigned char *data;
	unsigned int size;
};

#define SESSIONS 1024
/* By the socket: which directions the kernel does, for which session. */
static struct {
	void *session;
	bool tx, rx;
} sessions[SESSIONS];

static const char *setting;

static __attribute__((constructor)) void begin(void)
{
	setting = getenv("KTLS");
	if (!setting)
		setting = "";
}

static void *next(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (!function)
		abort();
	return function;
}

/* The socket whose TLS the kernel does in that direction; -1: none. */
static int socket_of(void *session, bool tx)
{
	int (*get_int)(void *) = (int (*)(void *))next("gnutls_transport_get_int");
	int fd = get_int(session);

	if (fd < 0 || fd >= SESSIONS || sessions[fd].session != session)
		return -1;
	return (tx ? sessions[fd].tx : sessions[fd].rx) ? fd : -1;
}

struct ktls_cipher {
	int gnutls; /* gnutls_cipher_algorithm_t */
	unsigned short kernel;
	size_t salt, size; /* of the kernel's structure: info, iv, key, salt, rec_seq */
};

static const struct ktls_cipher ciphers[] = {
	{ 10, TLS_CIPHER_AES_GCM_128, TLS_CIPHER_AES_GCM_128_SALT_SIZE,
	  sizeof(struct tls12_crypto_info_aes_gcm_128) },
	{ 11, TLS_CIPHER_AES_GCM_256, TLS_CIPHER_AES_GCM_256_SALT_SIZE,
	  sizeof(struct tls12_crypto_info_aes_gcm_256) },
	{ 23, TLS_CIPHER_CHACHA20_POLY1305, TLS_CIPHER_CHACHA20_POLY1305_SALT_SIZE,
	  sizeof(struct tls12_crypto_info_chacha20_poly1305) },
};

static const struct ktls_cipher *cipher_of(void *session)
{
	int (*get_cipher)(void *) = (int (*)(void *))next("gnutls_cipher_get");
	int (*get_version)(void *) = (int (*)(void *))next("gnutls_protocol_get_version");

	for (unsigned i = 0; i < sizeof(ciphers) / sizeof(*ciphers); i++)
		if (ciphers[i].gnutls == get_cipher(session) &&
		    get_version(session) == PROTOCOL_TLS1_3)
			return &ciphers[i];
	fprintf(stderr, "ktls: cipher %d of TLS version %d is unknown here\n", get_cipher(session),
		get_version(session));
	return NULL;
}

static int set_keys(void *session, int fd, bool tx)
{
	int (*get_state)(void *, unsigned, struct datum *, struct datum *, struct datum *,
			 unsigned char *) =
		(int (*)(void *, unsigned, struct datum *, struct datum *, struct datum *,
			 unsigned char *))next("gnutls_record_get_state");
	const struct ktls_cipher *cipher = cipher_of(session);
	unsigned char keys[128], *at = keys + sizeof(struct tls_crypto_info), number[8];
	struct tls_crypto_info info = { .version = TLS_1_3_VERSION };
	struct datum mac, iv, key;

	if (!cipher || get_state(session, !tx, &mac, &iv, &key, number) < 0)
		return -1;
	info.cipher_type = cipher->kernel;
	memcpy(keys, &info, sizeof(info));
	at = mempcpy(at, iv.data + cipher->salt, iv.size - cipher->salt);
	at = mempcpy(at, key.data, key.size);
	at = mempcpy(at, iv.data, cipher->salt);
	at = mempcpy(at, number, sizeof(number));
	if ((size_t)(at - keys) != cipher->size)
		abort();
	if (!setsockopt(fd, SOL_TLS, tx ? TLS_TX : TLS_RX, keys, (socklen_t)cipher->size))
		return 0;
	fprintf(stderr, "ktls: the kernel refuses cipher %d: %s\n", cipher->gnutls,
		strerror(errno));
	return -1;
}

int gnutls_handshake(void *session);
int gnutls_handshake(void *session)
{
	int (*real)(void *) = (int (*)(void *))next("gnutls_handshake");
	int (*get_int)(void *) = (int (*)(void *))next("gnutls_transport_get_int");
	int ret = real(session), fd = get_int(session);

	if (ret || fd < 0 || fd >= SESSIONS)
		return ret;
	memset(&sessions[fd], 0, sizeof(sessions[fd]));
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"))) {
		fprintf(stderr, "ktls: no TLS in this kernel: %s\n", strerror(errno));
		return ret;
	}
	sessions[fd].session = session;
	sessions[fd].rx = strcmp(setting, "tx") != 0 && !set_keys(session, fd, false);
	sessions[fd].tx = !set_keys(session, fd, true);
	fprintf(stderr, "ktls: tx %d rx %d\n", sessions[fd].tx, sessions[fd].rx);
	return ret;
}

static void say(int fd)
{
	unsigned char bytes[64];
	ssize_t n;
	int file;

	if (strncmp(setting, "say=", 4) != 0)
		return;
	file = open(setting + 4, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return;
	unlink(setting + 4);
	n = read(file, bytes, sizeof(bytes));
	close(file);
	if (n < 2 || send_record(fd, bytes[0], bytes + 1, (size_t)n - 1) != n - 1)
		fprintf(stderr, "ktls: it is not said\n");
}

ssize_t gnutls_record_send(void *session, const void *data, size_t size);
ssize_t gnutls_record_send(void *session, const void *data, size_t size)
{
	int fd = socket_of(session, true);
	ssize_t n;

	if (fd < 0)
		return ((ssize_t(*)(void *, const void *, size_t))next("gnutls_record_send"))(
			session, data, size);
	say(fd);
	n = send(fd, data, size, MSG_NOSIGNAL);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? E_AGAIN : errno == EINTR ? E_INTERRUPTED : E_PUSH_ERROR;
}

ssize_t gnutls_record_recv(void *session, void *data, size_t size);
ssize_t gnutls_record_recv(void *session, void *data, size_t size)
{
	int fd = socket_of(session, false);
	ssize_t n;

	if (fd < 0)
		return ((ssize_t(*)(void *, void *, size_t))next("gnutls_record_recv"))(session,
											data, size);
	n = recv(fd, data, size, 0);
	if (n >= 0)
		return n;
	return errno == EAGAIN       ? E_AGAIN
	       : errno == EINTR      ? E_INTERRUPTED
	       : errno == ECONNRESET ? E_PREMATURE_END
				     : E_PULL_ERROR;
}

size_t gnutls_record_check_pending(void *session);
size_t gnutls_record_check_pending(void *session)
{
	if (socket_of(session, false) >= 0)
		return 0;
	return ((size_t(*)(void *))next("gnutls_record_check_pending"))(session);
}

void gnutls_record_cork(void *session);
void gnutls_record_cork(void *session)
{
	if (socket_of(session, true) < 0)
		((void (*)(void *))next("gnutls_record_cork"))(session);
}

int gnutls_record_uncork(void *session, unsigned flags);
int gnutls_record_uncork(void *session, unsigned flags)
{
	if (socket_of(session, true) >= 0)
		return 0;
	return ((int (*)(void *, unsigned))next("gnutls_record_uncork"))(session, flags);
}

/* The end is said; an answer is not waited for. */
int gnutls_bye(void *session, int how);
int gnutls_bye(void *session, int how)
{
	static const unsigned char close_notify[] = { 1, 0 };
	int fd = socket_of(session, true);

	if (fd < 0)
		return ((int (*)(void *, int))next("gnutls_bye"))(session, how);
	send_record(fd, 21, close_notify, sizeof(close_notify));
	return 0;
}

void gnutls_deinit(void *session);
void gnutls_deinit(void *session)
{
	for (unsigned i = 0; i < SESSIONS; i++)
		if (sessions[i].session == session)
			sessions[i].session = NULL;
	((void (*)(void *))next("gnutls_deinit"))(session);
}
