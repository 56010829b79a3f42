/* SPDX-License-Identifier: MIT */
/*
 * Key and certificate files, checked before the server is asked: libnbd reports a file that it
 * cannot read as a failed handshake, or does without it and trusts the system's authorities. No
 * message shows any of a file's content.
 *
 * The kernel's TLS: Documentation/networking/tls.rst.
 */
#include "backends/nbd/tls.h"
#include "backends/nbd/server.h"
#include "backends/nbd/uri.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

/* RFC 8446, B.1 to B.3: types of records and of handshake messages, and the alert at the end. */
#define RECORD_ALERT       21u
#define RECORD_HANDSHAKE   22u
#define MESSAGE_KEY_UPDATE 24u
#define ALERT_CLOSE_NOTIFY 0u

/* 0: it can be read; -ENOENT: it is not there; another -errno with err filled. */
static int check_file(const char *directory, const char *name, struct error *err)
{
	char path[4096];
	int fd, code;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	/* O_NONBLOCK: a FIFO of that name must not stop us. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	code = errno;
	if (fd >= 0)
		close(fd);
	else if (code != ENOENT)
		return error_set(err, code, "tls-certificates: '%s': %s", path, strerror(code));
	return fd >= 0 ? 0 : -ENOENT;
}

int nbd_tls_check_directory(const char *about, const char *path, struct error *err)
{
	static const char *const names[] = { "ca-cert.pem", "client-cert.pem", "client-key.pem" };
	bool has[3];
	struct stat st;

	if (stat(path, &st))
		return error_set(err, errno, "tls-certificates: '%s': %s", path,
				 errno == ENOENT ? "no such directory" : strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return error_set(err, ENOTDIR,
				 "tls-certificates: '%s' is not a directory: use the directory of "
				 "ca-cert.pem",
				 path);
	for (unsigned i = 0; i < 3; i++) {
		int ret = check_file(path, names[i], err);

		if (ret && ret != -ENOENT)
			return ret;
		has[i] = !ret;
	}
	if (!has[0] && !has[1] && !has[2])
		return error_set(err, ENOENT,
				 "tls-certificates: '%s' has neither ca-cert.pem nor "
				 "client-cert.pem and client-key.pem",
				 path);
	if (has[1] != has[2])
		return error_set(err, ENOENT,
				 "tls-certificates: '%s' has %s and no %s: put both there, or "
				 "neither",
				 path, has[1] ? names[1] : names[2], has[1] ? names[2] : names[1]);
	if (!has[0])
		log_warning(about,
			    "tls-certificates: '%s' has no ca-cert.pem: trusting the system's "
			    "certificate authorities",
			    path);
	return 0;
}

int nbd_tls_check_keys(const char *path, const char *user, struct error *err)
{
	size_t length = user ? strlen(user) : 0;
	char line[LINE_MAX_BYTES];
	bool any = false, found = false;
	struct stat st;
	FILE *f = fopen(path, "re");

	if (!f || fstat(fileno(f), &st)) {
		int code = errno;

		if (f)
			fclose(f);
		return error_set(err, code, "tls-psk-file: '%s': %s", path, strerror(code));
	}
	if (S_ISDIR(st.st_mode)) {
		fclose(f);
		return error_set(err, EISDIR, "tls-psk-file: '%s' is a directory", path);
	}
	while (!found && fgets(line, sizeof(line), f)) {
		const char *colon = strchr(line, ':');

		any |= colon && colon != line;
		found = colon && (!user || ((size_t)(colon - line) == length &&
					    !memcmp(line, user, length)));
	}
	explicit_bzero(line, sizeof(line));
	fclose(f);
	if (!any)
		return error_set(err, EINVAL,
				 "tls-psk-file: '%s' has no key: it needs lines of USER:KEY, as "
				 "psktool writes them",
				 path);
	if (!found)
		return error_set(err, EINVAL,
				 "tls-psk-file: '%s' has no key for user '%s': use another -o "
				 "tls-username",
				 path, user);
	return 0;
}

int nbd_tls_check(const struct instance *instance, struct error *err)
{
	const char *keys, *certificates;
	struct nbd_handle *h;
	struct nbd_uri uri;
	char *user;
	int ret = nbd_uri_parse(instance->uri, &uri, err);

	if (ret)
		return ret;
	nbd_server_tls_files(instance, &uri, &keys, &certificates);
	if (keys) {
		/* libnbd knows whose key it will use where nobody says. */
		h = nbd_server_handle(instance, err);
		user = h && !nbd_server_set_uri(h, &uri) ? nbd_get_tls_username(h) : NULL;
		ret = h ? nbd_tls_check_keys(keys, user, err) : -err->code;
		free(user);
		nbd_close(h);
	} else if (certificates) {
		ret = nbd_tls_check_directory(instance->name, certificates, err);
	}
	nbd_uri_free(&uri);
	return ret;
}

/* ---- the kernel's TLS ---- */

/* Without room for it the kernel does not tell the key. */
static bool has_keys(int fd, int direction)
{
	struct tls_crypto_info info;
	socklen_t length = sizeof(info);

	return !getsockopt(fd, SOL_TLS, direction, &info, &length);
}

bool nbd_tls_is_kernels(int fd)
{
	char name[16] = "";
	socklen_t length = sizeof(name) - 1;

	return !getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &length) && !strcmp(name, "tls") &&
	       has_keys(fd, TLS_TX) && has_keys(fd, TLS_RX);
}

/* The type of the next record, with its first bytes; 0: there is none, or it is data. */
static unsigned take_record(int fd, unsigned char *data, size_t size)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(unsigned char))];
	} control;
	struct iovec piece = { data, size };
	struct msghdr m = { .msg_iov = &piece,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;

	if (recvmsg(fd, &m, MSG_DONTWAIT) <= 0)
		return 0;
	c = CMSG_FIRSTHDR(&m);
	return c && c->cmsg_level == SOL_TLS && c->cmsg_type == TLS_GET_RECORD_TYPE ? *CMSG_DATA(c)
										    : 0;
}

void nbd_tls_explain(int fd, int code, char *out, size_t size)
{
	unsigned char data[16] = { 0 };
	/* EIO: the kernel keeps a record that is no data for a call that asks for its type. */
	unsigned type = code == EIO ? take_record(fd, data, sizeof(data)) : 0;

	if (type == RECORD_ALERT && data[1] == ALERT_CLOSE_NOTIFY)
		snprintf(out, size, "the server ended TLS");
	else if (type == RECORD_ALERT)
		snprintf(out, size, "the server ended TLS with alert %u", data[1]);
	else if (type == RECORD_HANDSHAKE && data[0] == MESSAGE_KEY_UPDATE)
		snprintf(out, size, "the server has changed its TLS key");
	else if (type)
		snprintf(out, size, "the server sent a TLS record of type %u", type);
	else if (code == EBADMSG)
		snprintf(out, size, "what came from the server cannot be decrypted");
	else
		snprintf(out, size, "receiving: %s", strerror(code));
}
