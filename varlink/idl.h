/* SPDX-License-Identifier: MIT */
/*
 * A Varlink interface description (varlink.org, "Interface Definition"): read
 * once, then asked whether JSON values are what it says.  Pure; any thread, as
 * long as nobody frees it.
 */
#ifndef UBLKD_VARLINK_IDL_H
#define UBLKD_VARLINK_IDL_H

#include <jansson.h>
#include <stddef.h>

struct error;
struct varlink_idl;
struct varlink_type;

/* Types in types, such as arrays of structs, may be this deep in a description. */
#define VARLINK_IDL_DEPTH 32

struct varlink_idl_method {
	const char *name; /* "List" */
	const struct varlink_type *in, *out;
};

/*
 * Reads text, which is copied.  Returns 0 with *idl, which varlink_idl_free()
 * releases; -EINVAL with err filled ("line 12: ..."), or -ENOMEM.
 */
int varlink_idl_parse(const char *text, struct varlink_idl **idl, struct error *err);
void varlink_idl_free(struct varlink_idl *idl);

/* "io.ublkd", and the text as it was given. */
const char *varlink_idl_name(const struct varlink_idl *idl);
const char *varlink_idl_text(const struct varlink_idl *idl);

/* The method of that name, or NULL; index as an array's, NULL past the end. */
const struct varlink_idl_method *varlink_idl_method(const struct varlink_idl *idl,
						    const char *name);
const struct varlink_idl_method *varlink_idl_method_at(const struct varlink_idl *idl,
						       unsigned index);

/* The parameters of the error of that name (without the interface's), or NULL. */
const struct varlink_type *varlink_idl_error(const struct varlink_idl *idl, const char *name);

/*
 * Whether value is of that type: every field that is not optional there, none
 * that is unknown, all of their types.  An optional field may be missing or null.
 * Returns 0, or -EINVAL and in where, as far as it fits, the first field that is
 * not so, as in "options", "exports[3].name" or "facts[reconnects]"; "" for value
 * itself.
 */
int varlink_idl_check(const struct varlink_type *type, json_t *value, char *where,
		      size_t where_size);

#endif
