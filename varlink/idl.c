/* SPDX-License-Identifier: MIT */
/*
 * Descriptions of interfaces in Varlink's language: parses them, and checks values against them.
 *
 * The parser descends recursively, with one function for each rule of the grammar. What it parses
 * is allocated in blocks of the description, and freed with it. Descriptions are part of the
 * program; a test finds mistakes in them before a client does.
 *
 * Checking a value reports the path of the first wrong member ("parameters.options.size"), which is
 * built from the inside out. Unknown members are refused, too, so that a client that misspells an
 * option gets an error instead of service without the option.
 */
#include "varlink/idl.h"
#include "common/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	KIND_BOOL,
	KIND_INT,
	KIND_FLOAT,
	KIND_STRING,
	KIND_OBJECT, /* any JSON object */
	KIND_ARRAY,
	KIND_MAP,
	KIND_STRUCT,
	KIND_ENUM,
	KIND_NAMED, /* another type of this description, by its name */
};

struct field {
	struct field *next;
	const char *name;
	struct varlink_type *type; /* NULL: a word of an enum */
};

struct varlink_type {
	enum kind kind;
	bool optional;
	const struct varlink_type *element; /* of an array or map; of a name, what it names */
	struct field *fields;               /* of a struct or enum */
	const char *name;                   /* of KIND_NAMED */
	unsigned line;
	struct varlink_type *next_named; /* all of KIND_NAMED */
};

struct member {
	struct member *next;
	enum {
		MEMBER_TYPE,
		MEMBER_METHOD,
		MEMBER_ERROR
	} what;
	struct varlink_idl_method method; /* name, and its in is a type's or an error's */
};

struct block {
	struct block *next;
	max_align_t memory[];
};

struct varlink_idl {
	char *text;
	const char *name;
	struct member *members;
	struct varlink_type *named;
	struct block *blocks;
};

struct idl_reader {
	struct varlink_idl *idl;
	const char *at;
	unsigned line, depth;
	struct error *err;
	int ret; /* the first failure */
};

/* ---- memory ---- */

static void *take(struct idl_reader *r, size_t size)
{
	struct block *block = calloc(1, sizeof(*block) + size);

	if (!block) {
		r->ret = error_set(r->err, ENOMEM, "no memory for an interface description");
		return NULL;
	}
	block->next = r->idl->blocks;
	r->idl->blocks = block;
	return block->memory;
}

static const char *take_text(struct idl_reader *r, const char *from, size_t length)
{
	char *text = take(r, length + 1);

	if (text)
		memcpy(text, from, length);
	return text;
}

/* ---- words ---- */

static void complain(struct idl_reader *r, const char *wanted)
{
	char found[32];
	int length = 0;

	if (r->ret)
		return;
	while (length < 20 && r->at[length] && !isspace((unsigned char)r->at[length]))
		length++;
	snprintf(found, sizeof(found), "%.*s", length, r->at);
	r->ret = error_set(r->err, EINVAL, "line %u: %s is missing before '%s'", r->line, wanted,
			   *r->at ? found : "the end");
}

static void complain_of(struct idl_reader *r, unsigned line, const char *name, const char *what)
{
	if (!r->ret)
		r->ret = error_set(r->err, EINVAL, "line %u: %s %s", line, name, what);
}

static void skip_blanks(struct idl_reader *r)
{
	for (; *r->at; r->at++) {
		if (*r->at == '#')
			r->at += strcspn(r->at, "\n");
		if (*r->at == '\n')
			r->line++;
		else if (!*r->at || !strchr(" \t\r", *r->at))
			return;
	}
}

static bool is_next(const struct idl_reader *r, const char *token)
{
	return !strncmp(r->at, token, strlen(token));
}

static bool skip(struct idl_reader *r, const char *token)
{
	if (r->ret || !is_next(r, token))
		return false;
	r->at += strlen(token);
	skip_blanks(r);
	return true;
}

static void expect(struct idl_reader *r, const char *token)
{
	char quoted[16];

	if (skip(r, token))
		return;
	snprintf(quoted, sizeof(quoted), "'%s'", token);
	complain(r, quoted);
}

/* A keyword, which a blank or a comment follows. */
static bool skip_word(struct idl_reader *r, const char *word)
{
	char behind;

	if (r->ret || !is_next(r, word))
		return false;
	behind = r->at[strlen(word)];
	return behind && strchr(" \t\r\n#", behind) && skip(r, word);
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_letter_or_digit(char c)
{
	return is_letter(c) || (c >= '0' && c <= '9');
}

static const char *end_word(struct idl_reader *r, size_t length)
{
	const char *word = take_text(r, r->at, length);

	r->at += length;
	skip_blanks(r);
	return word;
}

/* "List": of a type, method or error. */
static const char *read_name(struct idl_reader *r)
{
	size_t length = 0;

	if (*r->at < 'A' || *r->at > 'Z') {
		complain(r, "a name that begins with a capital letter");
		return NULL;
	}
	while (is_letter_or_digit(r->at[length]))
		length++;
	return end_word(r, length);
}

/* "readOnly": letters and digits, with single '_' between them. */
static const char *read_field_name(struct idl_reader *r)
{
	size_t length = 0;

	if (!is_letter(*r->at)) {
		complain(r, "the name of a field");
		return NULL;
	}
	while (is_letter_or_digit(r->at[length]) ||
	       (r->at[length] == '_' && is_letter_or_digit(r->at[length + 1])))
		length++;
	return end_word(r, length);
}

/* "io.ublkd": at least two parts, each of letters, digits and '-' between them. */
static const char *read_interface_name(struct idl_reader *r)
{
	size_t length = 0, dots = 0;
	const char *at = r->at;

	if (is_letter(*at)) {
		while (is_letter_or_digit(at[length]) || at[length] == '-' || at[length] == '.') {
			if (!is_letter_or_digit(at[length]) &&
			    (at[length + 1] == '.' || !is_letter_or_digit(at[length - 1])) &&
			    !(at[length] == '-' && at[length - 1] == '-'))
				break;
			dots += at[length++] == '.';
		}
	}
	if (!length || !dots || !is_letter_or_digit(at[length - 1])) {
		complain(r, "the interface's name, as in 'org.example.name',");
		return NULL;
	}
	return end_word(r, length);
}

/* ---- types ---- */

static struct varlink_type *read_type(struct idl_reader *r, bool may_be_optional);

static struct varlink_type *new_type(struct idl_reader *r, enum kind kind)
{
	struct varlink_type *type = take(r, sizeof(*type));

	if (type) {
		type->kind = kind;
		type->line = r->line;
	}
	return type;
}

static bool is_field(const struct field *fields, const char *name)
{
	for (; fields; fields = fields->next)
		if (!strcmp(fields->name, name))
			return true;
	return false;
}

/* "(a: int, b: string)" or "(one, two)"; "()" is a struct. */
static struct varlink_type *read_struct(struct idl_reader *r)
{
	struct varlink_type *type = new_type(r, KIND_STRUCT);
	struct field **end = type ? &type->fields : NULL, *field;
	bool first = true;

	expect(r, "(");
	if (skip(r, ")"))
		return type;
	do {
		field = take(r, sizeof(*field));
		if (r->ret)
			return NULL;
		field->name = read_field_name(r);
		if (r->ret)
			return NULL;
		if (is_field(type->fields, field->name))
			complain_of(r, r->line, field->name, "is there twice");
		if (first && *r->at != ':')
			type->kind = KIND_ENUM;
		first = false;
		if (type->kind == KIND_STRUCT) {
			expect(r, ":");
			field->type = read_type(r, true);
		}
		*end = field;
		end = &field->next;
	} while (skip(r, ","));
	expect(r, ")");
	return r->ret ? NULL : type;
}

static struct varlink_type *read_named(struct idl_reader *r)
{
	struct varlink_type *type = new_type(r, KIND_NAMED);

	if (!type)
		return NULL;
	type->name = read_name(r);
	type->next_named = r->idl->named;
	r->idl->named = type;
	return type;
}

static struct varlink_type *read_element(struct idl_reader *r)
{
	static const struct {
		const char *word;
		enum kind kind;
	} words[] = { { "bool", KIND_BOOL },
		      { "int", KIND_INT },
		      { "float", KIND_FLOAT },
		      { "string", KIND_STRING },
		      { "object", KIND_OBJECT } };

	if (*r->at == '(')
		return read_struct(r);
	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++) {
		size_t length = strlen(words[i].word);

		if (is_next(r, words[i].word) && !is_letter_or_digit(r->at[length])) {
			r->at += length;
			skip_blanks(r);
			return new_type(r, words[i].kind);
		}
	}
	if (*r->at >= 'A' && *r->at <= 'Z')
		return read_named(r);
	complain(r, "a type");
	return NULL;
}

static struct varlink_type *read_type(struct idl_reader *r, bool may_be_optional)
{
	struct varlink_type *type = NULL;
	bool optional = may_be_optional && skip(r, "?");

	if (++r->depth > VARLINK_IDL_DEPTH) {
		complain_of(r, r->line, "a type", "has too many types in it");
	} else if (is_next(r, "[")) {
		type = new_type(r, is_next(r, "[]") ? KIND_ARRAY : KIND_MAP);
		if (type) {
			if (!skip(r, "[]") && !skip(r, "[string]"))
				complain(r, "'[]' or '[string]'");
			type->element = read_type(r, true);
		}
	} else if (!r->ret) {
		type = read_element(r);
	}
	r->depth--;
	if (r->ret)
		return NULL;
	type->optional = optional;
	return type;
}

/* ---- members ---- */

static const struct member *find(const struct varlink_idl *idl, int what, const char *name)
{
	for (const struct member *m = idl->members; m; m = m->next)
		if ((int)m->what == what && !strcmp(m->method.name, name))
			return m;
	return NULL;
}

static void read_member(struct idl_reader *r, struct member **end)
{
	struct member *member = take(r, sizeof(*member));
	unsigned line = r->line;

	if (!member)
		return;
	if (skip_word(r, "type"))
		member->what = MEMBER_TYPE;
	else if (skip_word(r, "method"))
		member->what = MEMBER_METHOD;
	else if (skip_word(r, "error"))
		member->what = MEMBER_ERROR;
	else
		complain(r, "'type', 'method' or 'error'");
	if (!r->ret)
		member->method.name = read_name(r);
	if (!r->ret)
		member->method.in = read_struct(r);
	if (!r->ret && member->what != MEMBER_TYPE && member->method.in->kind != KIND_STRUCT)
		complain_of(r, line, member->method.name, "has a field without a type");
	if (!r->ret && member->what == MEMBER_METHOD) {
		expect(r, "->");
		if (!r->ret)
			member->method.out = read_struct(r);
		if (!r->ret && member->method.out->kind != KIND_STRUCT)
			complain_of(r, line, member->method.name, "has a field without a type");
	}
	for (int what = MEMBER_TYPE; !r->ret && what <= MEMBER_ERROR; what++)
		if (find(r->idl, what, member->method.name))
			complain_of(r, line, member->method.name, "is there twice");
	if (!r->ret)
		*end = member;
}

static void resolve_names(struct idl_reader *r)
{
	for (struct varlink_type *t = r->idl->named; t && !r->ret; t = t->next_named) {
		const struct member *m = find(r->idl, MEMBER_TYPE, t->name);

		if (m)
			t->element = m->method.in;
		else
			complain_of(r, t->line, t->name, "is a type that is not there");
	}
}

static void read_interface(struct idl_reader *r)
{
	struct member **end = &r->idl->members;

	skip_blanks(r);
	if (!skip_word(r, "interface"))
		complain(r, "'interface'");
	if (!r->ret)
		r->idl->name = read_interface_name(r);
	while (!r->ret && *r->at) {
		read_member(r, end);
		if (!r->ret)
			end = &(*end)->next;
	}
	if (!r->ret)
		resolve_names(r);
}

int varlink_idl_parse(const char *text, struct varlink_idl **idl, struct error *err)
{
	struct idl_reader r = { .line = 1, .err = err };

	r.idl = calloc(1, sizeof(*r.idl));
	if (r.idl)
		r.idl->text = strdup(text);
	if (!r.idl || !r.idl->text) {
		varlink_idl_free(r.idl);
		return error_set(err, ENOMEM, "no memory for an interface description");
	}
	r.at = r.idl->text;
	read_interface(&r);
	if (r.ret) {
		varlink_idl_free(r.idl);
		return r.ret;
	}
	*idl = r.idl;
	return 0;
}

void varlink_idl_free(struct varlink_idl *idl)
{
	if (!idl)
		return;
	for (struct block *block = idl->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	free(idl->text);
	free(idl);
}

/* ---- what is in it ---- */

const char *varlink_idl_name(const struct varlink_idl *idl)
{
	return idl->name;
}

const char *varlink_idl_text(const struct varlink_idl *idl)
{
	return idl->text;
}

const struct varlink_idl_method *varlink_idl_method(const struct varlink_idl *idl, const char *name)
{
	const struct member *m = find(idl, MEMBER_METHOD, name);

	return m ? &m->method : NULL;
}

const struct varlink_idl_method *varlink_idl_method_at(const struct varlink_idl *idl,
						       unsigned index)
{
	for (const struct member *m = idl->members; m; m = m->next)
		if (m->what == MEMBER_METHOD && !index--)
			return &m->method;
	return NULL;
}

const struct varlink_type *varlink_idl_error(const struct varlink_idl *idl, const char *name)
{
	const struct member *m = find(idl, MEMBER_ERROR, name);

	return m ? m->method.in : NULL;
}

/* ---- values ---- */

/* Where in a value we are, from the inside out. */
struct place {
	const struct place *in;
	const char *name; /* of a field; of an element, its key or index in brackets */
	char separator;   /* '.' or '[' */
	size_t index;     /* where name is NULL */
};

static size_t write_place(const struct place *place, char *out, size_t size)
{
	size_t length = place->in ? write_place(place->in, out, size) : 0, left = size - length;
	int n = 0;

	if (!place->in)
		return 0;
	if (!place->name)
		n = snprintf(out + length, left, "[%zu]", place->index);
	else if (place->separator == '[')
		n = snprintf(out + length, left, "[%s]", place->name);
	else
		n = snprintf(out + length, left, "%s%s", length ? "." : "", place->name);
	if (n < 0)
		n = 0;
	return (size_t)n < left ? length + (size_t)n : size - 1;
}

struct check {
	char *where;
	size_t size;
};

static int refuse(const struct check *check, const struct place *place)
{
	if (check->size) {
		*check->where = 0;
		write_place(place, check->where, check->size);
	}
	return -EINVAL;
}

static int check_value(const struct check *check, const struct varlink_type *type, json_t *value,
		       const struct place *place);

static int check_struct(const struct check *check, const struct varlink_type *type, json_t *value,
			const struct place *place)
{
	const char *key;
	json_t *ignored;

	if (!json_is_object(value))
		return refuse(check, place);
	for (const struct field *f = type->fields; f; f = f->next) {
		struct place inside = { .in = place, .name = f->name, .separator = '.' };
		json_t *field = json_object_get(value, f->name);
		int ret;

		if (!field && f->type->optional)
			continue;
		ret = field ? check_value(check, f->type, field, &inside) : refuse(check, &inside);
		if (ret)
			return ret;
	}
	json_object_foreach(value, key, ignored) {
		struct place inside = { .in = place, .name = key, .separator = '.' };

		if (!is_field(type->fields, key))
			return refuse(check, &inside);
	}
	return 0;
}

static int check_array(const struct check *check, const struct varlink_type *type, json_t *value,
		       const struct place *place)
{
	if (!json_is_array(value))
		return refuse(check, place);
	for (size_t i = 0; i < json_array_size(value); i++) {
		struct place inside = { .in = place, .index = i };
		int ret = check_value(check, type->element, json_array_get(value, i), &inside);

		if (ret)
			return ret;
	}
	return 0;
}

static int check_map(const struct check *check, const struct varlink_type *type, json_t *value,
		     const struct place *place)
{
	const char *key;
	json_t *element;

	if (!json_is_object(value))
		return refuse(check, place);
	json_object_foreach(value, key, element) {
		struct place inside = { .in = place, .name = key, .separator = '[' };
		int ret = check_value(check, type->element, element, &inside);

		if (ret)
			return ret;
	}
	return 0;
}

static int check_value(const struct check *check, const struct varlink_type *type, json_t *value,
		       const struct place *place)
{
	bool fits = false;

	if (type->optional && json_is_null(value))
		return 0;
	if (type->kind == KIND_NAMED)
		type = type->element;
	switch (type->kind) {
	case KIND_BOOL:
		fits = json_is_boolean(value);
		break;
	case KIND_INT:
		fits = json_is_integer(value);
		break;
	case KIND_FLOAT:
		fits = json_is_number(value);
		break;
	case KIND_STRING:
		fits = json_is_string(value);
		break;
	case KIND_OBJECT:
		fits = json_is_object(value);
		break;
	case KIND_ENUM:
		fits = json_is_string(value) && is_field(type->fields, json_string_value(value));
		break;
	case KIND_ARRAY:
		return check_array(check, type, value, place);
	case KIND_MAP:
		return check_map(check, type, value, place);
	case KIND_STRUCT:
		return check_struct(check, type, value, place);
	case KIND_NAMED:
		break;
	}
	return fits ? 0 : refuse(check, place);
}

int varlink_idl_check(const struct varlink_type *type, json_t *value, char *where,
		      size_t where_size)
{
	struct check check = { where, where_size };
	struct place root = { NULL, NULL, 0, 0 };

	return check_value(&check, type, value, &root);
}
