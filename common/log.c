/* SPDX-License-Identifier: MIT */
/*
 * The journal's protocol (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md): a datagram of lines
 * FIELD=VALUE. Our values have no newline, which is all that the protocol makes hard.
 *
 * Not sd_journal_send(): it finds the socket by its path for each line, and a worker has another
 * root directory; and it waits for a journal that is full. The socket here is connected once and
 * does not block.
 *
 * Read put() first: it decides where a line goes.
 */
#include "common/log.h"
#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define TEXT_SIZE   6000
#define FIELDS_SIZE 1000

const char *log_journal_socket = "/run/systemd/journal/socket";

static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

static const char *log_program = "ublkd";
static enum log_level log_most = LOG_LEVEL_INFO;
static bool log_journal; /* stderr is the journal's */
static int log_socket = -1;
static unsigned nr_dropped; /* atomic */
static const char *(*log_device_of)(const char *about, char *out, size_t size);

/* systemd.exec(5), $JOURNAL_STREAM: device and inode of the journal's socket. */
static bool is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == device && st.st_ino == inode;
}

static int connect_journal(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", log_journal_socket);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

void log_setup(const char *program, enum log_level most)
{
	log_program = program;
	log_most = most;
	log_journal = is_journal();
	if (log_socket >= 0)
		close(log_socket);
	log_socket = log_journal ? connect_journal() : -1;
}

void log_set_device_of(const char *(*device_of)(const char *about, char *out, size_t size))
{
	log_device_of = device_of;
}

static int add_field(char *out, int used, const char *name, const char *value)
{
	int n = snprintf(out + used, FIELDS_SIZE - (size_t)used, "%s=%s\n", name, value);

	return n < 0 || n >= FIELDS_SIZE - used ? used : used + n;
}

static int make_fields(char *out, enum log_level level, const char *id, const char *about)
{
	char text[300];
	int used = 0;

	snprintf(text, sizeof(text), "%d", priorities[level]);
	used = add_field(out, used, "PRIORITY", text);
	used = add_field(out, used, "SYSLOG_IDENTIFIER", log_program);
	if (id)
		used = add_field(out, used, "MESSAGE_ID", id);
	if (!about)
		return used;
	snprintf(text, sizeof(text), "%s", about);
	text_make_printable(text);
	used = add_field(out, used, "UBLKD_EXPORT", text);
	if (log_device_of && log_device_of(about, text, sizeof(text)))
		used = add_field(out, used, "UBLKD_DEVICE", text);
	return used;
}

/* Whether that is all: the line is the journal's, or is lost with a full one. */
static bool put_in_journal(enum log_level level, const char *id, const char *about,
			   const char *text)
{
	char line[TEXT_SIZE + FIELDS_SIZE + 16];
	int n;

	if (log_socket < 0)
		return false;
	n = make_fields(line, level, id, about);
	n += snprintf(line + n, sizeof(line) - (size_t)n, "MESSAGE=%s\n", text);
	if (write(log_socket, line, (size_t)n) == n)
		return true;
	if (errno != EAGAIN && errno != ENOBUFS)
		return false;
	__atomic_fetch_add(&nr_dropped, 1, __ATOMIC_RELAXED);
	return true;
}

static void put(enum log_level level, const char *id, const char *about, const char *text)
{
	char line[TEXT_SIZE + 64];
	int n;

	if (put_in_journal(level, id, about, text))
		return;
	/* The journal has the program's name of its own, and takes a priority (sd-daemon(3)). */
	if (log_journal)
		n = snprintf(line, sizeof(line), "<%d>%s\n", priorities[level], text);
	else
		n = snprintf(line, sizeof(line), "%s: %s\n", log_program, text);
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say so */
}

static void log_va(const char *id, enum log_level level, const char *about, const char *fmt,
		   va_list args) __attribute__((format(printf, 4, 0)));

static void log_va(const char *id, enum log_level level, const char *about, const char *fmt,
		   va_list args)
{
	static const char *const words[] = { "error: ", "warning: ", "", "" };
	char text[TEXT_SIZE], lost[64];
	unsigned dropped;
	int n;

	if (level > log_most)
		return;
	n = snprintf(text, sizeof(text), "%s%s%s", about ? about : "", about ? ": " : "",
		     words[level]);
	if (n < 0 || (size_t)n >= sizeof(text) ||
	    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args) < 0)
		return;
	text_make_printable(text);
	dropped = __atomic_exchange_n(&nr_dropped, 0, __ATOMIC_RELAXED);
	if (dropped) {
		snprintf(lost, sizeof(lost), "%u lines were lost: the journal was full", dropped);
		put(LOG_LEVEL_WARNING, NULL, NULL, lost);
	}
	put(level, id, about, text);
}

void log_line(enum log_level level, const char *about, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_va(NULL, level, about, fmt, args);
	va_end(args);
}

void log_event(const char *id, enum log_level level, const char *about, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_va(id, level, about, fmt, args);
	va_end(args);
}
