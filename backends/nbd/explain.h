/* SPDX-License-Identifier: MIT */
/*
 * libnbd's errors in the user's terms: the server's place, the cause, and a cure. libnbd says
 * what its state machine met ("handshake: server refused TLS, but handle TLS setting is
 * 'require'"), and cannot know which word of the URI or option the user has to change.
 *
 * Causes are found by the text: libnbd has no codes for them (most have errno 0). A text that is
 * not known, of another release, is shown as it is.
 */
#ifndef UBLKD_NBD_EXPLAIN_H
#define UBLKD_NBD_EXPLAIN_H

#include "engine/backend.h"

/*
 * Where a connection leads: "192.0.2.1:10809", or a socket's path. fd: its socket; -1, or one
 * that is not connected yet: as the URI says it. Printable; returns out.
 */
const char *nbd_place(const struct instance *instance, int fd, char *out, size_t size);
#define NBD_PLACE_TEXT 160

/* The URI's scheme with TLS in place of one without, or the other way round. Returns out. */
const char *nbd_other_scheme(const struct instance *instance, char *out, size_t size);
#define NBD_SCHEME_TEXT 16

/* libnbd's last error on this thread, without the name of its function; never NULL. */
const char *nbd_last_text(void);

/*
 * Why the connection to `where` failed before it could be used, in err. code, text: libnbd's
 * errno (0: none) and text. Returns -errno.
 */
int nbd_explain(struct error *err, const struct instance *instance, const char *where, int code,
		const char *text);
/* The same with libnbd's last error on this thread. */
int nbd_explain_last(struct error *err, const struct instance *instance, const char *where);

/* Why a connection that was in use ended, from libnbd's last error on this thread. */
int nbd_explain_loss(struct error *err);

#endif
