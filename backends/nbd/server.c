/* SPDX-License-Identifier: MIT */
/*
 * A server as libnbd sees it: the handle's set-up (URI, TLS), what the server said of its export
 * (struct nbd_facts), and what that means for the device (limits).
 *
 * Facts are checked here, once, and nowhere else: libnbd hands on what the server sent, and a
 * server may send anything. A fact that makes no sense is an error with the server's word in it,
 * not a limit that the kernel refuses later.
 *
 * nbd_facts_match() decides whether a server that is reached again still has the device's export:
 * smaller, without flush or with coarser blocks it is another one, and nothing is sent to it.
 *
 * TLS takes most of the lines: which files are needed and readable is found out before anything
 * is connected, since libnbd reports a missing key as a failed handshake.
 */
#include "backends/nbd/server.h"
#include "backends/nbd/explain.h"
#include "backends/nbd/resolve.h"
#include "backends/nbd/uri.h"
#include "common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* NBD protocol, "Block size constraints": what holds where a server says nothing. */
#define DEFAULT_MAX_BLOCK (32u << 20)
#define PAGE              4096u
/*
 * A trim or zeroing carries no data, so no block size bounds it.  But a server that writes
 * zeroes as data is silent meanwhile, and what waits behind it does so, too: with 25 MB/s
 * for 40 s over 1 GiB, for less than 3 s over this.  Larger ones spare nothing: the
 * kernel has many of them under way at the same time.
 */
#define MAX_RANGE (64u << 20)
/* Limits of a device that an earlier release may have made. */
#define MAX_RANGE_RESUMED (1u << 30)

static const char *const tls_modes[] = { "off", "on", "require" };
enum tls_mode {
	TLS_OFF,
	TLS_ON,
	TLS_REQUIRE
};

static bool scheme_is_tls(const struct instance *instance)
{
	return !strncmp(instance->uri, "nbds", 4);
}

static const char *text_of(const struct instance *instance, const char *name)
{
	return instance_option(instance, name)->text;
}

/* The URI goes before the option of the same meaning. */
static const char *psk_file(const struct instance *instance, const struct nbd_uri *uri)
{
	return uri->tls_psk_file ? uri->tls_psk_file : text_of(instance, "tls-psk-file");
}

static const char *certificates(const struct instance *instance, const struct nbd_uri *uri)
{
	return uri->tls_certificates ? uri->tls_certificates
				     : text_of(instance, "tls-certificates");
}

static bool uses_tls(const struct instance *instance)
{
	return scheme_is_tls(instance) || instance_option(instance, "tls")->word > TLS_OFF;
}

/*
 * CVE-2024-7383: before these releases libnbd did not check a server's
 * certificate in several cases (libnbd-security(3)).
 */
static bool certificates_are_checked(void)
{
	struct nbd_handle *h = nbd_create();
	unsigned major = 0, minor = 0, micro = 0;

	if (!h)
		return false;
	if (sscanf(nbd_get_version(h), "%u.%u.%u", &major, &minor, &micro) < 2)
		major = 0;
	nbd_close(h);
	if (major != 1)
		return major > 1;
	switch (minor) {
	case 18:
		return micro >= 5;
	case 19:
		return false;
	case 20:
		return micro >= 2;
	case 21:
		return micro >= 3;
	}
	return minor >= 22;
}

static int check_tls(const struct instance *instance, const struct nbd_uri *uri, struct error *err)
{
	const struct option_value *mode = instance_option(instance, "tls");
	bool uses = uses_tls(instance);
	char scheme[NBD_SCHEME_TEXT];

	if (scheme_is_tls(instance) && mode->given && mode->word != TLS_REQUIRE)
		return error_set(err, EINVAL,
				 "tls: %.*s:// means that TLS is required: leave -o tls=%s out, or "
				 "write %s:// for a connection without TLS",
				 (int)strcspn(instance->uri, ":"), instance->uri,
				 tls_modes[mode->word],
				 nbd_other_scheme(instance, scheme, sizeof(scheme)));
	for (const struct option_def *def = nbd_options; def->name; def++)
		if (!uses && !strncmp(def->name, "tls-", 4) &&
		    instance_option(instance, def->name)->given)
			return error_set(
				err, EINVAL,
				"%s: this connection has no TLS: write %s:// for %.*s://, or "
				"leave the option out",
				def->name, nbd_other_scheme(instance, scheme, sizeof(scheme)),
				(int)strcspn(instance->uri, ":"), instance->uri);
	if (!uses || psk_file(instance, uri) || !instance_option(instance, "tls-verify")->number ||
	    nbd_uri_trusts_any_peer(uri) ||
	    instance_option(instance, "tls-allow-unfixed")->number || certificates_are_checked())
		return 0;
	return error_set(
		err, EINVAL,
		"TLS with certificates: this libnbd accepts servers whose certificate is "
		"wrong (CVE-2024-7383): install libnbd 1.18.5, 1.20.2, 1.22 or later, use a "
		"pre-shared key (-o tls-psk-file=FILE), or accept the risk with "
		"-o tls-allow-unfixed");
}

int nbd_server_check(const struct instance *instance, struct error *err)
{
	char host[NBD_HOST_MAX], port[NBD_PORT_MAX];
	struct nbd_uri uri;
	int ret;

	if (strncmp(instance->locator, "//", 2) != 0)
		return error_set(err, EINVAL,
				 "'%s': write it as in nbd://HOST/EXPORT, or "
				 "nbd+unix:///EXPORT?socket=PATH",
				 instance->uri);
	ret = nbd_uri_parse(instance->uri, &uri, err);
	if (ret)
		return ret;
	if (uri.unix_socket && (!uri.socket || !*uri.socket))
		ret = error_set(err, EINVAL,
				"'%s': the socket is missing: write it as in "
				"nbd+unix:///EXPORT?socket=PATH",
				instance->uri);
	else if (!uri.unix_socket && !*uri.host)
		ret = error_set(err, EINVAL,
				"'%s': the host is missing: write it as in nbd://HOST/EXPORT",
				instance->uri);
	else if (!uri.unix_socket && !uri.vsock)
		ret = nbd_uri_host(&uri, host, sizeof(host), port, sizeof(port), err);
	if (!ret)
		ret = check_tls(instance, &uri, err);
	nbd_uri_free(&uri);
	return ret;
}

/* The directories where libnbd looks where none is given (its lib/crypto.c). */
static void need_default_directories(backend_need_callback *need, void *context)
{
	static const char *const below_home[] = { ".pki/libnbd", ".config/pki/libnbd" };
	const char *home = getenv("HOME");
	char *path;

	for (unsigned i = 0; home && i < sizeof(below_home) / sizeof(*below_home); i++) {
		if (asprintf(&path, "%s/%s", home, below_home[i]) < 0)
			continue;
		need(context, NEED_DIRECTORY, path);
		free(path);
	}
	need(context, NEED_DIRECTORY, "/etc/pki/libnbd");
}

static void tls_needs(const struct instance *instance, const struct nbd_uri *uri,
		      backend_need_callback *need, void *context)
{
	if (psk_file(instance, uri)) {
		need(context, NEED_FILE, psk_file(instance, uri));
		return;
	}
	if (certificates(instance, uri))
		need(context, NEED_DIRECTORY, certificates(instance, uri));
	else
		need_default_directories(need, context);
	/* libnbd falls back to these where the directory has none. */
	need(context, NEED_AUTHORITIES, NULL);
}

void nbd_server_needs(const struct instance *instance, backend_need_callback *need, void *context)
{
	struct nbd_uri uri;

	if (nbd_uri_parse(instance->uri, &uri, NULL))
		return;
	if (uri.unix_socket)
		need(context, NEED_HOST_SOCKET, uri.socket);
	else
		need(context, NEED_NETWORK, NULL);
	if (!uri.unix_socket && !uri.vsock && !nbd_uri_has_address(&uri))
		need(context, NEED_NAMES, NULL);
	if (uses_tls(instance))
		tls_needs(instance, &uri, need, context);
	nbd_uri_free(&uri);
}

int nbd_error(struct error *err, const char *what)
{
	int code = nbd_get_errno();

	return error_set(err, code ? code : EIO, "%s: %s", what, nbd_last_text());
}

static int set_tls(struct nbd_handle *h, const struct instance *instance)
{
	const char *text;
	int mode = instance_option(instance, "tls")->word;

	if (scheme_is_tls(instance))
		mode = TLS_REQUIRE;
	if (nbd_set_tls(h, mode == TLS_REQUIRE ? LIBNBD_TLS_REQUIRE
			   : mode == TLS_ON    ? LIBNBD_TLS_ALLOW
					       : LIBNBD_TLS_DISABLE))
		return -1;
	text = text_of(instance, "tls-certificates");
	if (text && nbd_set_tls_certificates(h, text))
		return -1;
	text = text_of(instance, "tls-psk-file");
	if (text && nbd_set_tls_psk_file(h, text))
		return -1;
	text = text_of(instance, "tls-username");
	if (text && nbd_set_tls_username(h, text))
		return -1;
	return nbd_set_tls_verify_peer(h, instance_option(instance, "tls-verify")->number);
}

struct nbd_handle *nbd_server_handle(const struct instance *instance, struct error *err)
{
	struct nbd_handle *h = nbd_create();

	if (!h) {
		nbd_error(err, "cannot set libnbd up");
		return NULL;
	}
	/* Files that the URI itself names (keys) may be read: the user wrote it. */
	if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP |
						    LIBNBD_ALLOW_TRANSPORT_UNIX |
						    LIBNBD_ALLOW_TRANSPORT_VSOCK) ||
	    nbd_set_uri_allow_local_file(h, true) || set_tls(h, instance) ||
	    nbd_set_full_info(h, true) ||
	    /* No buffer is handed on before all of it was read: cover.h. */
	    nbd_set_pread_initialize(h, false) ||
	    nbd_set_request_structured_replies(h,
					       instance_option(instance, "structured")->number)) {
		nbd_error(err, instance->uri);
		nbd_close(h);
		return NULL;
	}
	return h;
}

int nbd_server_run(struct nbd_handle *h, const struct instance *negotiates, unsigned timeout_ms,
		   int (*done)(struct nbd_handle *h), struct error *err)
{
	uint64_t until = clock_ms() + timeout_ms, now;
	char place[NBD_PLACE_TEXT] = "the server";
	bool failed = false;

	/* libnbd closes the socket of a handshake that fails: nothing leads to the address then. */
	if (negotiates)
		nbd_place(negotiates, nbd_aio_get_fd(h), place, sizeof(place));
	while (!done(h)) {
		if (failed || nbd_aio_is_dead(h) || nbd_aio_is_closed(h))
			return negotiates ? nbd_explain_last(err, negotiates, place)
					  : nbd_explain_loss(err);
		now = clock_ms();
		if (now >= until)
			return error_set(err, ETIMEDOUT,
					 "%s does not answer within %u s" NBD_SILENT_CURE, place,
					 (timeout_ms + 999) / 1000);
		failed = nbd_poll(h, (int)(until - now)) < 0;
	}
	return 0;
}

int nbd_server_set_uri(struct nbd_handle *h, const struct nbd_uri *uri)
{
	if (nbd_set_export_name(h, uri->name) ||
	    (uri->user && nbd_set_tls_username(h, uri->user)) ||
	    (uri->tls_certificates && nbd_set_tls_certificates(h, uri->tls_certificates)) ||
	    (uri->tls_psk_file && nbd_set_tls_psk_file(h, uri->tls_psk_file)))
		return -1;
#ifdef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
	if (uri->tls_hostname && nbd_set_tls_hostname(h, uri->tls_hostname))
		return -1;
#endif
	return nbd_uri_trusts_any_peer(uri) ? nbd_set_tls_verify_peer(h, false) : 0;
}

void nbd_server_tls_files(const struct instance *instance, const struct nbd_uri *uri,
			  const char **keys, const char **directory)
{
	*keys = uses_tls(instance) ? psk_file(instance, uri) : NULL;
	*directory = uses_tls(instance) && !*keys ? certificates(instance, uri) : NULL;
}

bool nbd_server_checks_name(const struct instance *instance, const struct nbd_uri *uri)
{
	return uses_tls(instance) && !psk_file(instance, uri) &&
	       instance_option(instance, "tls-verify")->number && !nbd_uri_trusts_any_peer(uri);
}

/* A yes or no of libnbd's; its errors count as no. */
static bool yes(int answer)
{
	return answer > 0;
}

/* libnbd says 0 where the server states nothing, and -1 for an error: both mean unknown. */
static uint32_t block_size(struct nbd_handle *h, int kind)
{
	int64_t size = nbd_get_block_size(h, kind);

	if (size < 0)
		return 0;
	return size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
}

int nbd_server_facts(struct nbd_handle *h, struct nbd_facts *facts, struct error *err)
{
	int64_t size = nbd_get_size(h);

	if (size < 0)
		return nbd_error(err, "cannot determine the size of the server's export");
	*facts = (struct nbd_facts){
		.size = (uint64_t)size,
		.min_block = block_size(h, LIBNBD_SIZE_MINIMUM),
		.preferred_block = block_size(h, LIBNBD_SIZE_PREFERRED),
		.max_block = block_size(h, LIBNBD_SIZE_MAXIMUM),
		.read_only = yes(nbd_is_read_only(h)),
		.rotational = yes(nbd_is_rotational(h)),
		.flush = yes(nbd_can_flush(h)),
		.fua = yes(nbd_can_fua(h)),
		.trim = yes(nbd_can_trim(h)),
		.zero = yes(nbd_can_zero(h)),
		.fast_zero = yes(nbd_can_fast_zero(h)),
		.multi_conn = yes(nbd_can_multi_conn(h)),
		.structured = yes(nbd_get_structured_replies_negotiated(h)),
		.tls = yes(nbd_get_tls_negotiated(h)),
	};
	return 0;
}

static bool power_of_2(uint32_t n)
{
	return n && !(n & (n - 1));
}

int nbd_facts_to_limits(const struct nbd_facts *f, const struct instance *instance,
			struct backend_limits *l, struct error *err)
{
	uint32_t least = f->min_block > 512 ? f->min_block : 512;
	uint32_t most = f->max_block ? f->max_block : DEFAULT_MAX_BLOCK;
	uint32_t range = instance->reason == OPEN_TAKEOVER ? MAX_RANGE_RESUMED : MAX_RANGE;
	bool writable = !f->read_only && !instance->read_only;

	if (!power_of_2(least) || least > PAGE)
		return error_set(err, EINVAL,
				 "%s: the server's smallest block is %u bytes, and a Linux block "
				 "device has blocks of 512 to %u: have it offer smaller ones",
				 instance->uri, f->min_block, PAGE);
	if (instance->block_size && instance->block_size < least)
		return error_set(err, EINVAL,
				 "%s: block-size %u: the server's smallest block is %u bytes: "
				 "use that, or leave block-size out",
				 instance->uri, instance->block_size, least);
	if (most < PAGE)
		return error_set(err, EINVAL,
				 "%s: the server takes at most %u bytes a request, and the kernel "
				 "sends up to %u: raise the server's limit",
				 instance->uri, most, PAGE);
	l->logical_block = instance->block_size ? instance->block_size : least;
	/* Whole blocks only: the kernel has no partial block at a device's end. */
	l->size = f->size - f->size % l->logical_block;
	if (l->size && l->size < f->size)
		log_warning(instance->name,
			    "the device lacks the last %u bytes of the export: they are less than "
			    "a block of %u",
			    (unsigned)(f->size - l->size), l->logical_block);
	if (power_of_2(f->preferred_block) && f->preferred_block >= l->logical_block) {
		l->min_io = f->preferred_block;
		l->physical_block = f->preferred_block < PAGE ? f->preferred_block : PAGE;
		if (l->physical_block < l->logical_block)
			l->physical_block = l->logical_block;
	}
	l->max_io = most < instance->max_io ? most : instance->max_io;
	l->read_only = !writable;
	if (f->read_only && !instance->read_only)
		log_warning(instance->name,
			    "the server offers the export read-only, so the device is read-only, "
			    "too: make it writable there, or set read-only");
	l->rotational = f->rotational;
	/* FLUSH and FUA reach only a device that says it has a cache. */
	l->volatile_cache = writable && (f->flush || f->fua);
	l->fua = writable && f->fua;
	l->max_discard = writable && f->trim ? range : 0;
	l->max_write_zeroes = writable && f->zero ? range : 0;
	return 0;
}

int nbd_facts_match(const struct nbd_facts *before, const struct nbd_facts *now,
		    const struct backend_limits *l, bool several, struct error *err)
{
	uint32_t most = now->max_block ? now->max_block : DEFAULT_MAX_BLOCK;
	/* The device may be growing just now. */
	uint64_t size = __atomic_load_n(&l->size, __ATOMIC_RELAXED);

	if (now->size < size)
		return error_set(err, ESTALE,
				 "the server's export has shrunk: it has %llu bytes, the device "
				 "%llu: bring the former export back",
				 (unsigned long long)now->size, (unsigned long long)size);
	if (now->min_block > l->logical_block)
		return error_set(err, ESTALE,
				 "the server's export now has blocks of %u bytes, the device %u: "
				 "bring the former export back",
				 now->min_block, l->logical_block);
	if (most < l->max_io)
		return error_set(err, ESTALE,
				 "the server now takes at most %u bytes at a time, the device "
				 "sends up to %u: bring the former export back",
				 most, l->max_io);
	if (l->read_only)
		return 0;
	if (now->read_only)
		return error_set(err, ESTALE,
				 "the server's export is read-only now, and the device is not: "
				 "make it writable again");
	if (before->flush && !now->flush)
		return error_set(err, ESTALE,
				 "the server's export cannot flush any more, and the device "
				 "promises it: bring the former export back");
	if (before->fua && !now->fua)
		return error_set(err, ESTALE,
				 "the server's export cannot do FUA any more, and the device "
				 "promises it: bring the former export back");
	if (several && !now->multi_conn)
		return error_set(err, ESTALE,
				 "the server does not allow writes over several connections "
				 "(multi-conn) any more: bring the former server back");
	if (before->zero && !now->zero)
		return error_set(err, ESTALE,
				 "the server's export cannot write zeroes any more, and the device "
				 "offers it: bring the former export back");
	return 0;
}
