/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr: "PROGRAM: EXPORT: text"; where that is the journal, "<PRIORITY>EXPORT:
 * text".  Never used for each I/O above LOG_LEVEL_DEBUG.  Any thread; one line is one write.
 */
#ifndef UBLKD_LOG_H
#define UBLKD_LOG_H

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* Once, from main() before other threads.  program must outlive the process. */
void log_setup(const char *program, enum log_level most);

/* about names the export or device that the line is about; NULL: the program. */
void log_line(enum log_level level, const char *about, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(about, ...)   log_line(LOG_LEVEL_ERROR, about, __VA_ARGS__)
#define log_warning(about, ...) log_line(LOG_LEVEL_WARNING, about, __VA_ARGS__)
#define log_info(about, ...)    log_line(LOG_LEVEL_INFO, about, __VA_ARGS__)
#define log_debug(about, ...)   log_line(LOG_LEVEL_DEBUG, about, __VA_ARGS__)

#endif
