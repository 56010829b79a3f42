/* SPDX-License-Identifier: MIT */
/*
 * Writes attributes of a block device in /sys from a process of its own.
 *
 * A write to queue/scheduler freezes the device's queue, that is, it waits for all
 * requests in flight (block/elevator.c, elevator_change()), in a sleep that no signal
 * ends. A server that wrote it by itself while its storage does not answer could
 * neither be stopped nor killed. The process here has neither ublkcN nor a ring, so
 * its sleep keeps nothing alive, and it ends when the device does.
 */
#ifndef UBLKD_ATTRIBUTE_H
#define UBLKD_ATTRIBUTE_H

struct error;

/*
 * Writes value to the file path. Returns 0 or -errno. The calling thread waits as long as
 * the kernel does.
 */
int attribute_write_file(const char *path, const char *value);

/* Owner: the caller of attribute_start(). One thread. */
struct attribute_writer {
	int fd;              /* a socket to the process; -1: there is none */
	unsigned unanswered; /* orders that it has not answered yet; it answers in order */
};

/*
 * Starts the process. Call it before the caller opens a device, makes a ring or
 * starts a thread: the process keeps a copy of the caller's memory. Returns 0, or
 * -errno with err filled; attribute_end() is due after 0.
 */
int attribute_start(struct attribute_writer *writer, struct error *err);

/*
 * Has the process write value to the file path, and waits ms milliseconds at most.
 * Returns 0, what the write failed with, or -ETIMEDOUT: the process goes on alone, and
 * takes no further order before it is done. Both texts together have less than 200 bytes.
 */
int attribute_write(struct attribute_writer *writer, const char *path, const char *value,
		    unsigned ms);

/* Lets the process end once it has written, and waits for that for a moment. */
void attribute_end(struct attribute_writer *writer);

#endif
