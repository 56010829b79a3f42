/* SPDX-License-Identifier: MIT */
#include "common/log.h"
#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *log_program = "ublkd";
static enum log_level log_most = LOG_LEVEL_INFO;

void log_setup(const char *program, enum log_level most)
{
	log_program = program;
	log_most = most;
}

void log_line(enum log_level level, const char *about, const char *fmt, ...)
{
	static const char *const words[] = { "error: ", "warning: ", "", "" };
	char line[6000];
	va_list args;
	int len, more;

	if (level > log_most)
		return;
	len = snprintf(line, sizeof(line), "%s: %s%s%s", log_program, about ? about : "",
		       about ? ": " : "", words[level]);
	if (len < 0 || (size_t)len >= sizeof(line))
		return;
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
