/* SPDX-License-Identifier: MIT */
/*
 * The key and certificate files that an export's options and URI name.  libnbd leaves
 * out what it cannot read, or reports it in its TLS library's words after the server was
 * reached; here each is checked before, and named.
 */
#ifndef UBLKD_NBD_TLS_H
#define UBLKD_NBD_TLS_H

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

#endif
