/* SPDX-License-Identifier: MIT */
/*
 * json-schema SCHEMA [FILE]: checks each JSON value in FILE (default: stdin) against a JSON Schema
 * (draft 2020-12), strictly: a property that the schema does not describe is an error as well.
 * Prints the number of values.
 *
 * json-schema --check SCHEMA...: checks the schemas alone.
 * json-schema --types SCHEMA: prints the types in its $defs as lines, in the form of
 * tests/lib/interface.sh.
 *
 * Read check_value() first: it knows the few keywords that docs/schemas uses. check_schema() refuses
 * every other keyword, so that none is ignored. Null fits no type: a field without a value is left out.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOCUMENTS 32

static struct document {
	char path[1024];
	json_t *root;
} documents[DOCUMENTS];

/* Where a schema stands: its document resolves "#/$defs/NAME". */
struct schema {
	const struct document *document;
	const json_t *json;
};

/* Of errors, for oneOf: alternatives that do not match are no errors. */
static unsigned silent;

static bool complain(const char *at, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool complain(const char *at, const char *format, ...)
{
	va_list arguments;

	if (silent)
		return false;
	fprintf(stderr, "%s: ", *at ? at : "the value");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return false;
}

static const char *text_of(struct schema s, const char *key)
{
	return json_string_value(json_object_get(s.json, key));
}

static struct schema member(struct schema s, const char *key)
{
	return (struct schema){ s.document, json_object_get(s.json, key) };
}

/* ---- schemas ---- */

static const char *const types[] = { "object", "array",   "string", "integer",
				     "number", "boolean", NULL };
static const char *const keywords[] = {
	"$schema",     "$comment", "$defs",      "$ref",     "title",
	"description", "type",     "properties", "required", "additionalProperties",
	"items",       "enum",     "oneOf",      NULL
};

static bool is_in(const char *word, const char *const *list)
{
	while (*list && strcmp(word, *list) != 0)
		list++;
	return *list;
}

static const struct document *load(const char *path);

/* The schema that a $ref leads to: "[FILE]#/$defs/NAME". */
static struct schema follow(struct schema s, const char *ref)
{
	static const char defs[] = "#/$defs/";
	const char *hash = strstr(ref, defs), *slash = strrchr(s.document->path, '/');
	struct schema found = { s.document, NULL };
	char path[1024];

	if (!hash)
		return found;
	if (hash > ref) {
		snprintf(path, sizeof(path), "%.*s%.*s",
			 slash ? (int)(slash + 1 - s.document->path) : 0, s.document->path,
			 (int)(hash - ref), ref);
		found.document = load(path);
	}
	found.json = json_object_get(json_object_get(found.document->root, "$defs"),
				     hash + sizeof(defs) - 1);
	return found;
}

static bool check_schema(struct schema s, const char *at);

static bool is_camel_case(const char *name)
{
	if (!islower((unsigned char)*name))
		return false;
	while (isalnum((unsigned char)*name))
		name++;
	return !*name;
}

static bool check_properties(struct schema s, const char *at)
{
	struct schema properties = member(s, "properties");
	const json_t *required = json_object_get(s.json, "required");
	const char *name;
	char below[512];
	bool well = true;
	json_t *property;
	size_t i;

	json_object_foreach((json_t *)properties.json, name, property) {
		struct schema one = { s.document, property };
		const char *description = text_of(one, "description");

		snprintf(below, sizeof(below), "%s.%s", at, name);
		well &= check_schema(one, below);
		if (!is_camel_case(name))
			well = complain(below, "its name is not in camelCase");
		if (!description || !*description)
			well = complain(below, "it has no description");
	}
	json_array_foreach(required, i, property)
		if (!json_object_get(properties.json, json_string_value(property)))
			well = complain(at, "'%s' is required and not described",
					json_string_value(property));
	return well;
}

static bool check_parts(struct schema s, const char *at)
{
	static const char *const parts[] = { "items", "additionalProperties", NULL };
	bool well = true;
	char below[512];
	const char *name;
	json_t *one;
	size_t i;

	for (const char *const *part = parts; *part; part++) {
		snprintf(below, sizeof(below), "%s.%s", at, *part);
		if (json_object_get(s.json, *part))
			well &= check_schema(member(s, *part), below);
	}
	json_array_foreach(json_object_get(s.json, "oneOf"), i, one)
		well &= check_schema((struct schema){ s.document, one }, at);
	json_object_foreach(json_object_get(s.json, "$defs"), name, one) {
		snprintf(below, sizeof(below), "%s#%s", at, name);
		well &= check_schema((struct schema){ s.document, one }, below);
	}
	return well;
}

static bool check_schema(struct schema s, const char *at)
{
	const char *type = text_of(s, "type"), *ref = text_of(s, "$ref"), *keyword;
	bool well = true;
	json_t *value;

	if (!json_is_object(s.json))
		return complain(at, "it is no schema");
	json_object_foreach((json_t *)s.json, keyword, value)
		if (!is_in(keyword, keywords))
			well = complain(at, "the keyword %s is not known here", keyword);
	if (json_object_get(s.json, "type") && (!type || !is_in(type, types)))
		well = complain(at, "its type is not known here");
	if (!type && !ref && !json_object_get(s.json, "enum") &&
	    !json_object_get(s.json, "oneOf") && !json_object_get(s.json, "$defs"))
		well = complain(at, "it fits every value");
	if (ref && !follow(s, ref).json)
		well = complain(at, "$ref leads nowhere: %s", ref);
	return (int)well & (int)check_properties(s, at) & (int)check_parts(s, at);
}

/* Ends the program unless it is there and right. */
static const struct document *load(const char *path)
{
	struct document *document = documents;
	json_error_t error;

	while (document->root && strcmp(document->path, path) != 0)
		if (++document == documents + DOCUMENTS)
			abort();
	if (document->root)
		return document;
	snprintf(document->path, sizeof(document->path), "%s", path);
	document->root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (!document->root) {
		fprintf(stderr, "%s:%d: %s\n", path, error.line, error.text);
		exit(1);
	}
	if (!check_schema((struct schema){ document, document->root }, path))
		exit(1);
	return document;
}

/* ---- values ---- */

static const char *type_of(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "object";
	case JSON_ARRAY:
		return "array";
	case JSON_STRING:
		return "string";
	case JSON_INTEGER:
		return "integer";
	case JSON_REAL:
		return "number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "boolean";
	default:
		return "null";
	}
}

static bool check_value(struct schema s, json_t *value, const char *at);

static bool check_type(struct schema s, const json_t *value, const char *at)
{
	const char *type = text_of(s, "type"), *is = type_of(value);
	const json_t *values = json_object_get(s.json, "enum");
	bool known = !values;
	json_t *one;
	size_t i;

	if (type && strcmp(type, is) != 0 && !(json_is_integer(value) && !strcmp(type, "number")))
		return complain(at, "it is of type %s, not %s", is, type);
	json_array_foreach(values, i, one)
		known |= json_equal(one, value);
	return known || complain(at, "%s is none of the values of its enumeration",
				 json_is_string(value) ? json_string_value(value) : is);
}

static bool check_object(struct schema s, json_t *value, const char *at)
{
	struct schema rest = member(s, "additionalProperties");
	const char *name;
	bool well = true;
	json_t *one;
	size_t i;

	json_array_foreach(json_object_get(s.json, "required"), i, one)
		if (!json_object_get(value, json_string_value(one)))
			well = complain(at, "it has no '%s'", json_string_value(one));
	json_object_foreach(value, name, one) {
		struct schema property = member(member(s, "properties"), name);
		char below[512];

		snprintf(below, sizeof(below), "%s.%s", at, name);
		if (property.json || rest.json)
			well &= check_value(property.json ? property : rest, one, below);
		else
			well = complain(below, "the schema does not describe it");
	}
	return well;
}

static bool check_array(struct schema s, json_t *value, const char *at)
{
	bool well = true;
	char below[512];
	json_t *one;
	size_t i;

	json_array_foreach(value, i, one) {
		snprintf(below, sizeof(below), "%s[%zu]", at, i);
		well &= check_value(member(s, "items"), one, below);
	}
	return well;
}

static bool check_one_of(struct schema s, json_t *value, const char *at)
{
	json_t *all = json_object_get(s.json, "oneOf"), *one;
	unsigned matches = 0;
	size_t i;

	silent++;
	json_array_foreach(all, i, one)
		matches += check_value((struct schema){ s.document, one }, value, at);
	silent--;
	if (matches == 1)
		return true;
	if (!matches)
		json_array_foreach(all, i, one)
			check_value((struct schema){ s.document, one }, value, at);
	return complain(at, "%u of the alternatives of oneOf match", matches);
}

static bool check_value(struct schema s, json_t *value, const char *at)
{
	const char *type = text_of(s, "type"), *ref = text_of(s, "$ref");
	bool well = true;

	if (ref)
		well &= check_value(follow(s, ref), value, at);
	if (json_object_get(s.json, "oneOf"))
		well &= check_one_of(s, value, at);
	if (!check_type(s, value, at))
		return false;
	if (type && json_is_object(value))
		well &= check_object(s, value, at);
	if (type && json_is_array(value))
		well &= check_array(s, value, at);
	return well;
}

static int check_file(const struct document *document, const char *path)
{
	FILE *file = path ? fopen(path, "r") : stdin;
	unsigned nr = 0, wrong = 0;

	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	for (;;) {
		json_error_t error;
		json_t *value;
		int c;

		while ((c = fgetc(file)) != EOF && isspace(c))
			;
		if (c == EOF)
			break;
		ungetc(c, file);
		value = json_loadf(file, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error);
		if (!value) {
			fprintf(stderr, "value %u, line %d: %s\n", nr, error.line, error.text);
			return 1;
		}
		nr++;
		wrong += !check_value((struct schema){ document, document->root }, value, "");
		json_decref(value);
	}
	if (path)
		fclose(file);
	printf("%u\n", nr);
	if (!nr)
		fprintf(stderr, "there is no value\n");
	return !nr || wrong;
}

/* ---- types ---- */

static void print_type(struct schema s)
{
	const char *type = text_of(s, "type"), *ref = text_of(s, "$ref");
	const json_t *values = json_object_get(s.json, "enum");
	json_t *one;
	size_t i;

	json_array_foreach(values, i, one)
		printf("%s%s", i ? ", " : "(", json_string_value(one));
	if (values)
		printf(")");
	else if (ref)
		printf("%s", strrchr(ref, '/') + 1);
	else if (!type)
		printf("?");
	else if (!strcmp(type, "array"))
		printf("[]"), print_type(member(s, "items"));
	else if (!strcmp(type, "object"))
		printf("[string]"), print_type(member(s, "additionalProperties"));
	else
		printf("%s", !strcmp(type, "integer")   ? "int"
			     : !strcmp(type, "boolean") ? "bool"
			     : !strcmp(type, "number")  ? "float"
							: type);
}

static bool is_required(struct schema s, const char *name)
{
	json_t *one;
	size_t i;

	json_array_foreach(json_object_get(s.json, "required"), i, one)
		if (!strcmp(json_string_value(one), name))
			return true;
	return false;
}

static void print_types(const struct document *document)
{
	struct schema root = { document, document->root };
	const char *name, *field;
	json_t *type, *property, *one;
	size_t i;

	json_object_foreach(json_object_get(root.json, "$defs"), name, type) {
		struct schema s = { document, type };

		printf("type %s\n", name);
		json_object_foreach(json_object_get(type, "properties"), field, property) {
			printf("%s.%s: %s", name, field, is_required(s, field) ? "" : "?");
			print_type((struct schema){ document, property });
			putchar('\n');
			json_array_foreach(json_object_get(property, "enum"), i, one)
				printf("%s.%s = %s\n", name, field, json_string_value(one));
		}
	}
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--check")) {
		for (int i = 2; i < argc; i++)
			load(argv[i]);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--types")) {
		print_types(load(argv[2]));
		return 0;
	}
	if (argc == 2 || argc == 3)
		return check_file(load(argv[1]), argc == 3 ? argv[2] : NULL);
	fprintf(stderr, "json-schema SCHEMA [FILE] | --check SCHEMA... | --types SCHEMA\n");
	return 2;
}
