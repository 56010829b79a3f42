/* SPDX-License-Identifier: MIT */
#include "tools/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CUT_MARK "..."
#define CUT_MIN  8u /* columns that a cell keeps, on however narrow a terminal */

/* Counts characters: a byte 10xxxxxx continues a UTF-8 character. */
static unsigned width_of(const char *text)
{
	unsigned width = 0;

	for (; *text; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

/* Takes ownership of text. A table with missing cells would mislead, so no memory ends ublkctl. */
static void add_cell(struct table *table, char *text)
{
	if (table->nr_cells == table->room) {
		table->room = table->room ? table->room * 2 : 64;
		table->cells = realloc(table->cells, table->room * sizeof(*table->cells));
	}
	if (!text || !table->cells) {
		fputs("out of memory\n", stderr);
		exit(EXIT_FAILURE);
	}
	table->cells[table->nr_cells++] = text;
}

void table_begin(struct table *table, const struct table_column *columns)
{
	*table = (struct table){ .columns = columns };
	for (; columns->title; columns++) {
		table->nr_columns++;
		table_add(table, columns->title);
	}
}

void table_add(struct table *table, const char *text)
{
	add_cell(table, strdup(text));
}

void table_addf(struct table *table, const char *fmt, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		text = NULL;
	va_end(args);
	add_cell(table, text);
}

static unsigned widest(const struct table *table, unsigned column)
{
	unsigned most = 0;

	for (unsigned i = column; i < table->nr_cells; i += table->nr_columns) {
		unsigned width = width_of(table->cells[i]);

		if (width > most)
			most = width;
	}
	return most;
}

/* Columns of the terminal; 0: stdout is not a terminal. */
static unsigned terminal_width(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) ? 0 : size.ws_col;
}

/* Cuts the last cell of a row whose other cells take that many columns of the terminal. */
static void cut_cell(char *text, unsigned taken, unsigned terminal)
{
	unsigned room = terminal > taken + CUT_MIN ? terminal - taken : CUT_MIN, width = 0;

	if (width_of(text) <= room)
		return;
	for (; *text && width + strlen(CUT_MARK) < room; width++)
		do
			text++;
		while ((*text & 0xc0) == 0x80);
	/* Fits: the text that is cut off is at least as long as the mark. */
	strcpy(text, CUT_MARK);
}

/* No trailing spaces: the row ends with its last cell that has text. */
static void print_row(const struct table *table, char **cells, const unsigned *widths,
		      const char *indent)
{
	unsigned nr = table->nr_columns;

	while (nr && !*cells[nr - 1])
		nr--;
	fputs(indent, stdout);
	for (unsigned i = 0; i < nr; i++) {
		int blanks = (int)(widths[i] - width_of(cells[i]));

		if (table->columns[i].side == TABLE_RIGHT)
			printf("%*s%s", blanks, "", cells[i]);
		else
			printf("%s%*s", cells[i], i + 1 < nr ? blanks : 0, "");
		if (i + 1 < nr)
			fputs("  ", stdout);
	}
	putchar('\n');
}

void table_end(struct table *table, const char *indent)
{
	unsigned *widths = calloc(table->nr_columns + 1, sizeof(*widths));
	unsigned terminal = terminal_width(), taken = (unsigned)strlen(indent);
	unsigned last = table->nr_columns - 1;

	for (unsigned i = 0; widths && i < table->nr_columns; i++) {
		widths[i] = widest(table, i);
		taken += i < last ? widths[i] + 2 : 0;
	}
	if (terminal && table->columns[last].side == TABLE_CUT)
		for (unsigned i = last; i < table->nr_cells; i += table->nr_columns)
			cut_cell(table->cells[i], taken, terminal);
	for (unsigned i = 0; widths && i + table->nr_columns <= table->nr_cells;
	     i += table->nr_columns)
		print_row(table, &table->cells[i], widths, indent);
	table_drop(table);
	free(widths);
}

void table_drop(struct table *table)
{
	for (unsigned i = 0; i < table->nr_cells; i++)
		free(table->cells[i]);
	free(table->cells);
}
