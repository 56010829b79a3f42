/* SPDX-License-Identifier: MIT */
#include "common/log.h"
#include "common/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

static const char *log_program = "ublkd";
static enum log_level log_most = LOG_LEVEL_INFO;
static bool log_journal;

/* systemd.exec(5), $JOURNAL_STREAM: device and inode of the journal's socket. */
static bool is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == device && st.st_ino == inode;
}

void log_setup(const char *program, enum log_level most)
{
	log_program = program;
	log_most = most;
	log_journal = is_journal();
}

/* The journal has the program's name of its own, and takes a priority (sd-daemon(3)). */
static int put_prefix(enum log_level level, char *line, size_t size)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	return log_journal ? snprintf(line, size, "<%d>", priorities[level])
			   : snprintf(line, size, "%s: ", log_program);
}

void log_line(enum log_level level, const char *about, const char *fmt, ...)
{
	static const char *const words[] = { "error: ", "warning: ", "", "" };
	char line[6000];
	va_list args;
	int len, more;

	if (level > log_most)
		return;
	len = put_prefix(level, line, sizeof(line));
	if (len < 0 || (size_t)len >= sizeof(line))
		return;
	more = snprintf(line + len, sizeof(line) - (size_t)len, "%s%s%s", about ? about : "",
			about ? ": " : "", words[level]);
	if (more < 0 || (size_t)(len + more) >= sizeof(line))
		return;
	len += more;
	va_start(args, fmt);
	more = vsnprintf(line + len, sizeof(line) - (size_t)len - 1, fmt, args);
	va_end(args);
	if (more < 0)
		return;
	text_make_printable(line);
	len = (int)strlen(line);
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return; /* nowhere left to say so */
}
