/* SPDX-License-Identifier: MIT */
/*
 * The confinement of a worker: from a process of root's to one that can only serve its export.
 *
 * The order of the steps is the point of this file, since each step takes away a right that earlier
 * steps need. Core dumps and ptrace end before keys are copied. The resolver's modules are loaded
 * while libraries can still be found. Then follow a root directory with copies of the files that
 * the backend reads itself (sandbox_root.c), the loss of user, groups and capabilities, and the
 * filter of system calls (sandbox_calls.c), which would refuse all steps before it.
 *
 * A step that fails ends the worker: a partly confined worker must never serve. docs/security.md
 * lists what a compromised worker can still reach.
 *
 * Read sandbox_enter() from top to bottom first, then collect() for the backend's needs and
 * drop_privilege().
 */
#include "worker/sandbox.h"
#include "common/process.h"
#include "worker/sandbox_parts.h"

#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- what it needs ---- */

struct collection {
	struct sandbox_needs needs;
	bool no_memory;
};

static void keep_path(struct collection *c, char ***paths, unsigned *nr, const char *path)
{
	char **more = realloc(*paths, (*nr + 1) * sizeof(**paths));

	if (more)
		*paths = more;
	if (!more || !(more[*nr] = strdup(path)))
		c->no_memory = true;
	else
		++*nr;
}

static void collect(void *context, enum backend_need need, const char *path)
{
	struct collection *c = context;

	switch (need) {
	case NEED_NETWORK:
		c->needs.network = true;
		break;
	case NEED_NAMES:
		c->needs.names = c->needs.opens = true;
		break;
	case NEED_AUTHORITIES:
		c->needs.authorities = c->needs.opens = true;
		break;
	case NEED_FILE:
		c->needs.opens = true;
		keep_path(c, &c->needs.files, &c->needs.nr_files, path);
		break;
	case NEED_DIRECTORY:
		c->needs.opens = true;
		keep_path(c, &c->needs.directories, &c->needs.nr_directories, path);
		break;
	default:
		break; /* the host does it */
	}
}

static void free_needs(struct sandbox_needs *needs)
{
	for (unsigned i = 0; i < needs->nr_files; i++)
		free(needs->files[i]);
	for (unsigned i = 0; i < needs->nr_directories; i++)
		free(needs->directories[i]);
	free(needs->files);
	free(needs->directories);
}

/*
 * The resolver loads what the hosts line of nsswitch.conf names when it first needs
 * it; there are no libraries in the sandbox, and no memory may become code.  (Its
 * own two, "files" and "dns", are part of the C library since 2.34.)
 */
static void load_resolver_modules(void)
{
	FILE *f = fopen("/etc/nsswitch.conf", "re");
	char line[1024], path[64], *word, *rest;

	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "#\n")] = 0;
		rest = line + strspn(line, " \t");
		if (strncmp(rest, "hosts:", 6) != 0)
			continue;
		rest += 6;
		while ((word = strsep(&rest, " \t"))) {
			/* [NOTFOUND=return], and what is none of its names. */
			if (!*word || word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_")])
				continue;
			snprintf(path, sizeof(path), "libnss_%s.so.2", word);
			/* Never unloaded; where it is not there, the resolver goes on without. */
			dlopen(path, RTLD_NOW | RTLD_NODELETE);
		}
	}
	fclose(f);
}

/* ---- who it is ---- */

static void reset_signals(void)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool has_no_capability(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct all[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, all))
		return false;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		if (all[i].effective | all[i].permitted | all[i].inheritable)
			return false;
	return true;
}

static int hide_memory(struct error *err)
{
	int ret = process_hide_memory();

	return ret ? error_set(err, ret, "cannot disable core dumps: %s", strerror(-ret)) : 0;
}

static int drop_privilege(uid_t uid, gid_t gid, struct error *err)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* By what the kernel refuses, as there is no /proc that says which is the last. */
	for (int capability = 0; !prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);)
		capability++;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return error_set(err, errno, "cannot become user %u, group %u: %s", uid, gid,
				 strerror(errno));
	if (syscall(SYS_capset, &header, none) || !has_no_capability() ||
	    prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) != 0)
		return error_set(err, EPERM, "cannot drop capabilities");
	/* The worker outlives the ublkd that started it. */
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set(err, errno, "PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
	/*
	 * setresuid() has set the dumpable flag to fs.suid_dumpable (commit_creds()). Another worker
	 * runs as the same user, and may not read this one's memory.
	 */
	return hide_memory(err);
}

int sandbox_enter(const struct sandbox *sandbox, struct error *err)
{
	const struct instance *instance = sandbox->instance;
	const struct backend *backend = instance->backend;
	/* The engine opens /dev/zero for it (queue.c). */
	struct collection c = { .needs.opens = backend->access == ACCESS_NONE };
	int ret;

	if (!sandbox->uid || !sandbox->gid)
		return error_set(err, EINVAL, "a worker must not run as user or group 0");
	if (geteuid())
		return error_set(err, EPERM, "confining a worker needs root");
	/* Keys are copied below. */
	ret = hide_memory(err);
	if (ret)
		return ret;
	if (backend->needs)
		backend->needs(instance, collect, &c);
	if (c.no_memory) {
		ret = error_set(err, ENOMEM, "no memory");
		goto free_needs;
	}
	/* Steps that take privilege. */
	process_prepare_for_io(instance->name);
	if (c.needs.names)
		load_resolver_modules();
	reset_signals();
	umask(077);
	ret = sandbox_change_root(&c.needs, sandbox, err);
	if (!ret)
		ret = drop_privilege(sandbox->uid, sandbox->gid, err);
	if (!ret)
		ret = sandbox_limit_calls(&c.needs, err);

free_needs:
	free_needs(&c.needs);
	return ret;
}
