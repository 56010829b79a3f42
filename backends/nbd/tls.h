/* SPDX-License-Identifier: MIT */
/*
 * The key and certificate files that an export's options and URI name.  libnbd leaves
 * out what it cannot read, or reports it in its TLS library's words after the server was
 * reached; here each is checked before, and named.
 *
 * And sockets whose TLS the kernel does (kTLS). libnbd's TLS library, GnuTLS, makes them so once
 * the handshake is over, if it was built for that and the system's configuration says so. From
 * then on GnuTLS keeps nothing of the stream: gnutls_record_recv() and gnutls_record_send() are
 * recvmsg() and send() of the socket (its lib/record.c, lib/system/ktls.c), and what has come and
 * was not read is the kernel's. So whoever has the socket may go on with it between any two calls
 * of libnbd's, and libnbd afterwards.
 */
#ifndef UBLKD_NBD_TLS_H
#define UBLKD_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct error;
struct instance;

/*
 * Reads the files.  Returns 0, also without TLS, or -errno with err filled.  Any thread
 * that may wait for a file system.
 */
int nbd_tls_check(const struct instance *instance, struct error *err);

/*
 * The same for a directory of certificates (about: the export that a warning names), and
 * for a file of pre-shared keys with one for user (NULL: for anybody).
 */
int nbd_tls_check_directory(const char *about, const char *path, struct error *err);
int nbd_tls_check_keys(const char *path, const char *user, struct error *err);

/* Whether the kernel does a socket's TLS, in both directions. Any thread. */
bool nbd_tls_is_kernels(int fd);

/*
 * Why receiving on such a socket has failed, with an errno (positive), in words: it takes the
 * record that is no data off the socket, which must not be used afterwards. Does not wait.
 */
void nbd_tls_explain(int fd, int code, char *out, size_t size);

#endif
