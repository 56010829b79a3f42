/* SPDX-License-Identifier: MIT */
/*
 * A Varlink server on a libuv loop: it knows the protocol, the interfaces'
 * descriptions and its peers, and nothing of exports.
 *
 * Each call is checked before its method runs: the method is there, the peer may
 * call it, and the parameters are what the interface's description says (no field
 * unknown, none missing, all of their types).  So a method looks only at what they
 * mean.  Calls on one connection are answered in order, one after the other; on
 * different connections side by side.
 *
 * Thread: the loop's, for everything here.  Callbacks come from the loop, never
 * from within a function of this file.  Nothing here blocks.  The process must
 * ignore SIGPIPE: libuv writes also to who has hung up.
 *
 * Protocol: varlink.org, "Protocol": JSON objects, a NUL byte after each.
 * "upgrade" is refused.
 */
#ifndef UBLKD_VARLINK_H
#define UBLKD_VARLINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct error;
struct varlink;      /* the server */
struct varlink_call; /* one call, from its request to its last reply */

/* The process at the other end, as it was when it connected. */
struct varlink_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	const gid_t *groups; /* the other groups that it is in */
	unsigned nr_groups;
};

/*
 * The description of org.varlink.service, which every server has.  The build makes the
 * constant interface_NAME of each NAME.varlink, a '_' for each dot.
 */
extern const char interface_org_varlink_service[];

/* Whether the peer is in the group: its own, or one of its others. */
bool varlink_peer_in_group(const struct varlink_peer *peer, gid_t group);

struct varlink_method {
	const char *name; /* as in the description; NULL ends a table */
	bool changes;     /* it changes something: for those who may */
	bool streams;     /* it answers more than once; a call without "more" is refused */
	/*
	 * parameters is an object and belongs to the call.  It may answer at once or
	 * later, and must in the end call varlink_reply() or varlink_error(), once.
	 */
	void (*run)(struct varlink_call *call, json_t *parameters, void *context);
};

/* Owner: who made it; it must outlive the server. */
struct varlink_interface {
	const char *description; /* its text */
	const struct varlink_method
		*methods; /* one that is not here is answered MethodNotImplemented */
	void *context;    /* for run and refuse */
	/*
	 * Answers, as run does, a call that the peer may not make, with an error of
	 * the interface's own; NULL: org.varlink.service.PermissionDenied.
	 */
	void (*refuse)(struct varlink_call *call, void *context);
};

/* Bounds; 0 means what is said here. */
struct varlink_limits {
	size_t frame_bytes;         /* of a request: 1 MiB */
	size_t unsent_bytes;        /* replies of a stream that wait for a slow reader: 1 MiB */
	unsigned connections;       /* 256; the last 16 are for root and the server's own user */
	unsigned connections_a_uid; /* of others than those two: 64 */
	unsigned frame_ms;          /* from a request's first byte to its last: 10000 */
};

/* Copied; the strings must outlive the server. */
struct varlink_setup {
	const char *vendor, *product, *version, *url; /* GetInfo's answers */
	/* Whether the peer may call a method, one that changes something or one that does not. */
	bool (*may)(const struct varlink_peer *peer, bool changes, void *context);
	void *context; /* may's */
	/*
	 * For tests: in place of a reply or an error that the description does not allow
	 * comes the error org.varlink.service.InvalidReply, which nothing else is.
	 */
	bool check_replies;
	struct varlink_limits limits;
};

/*
 * Returns 0 with *server, which varlink_close() releases; or -errno with err
 * filled.
 */
int varlink_create(struct varlink **server, uv_loop_t *loop, const struct varlink_setup *setup,
		   struct error *err);

/*
 * Accepts connections on fd, a bound stream socket (it need not listen yet), and
 * serves interfaces (NULL-terminated; org.varlink.service comes with them) on
 * them.  fd is the server's from now on, also where this fails.  Returns 0;
 * -EINVAL where a description is wrong or a method is not in it, else -errno; err
 * filled.
 */
int varlink_listen(struct varlink *server, int fd,
		   const struct varlink_interface *const *interfaces, struct error *err);

/* The same for fd, a connected stream socket. */
int varlink_serve(struct varlink *server, int fd, const struct varlink_interface *const *interfaces,
		  struct error *err);

/*
 * Takes no more connections, and closes each of those that there are as soon as
 * it has no call and no reply under way.
 */
void varlink_stop(struct varlink *server);

/*
 * Closes all of it and releases the server; then, from the loop, closed(context)
 * is called, if given.  Calls that are not answered yet are cancelled, and still must
 * be answered, which may be later.
 */
void varlink_close(struct varlink *server, void (*closed)(void *context), void *context);

/* ---- a call ---- */

/*
 * The last reply.  parameters (NULL: none) is the server's from now on; so is the
 * call, which is gone when this returns.  Where the peer has gone away, or wanted
 * no reply, it goes nowhere.
 */
void varlink_reply(struct varlink_call *call, json_t *parameters);

/* Whether the call has "more": the client takes several replies. */
bool varlink_wants_more(const struct varlink_call *call);

/*
 * A reply with others to come, of a call with "more".  Returns 0, or -EPIPE
 * where the peer is gone; so it is when too much waits for it to be read.
 * parameters is the server's from now on.
 */
int varlink_reply_more(struct varlink_call *call, json_t *parameters);

/*
 * The last reply is an error.  name is one of the call's interface ("Busy"), or
 * another's in full ("org.varlink.service.InvalidParameter").  Else as
 * varlink_reply().
 */
void varlink_error(struct varlink_call *call, const char *name, json_t *parameters);

/*
 * org.varlink.service.InvalidParameter, which only names the parameter. For a value that its type
 * allows and the method does not, an error of the interface with a message helps the client more.
 */
void varlink_invalid(struct varlink_call *call, const char *parameter);

/*
 * cancel(call, context) is called once, from the loop, when the peer has gone away
 * before the last reply.  The call must be answered all the same (it may be from
 * cancel itself).  NULL: no more.  Returns 0, or -EPIPE where the peer is gone
 * already: then it is never called.
 */
int varlink_on_cancel(struct varlink_call *call,
		      void (*cancel)(struct varlink_call *call, void *context), void *context);

/* Whether the peer is gone, so that an answer would be dropped. */
bool varlink_is_gone(const struct varlink_call *call);

/* Valid as long as the call. */
const struct varlink_peer *varlink_peer(const struct varlink_call *call);

#endif
