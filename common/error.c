/* SPDX-License-Identifier: MIT */
#include "common/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Whether a character of three bytes sets the direction of text or ends a line: with
 * these a name makes a terminal show something else than what is there (UAX 9; U+200E,
 * U+200F, U+2028 to U+202E, U+2066 to U+2069).
 */
static bool rearranges(const unsigned char *c)
{
	if (c[0] != 0xe2)
		return false;
	return (c[1] == 0x80 && (c[2] == 0x8e || c[2] == 0x8f || (c[2] >= 0xa8 && c[2] <= 0xae))) ||
	       (c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9);
}

/* Bytes of the character at c, a printable one in UTF-8 (RFC 3629); 0: it is none. */
static unsigned printable(const unsigned char *c)
{
	unsigned n = *c < 0x80   ? 1
		     : *c < 0xc2 ? 0
		     : *c < 0xe0 ? 2
		     : *c < 0xf0 ? 3
		     : *c < 0xf5 ? 4
				 : 0;

	if (n == 1)
		return *c >= ' ' && *c != 0x7f;
	for (unsigned i = 1; i < n; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	/* Terminals take these for control characters, too. */
	if (c[0] == 0xc2 && c[1] < 0xa0)
		return 0;
	/* U+061C, the Arabic letter mark, is such a control, too. */
	if ((n == 3 && rearranges(c)) || (c[0] == 0xd8 && c[1] == 0x9c))
		return 0;
	/* Written longer than need be, surrogates, past the last character. */
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
	    (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return n;
}

void text_make_printable(char *text)
{
	unsigned char *c = (unsigned char *)text;

	while (*c) {
		unsigned n = printable(c);

		if (n) {
			c += n;
			continue;
		}
		*c++ = '?';
	}
}

const char *text_escape(const char *text, char *out, size_t out_size)
{
	const unsigned char *c = (const unsigned char *)text;
	size_t used = 0;

	while (*c) {
		unsigned n = *c == '\\' ? 0 : printable(c);

		if (used + (n ? n : 4) >= out_size)
			break;
		if (n)
			memcpy(out + used, c, n);
		else
			snprintf(out + used, out_size - used, "\\x%02x", *c);
		used += n ? n : 4;
		c += n ? n : 1;
	}
	out[used] = 0;
	return out;
}

/*
 * Puts a line of that length into err.  One that is too long loses its middle: mostly a
 * path's, while the thing, the cause and the cure stand at its ends.
 */
static void set_text(struct error *err, const char *line, size_t length)
{
	static const char gap[] = " ... ";
	const size_t room = sizeof(err->text) - 1, tail = (room - strlen(gap)) / 2,
		     head = room - strlen(gap) - tail;

	if (length <= room) {
		memcpy(err->text, line, length + 1);
	} else {
		memcpy(err->text, line, head);
		memcpy(err->text + head, gap, strlen(gap));
		memcpy(err->text + head + strlen(gap), line + length - tail, tail + 1);
	}
	text_make_printable(err->text);
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list args;
	char *line;
	int length;

	if (!err)
		return -abs(code);
	err->code = abs(code);
	va_start(args, fmt);
	length = vasprintf(&line, fmt, args);
	va_end(args);
	if (length < 0) {
		set_text(err, "no memory for a message", strlen("no memory for a message"));
		return -err->code;
	}
	set_text(err, line, (size_t)length);
	free(line);
	return -err->code;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char *prefix, *line;
	va_list args;
	int length;

	va_start(args, fmt);
	length = vasprintf(&prefix, fmt, args);
	va_end(args);
	if (length < 0)
		return -err->code;
	length = asprintf(&line, "%s: %s", prefix, err->text);
	free(prefix);
	if (length < 0)
		return -err->code;
	set_text(err, line, (size_t)length);
	free(line);
	return -err->code;
}
