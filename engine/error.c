/* SPDX-License-Identifier: MIT */
#include "engine/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_make_printable(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++)
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list args;

	if (err) {
		err->code = abs(code);
		va_start(args, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, args);
		va_end(args);
		text_make_printable(err->text);
	}
	return -abs(code);
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text) - 3, fmt, args);
	va_end(args);
	if (len < 0)
		return -err->code;
	len = (int)strlen(text);
	memmove(err->text + len + 2, err->text, sizeof(err->text) - (size_t)len - 2);
	memcpy(err->text, text, (size_t)len);
	memcpy(err->text + len, ": ", 2);
	err->text[sizeof(err->text) - 1] = 0;
	text_make_printable(err->text);
	return -err->code;
}
