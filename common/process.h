/* SPDX-License-Identifier: MIT */
/*
 * Process set-up for serving block I/O; names and start times of other processes.
 */
#ifndef UBLKD_PROCESS_H
#define UBLKD_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Call once, before threads are started: memory is locked as it is touched
 * (where the limits allow it, else a line says that it is not), reclaim on this
 * process's behalf writes to no device of its own, and files it opens may be as
 * many as the hard limit says.  about: as in log_line().
 */
void process_prepare_for_io(const char *about);

/*
 * Call before data or keys are read: no core dump of this process is written, and no other
 * process of the same user can read its memory.  A change of the user undoes the second:
 * call it again then.  Returns 0, or -errno.
 */
int process_hide_memory(void);

/*
 * The name of a process, as it chose it, at most size bytes, in out, which is
 * returned: "" where there is no such process.  Any thread.
 */
const char *process_name(pid_t pid, char *out, size_t size);

/*
 * When a process was started, in ticks since the machine was (/proc/PID/stat, field 22);
 * 0: there is no such process.  Together with its number it is no other's.  Any thread.
 */
uint64_t process_started(pid_t pid);

/* Whether the process has the file of that path open, as /proc/PID/fd has it.  Any thread. */
bool process_has_open(pid_t pid, const char *path);

/*
 * A descriptor (pidfd) of a child, by which it can be killed and no other process that gets
 * its number later: a child is reaped by the kernel where SIGCHLD is ignored, so its number
 * may be another's before anybody has waited for it.  The caller closes it.  -1: this
 * process has no such child, or no longer.  Any thread.
 */
int process_open_child(pid_t pid);

/* Whether the child that process_open_child() opened has ended; reaps it.  Any thread. */
bool process_child_ended(int pidfd);

/* Sends SIGKILL to the process of the pidfd.  Any thread. */
void process_kill(int pidfd);

#endif
