/* SPDX-License-Identifier: MIT */
/*
 * Holders of a block device: processes, mounts, swap areas, and devices made of it
 * (partitions are part of it; device mapper, RAID and loop devices stand on it, and
 * who holds those, holds it).
 *
 * It is read from /proc and /sys only, and never follows what it finds there: neither
 * a stuck process nor a dead network file system makes it wait.  What has no sign
 * there, such as a mapping whose descriptor is closed, is not seen.
 */
#ifndef UBLKD_HOLDERS_H
#define UBLKD_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HOLDERS_MAX 100u /* that are listed */

enum holder_kind {
	HOLDER_PROCESS, /* pid, command */
	HOLDER_MOUNT,   /* path: the directory; pid and command: of one who sees it, where that is
			   not the machine's own view of files */
	HOLDER_SWAP,
	HOLDER_DEVICE, /* path: its name, as in "dm-0" */
};

/* Texts are as the system has them: text_escape() them. */
struct holder {
	enum holder_kind kind;
	pid_t pid;        /* 0: none */
	char command[32]; /* "" where pid is 0 */
	char *path;       /* NULL where there is none */
	char device[64];  /* that is held: "ublkb0", "ublkb0p1", "dm-0" */
};

/* Owner: whoever called holders_find(). */
struct holders {
	struct holder *list;
	unsigned nr;   /* 0: nobody was found */
	unsigned more; /* that are not in list */
};

/*
 * Finds who holds the block device of that name ("ublkb0"), but not the processes
 * ignored (nr_ignored of them).  Returns 0, or -EINVAL (that is no name), -ENODEV
 * (there is no such device), -ENOMEM or what the system said, and nothing held; else
 * holders_close() is due.  Any thread.
 */
int holders_find(const char *block, const pid_t *ignored, unsigned nr_ignored,
		 struct holders *holders);
void holders_close(struct holders *holders);

/* The same with /proc and /sys below root. */
int holders_find_in(const char *root, const char *block, const pid_t *ignored, unsigned nr_ignored,
		    struct holders *holders);

/*
 * Puts "process 12 (fio), mount /mnt" into out (size bytes), texts escaped, what does not
 * fit cut off.  Returns out.
 */
const char *holders_text(const struct holders *holders, char *out, size_t size);
/* Whether all of them are processes, which may let go of it at any time. */
bool holders_are_processes(const struct holders *holders);

/* "process", "mount", "swap" or "device". */
const char *holder_kind_name(enum holder_kind kind);

#endif
