/* SPDX-License-Identifier: MIT */
/*
 * Rows of text in aligned columns, on stdout.
 */
#ifndef UBLKD_TABLE_H
#define UBLKD_TABLE_H

struct table_column {
	const char *title; /* NULL ends the columns */
	enum {
		TABLE_LEFT,
		TABLE_RIGHT,
		TABLE_CUT, /* left, and cut where the terminal ends; the last column only */
	} side;
};

/* Owner: whoever began it; printed and released by table_end(). */
struct table {
	const struct table_column *columns;
	unsigned nr_columns, nr_cells, room;
	char **cells; /* row by row, the titles first */
};

void table_begin(struct table *table, const struct table_column *columns);

/* The next cell, copied; a row is full after as many as there are columns. */
void table_add(struct table *table, const char *text);
void table_addf(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Prints all with `indent` before each row, and releases it. */
void table_end(struct table *table, const char *indent);

/* Releases it without printing. */
void table_drop(struct table *table);

#endif
