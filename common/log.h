/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr: "PROGRAM: EXPORT: text". Where stderr is the journal, lines go to the
 * journal's own socket instead, with fields: UBLKD_EXPORT, UBLKD_DEVICE, MESSAGE_ID (those of
 * log_event() alone) beside MESSAGE and PRIORITY. Such a line never waits: one that finds the
 * journal full is dropped and counted, since journald may itself wait for a device of ours.
 *
 * Never used for each I/O above LOG_LEVEL_DEBUG.  Any thread; one line is one write.
 */
#ifndef UBLKD_LOG_H
#define UBLKD_LOG_H

#include <stddef.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/*
 * Once, from main() before other threads, and before a process gives up its root directory.
 * program must outlive the process.
 */
void log_setup(const char *program, enum log_level most);

/* about names the export or device that the line is about; NULL: the program. */
void log_line(enum log_level level, const char *about, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(about, ...)   log_line(LOG_LEVEL_ERROR, about, __VA_ARGS__)
#define log_warning(about, ...) log_line(LOG_LEVEL_WARNING, about, __VA_ARGS__)
#define log_info(about, ...)    log_line(LOG_LEVEL_INFO, about, __VA_ARGS__)
#define log_debug(about, ...)   log_line(LOG_LEVEL_DEBUG, about, __VA_ARGS__)

/* MESSAGE_IDs, for `journalctl MESSAGE_ID=...`; ublkd(8) lists them. */
#define LOG_EVENT_TROUBLE "df34c904262f4d6882f23cbda254dc6e" /* the health of an export is not ok */
#define LOG_EVENT_WELL    "87648a995dee4d2ea07ae08fa760893a" /* it is ok again */
#define LOG_EVENT_REQUEST "e7bc58d356d346d0a7a3616a882c51f8" /* a client asks for a change */
#define LOG_EVENT_STATE   "a2de7b490a66458e94ff6f0308be7af5" /* live, suspended, removed */

/* log_line() with a MESSAGE_ID. */
void log_event(const char *id, enum log_level level, const char *about, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The journal's socket; another one in tests, before log_setup(). */
extern const char *log_journal_socket;

/*
 * Sets how lines find the device of what they are about: device_of, from any thread, returns out,
 * or NULL where it knows none.
 */
void log_set_device_of(const char *(*device_of)(const char *about, char *out, size_t size));

#endif
