/* SPDX-License-Identifier: MIT */
#include "common/error.h"
#include "supervisor/interfaces.h"
#include "varlink/idl.h"
#include "varlink/varlink.h"
#include "tests/unit/test.h"

#include <errno.h>

static struct varlink_idl *parsed(const char *text)
{
	struct varlink_idl *idl = NULL;
	struct error err;

	if (varlink_idl_parse(text, &idl, &err))
		fail_msg("%s", err.text);
	return idl;
}

static void test_our_own_interfaces(void **state)
{
	static const char *const methods[] = { "List",    "Show",   "Stats",    "Export",
					       "Remove",  "Resize", "Suspend",  "Resume",
					       "Upgrade", "Reload", "Shutdown", "Monitor" };
	static const char *const errors[] = { "NoSuchExport", "Exists", "Busy",
					      "Invalid",      "Failed", "NotPermitted" };
	struct varlink_idl *idl = parsed(interface_io_ublkd);
	unsigned i;

	(void)state;
	assert_string_equal(varlink_idl_name(idl), "io.ublkd");
	assert_string_equal(varlink_idl_text(idl), interface_io_ublkd);
	for (i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
		assert_non_null(varlink_idl_method(idl, methods[i]));
		assert_string_equal(varlink_idl_method_at(idl, i)->name, methods[i]);
	}
	assert_null(varlink_idl_method_at(idl, i));
	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		assert_non_null(varlink_idl_error(idl, errors[i]));
	assert_null(varlink_idl_method(idl, "Busy"));
	assert_null(varlink_idl_error(idl, "List"));
	varlink_idl_free(idl);

	idl = parsed(interface_org_varlink_service);
	assert_string_equal(varlink_idl_name(idl), "org.varlink.service");
	assert_non_null(varlink_idl_method(idl, "GetInfo"));
	varlink_idl_free(idl);
}

static void test_the_grammar(void **state)
{
	static const char *const good[] = {
		"interface a.b",
		"interface a.b\n",
		"# first\n\n  interface\ta.b # behind\n#last",
		"interface a-b.c--d.0e-1",
		"interface a.b method A()->()",
		"interface a.b method A ( ) -> ( ) error E()type T()",
		"interface a.b\nmethod A(a: int, b : ?bool,c:float) -> (d: []string, e: [string]int)",
		"interface a.b\ntype T (one, two, three_4)\nmethod A(t: ?[]?T) -> (u: [string]?[][]T)",
		"interface a.b\nmethod A(s: (x: int, e: (a, b)), o: object) -> ()",
		"interface a.b\ntype T (next: ?T)",
		"interface a.b\ntype T (integer: int, boolean: bool)",
		"interface a.b\r\ntype T (\r\n  a: int # why\r\n)\r\n",
		"interface a.b\nmethod Method(method: string, type: int, error: bool) -> ()",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++)
		varlink_idl_free(parsed(good[i]));
}

static void test_errors_name_the_line(void **state)
{
	static const struct {
		const char *text, *about;
	} bad[] = {
		{ "", "line 1: 'interface' is missing before 'the end'" },
		{ "\n\ninterfaces a.b", "line 3" },
		{ "interface a", "name" },
		{ "interface a.", "name" },
		{ "interface .a", "name" },
		{ "interface a..b", "" },
		{ "interface a.b-", "" },
		{ "interface a.-b", "" },
		{ "interface 1.b", "name" },
		{ "interface a.b\nfoo",
		  "line 2: 'type', 'method' or 'error' is missing before 'foo'" },
		{ "interface a.b\nmethod", "line 2" },
		{ "interface a.b\nmethod a() -> ()", "capital" },
		{ "interface a.b\nmethod A", "'('" },
		{ "interface a.b\nmethod A(", "field" },
		{ "interface a.b\nmethod A()", "'->'" },
		{ "interface a.b\nmethod A() -> ", "'('" },
		{ "interface a.b\nmethod A() -> (a)", "A has a field without a type" },
		{ "interface a.b\nmethod A(a) -> ()", "A has a field without a type" },
		{ "interface a.b\nerror A(a, b)", "A has a field without a type" },
		{ "interface a.b\nmethod A(a: ) -> ()", "a type" },
		{ "interface a.b\nmethod A(a: int,) -> ()", "field" },
		{ "interface a.b\nmethod A(a: int b: int) -> ()", "')'" },
		{ "interface a.b\nmethod A(a: ??int) -> ()", "a type" },
		{ "interface a.b\nmethod A(a: [int]string) -> ()", "'[]' or '[string]'" },
		{ "interface a.b\nmethod A(a: [] ) -> ()", "a type" },
		{ "interface a.b\nmethod A(a: integer) -> ()", "a type" },
		{ "interface a.b\nmethod A(_a: int) -> ()", "field" },
		{ "interface a.b\nmethod A(a_: int) -> ()", "before '_:'" },
		{ "interface a.b\nmethod A(a__b: int) -> ()", "" },
		{ "interface a.b\nmethod A(a: int,\n a: bool) -> ()", "line 3: a is there twice" },
		{ "interface a.b\ntype T (a: int, b)", "':'" },
		{ "interface a.b\ntype T (a, b: int)", "" },
		{ "interface a.b\ntype T (a, a)", "twice" },
		{ "interface a.b\ntype T (a: U)", "line 2: U is a type that is not there" },
		{ "interface a.b\ntype T (a: int)\nmethod T() -> ()", "line 3: T is there twice" },
		{ "interface a.b\nmethod A(a: A) -> ()", "A is a type that is not there" },
		{ "interface a.b interface c.d", "'type'" },
	};
	struct varlink_idl *idl;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (varlink_idl_parse(bad[i].text, &idl, &err) != -EINVAL)
			fail_msg("'%s' was taken", bad[i].text);
		if (!strstr(err.text, bad[i].about))
			fail_msg("'%s': '%s' does not say \"%s\"", bad[i].text, err.text,
				 bad[i].about);
	}
}

/* A text that is cut anywhere is refused, or is whole without what was cut. */
static void test_cut_texts(void **state)
{
	static const char text[] = "interface a.b\n"
				   "type T (a: ?[]int, b: [string](x, y), c: ?T) # T\n"
				   "method M(t: T) -> (u: ?object)\n"
				   "error E (s: string)\n";
	char *cut = strdup(text);
	struct varlink_idl *idl;
	unsigned taken = 0;

	(void)state;
	for (size_t n = sizeof(text) - 1; n--;) {
		cut[n] = 0;
		if (varlink_idl_parse(cut, &idl, NULL))
			continue;
		varlink_idl_free(idl);
		taken++;
	}
	/* After the name's two letters and its line's end, and after each member. */
	assert_true(is_between(taken, 5, 15));
	free(cut);
}

static void test_deep_types_are_refused(void **state)
{
	char text[4096] = "interface a.b type T (a: ";
	struct varlink_idl *idl;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < VARLINK_IDL_DEPTH - 1; i++)
		strcat(text, "[]");
	strcat(text, "int)");
	varlink_idl_free(parsed(text));
	strcpy(text, "interface a.b type T (a: ");
	for (unsigned i = 0; i < 500; i++)
		strcat(text, "(a:");
	assert_int_equal(varlink_idl_parse(text, &idl, &err), -EINVAL);
	assert_non_null(strstr(err.text, "too many"));
}

static const char values[] = "interface a.b\n"
			     "type Color (red, green)\n"
			     "type Point (x: int, y: int, color: ?Color)\n"
			     "type Tree (name: string, below: ?[]Tree)\n"
			     "method M(b: ?bool, i: ?int, f: ?float, s: ?string, o: ?object,\n"
			     "  a: ?[]int, m: ?[string]?string, p: ?Point, q: ?[]Point, t: ?Tree,\n"
			     "  e: ?(one, two), n: ?(deep: (deeper: bool))) -> ()\n"
			     "method N(must: int) -> ()\n";

static void test_values_are_checked(void **state)
{
	static const struct {
		const char *json, *where; /* where: NULL: it is right */
	} all[] = {
		{ "{}", NULL },
		{ "{'b':true,'i':-1,'f':1.5,'s':'x','o':{'any':[1,{}]}}", NULL },
		{ "{'f':1,'i':9223372036854775807}", NULL },
		{ "{'b':null,'i':null,'f':null,'s':null,'o':null,'a':null,'m':null,'p':null}",
		  NULL },
		{ "{'a':[],'m':{},'q':[]}", NULL },
		{ "{'a':[1,2],'m':{'k':'v','n':null},'p':{'x':1,'y':2,'color':'green'}}", NULL },
		{ "{'t':{'name':'a','below':[{'name':'b'},{'name':'c','below':[]}]}}", NULL },
		{ "{'e':'two','n':{'deep':{'deeper':false}}}", NULL },
		{ "[]", "" },
		{ "{'b':1}", "b" },
		{ "{'b':'true'}", "b" },
		{ "{'i':1.0}", "i" },
		{ "{'i':'1'}", "i" },
		{ "{'i':true}", "i" },
		{ "{'f':'1'}", "f" },
		{ "{'s':1}", "s" },
		{ "{'s':['x']}", "s" },
		{ "{'o':[]}", "o" },
		{ "{'o':'x'}", "o" },
		{ "{'a':{}}", "a" },
		{ "{'a':[1,'2']}", "a[1]" },
		{ "{'a':[null]}", "a[0]" },
		{ "{'m':[]}", "m" },
		{ "{'m':{'k':1}}", "m[k]" },
		{ "{'p':{'x':1}}", "p.y" },
		{ "{'p':{'x':1,'y':null}}", "p.y" },
		{ "{'p':{'x':1,'y':2,'z':3}}", "p.z" },
		{ "{'p':{'x':1,'y':2,'color':'blue'}}", "p.color" },
		{ "{'p':{'x':1,'y':2,'color':1}}", "p.color" },
		{ "{'q':[{'x':1,'y':2},{'x':1,'y':'2'}]}", "q[1].y" },
		{ "{'t':{'name':'a','below':[{'name':'b','below':[{}]}]}}",
		  "t.below[0].below[0].name" },
		{ "{'e':'three'}", "e" },
		{ "{'n':{'deep':{}}}", "n.deep.deeper" },
		{ "{'n':{'deep':true}}", "n.deep" },
		{ "{'B':true}", "B" },
		{ "{'':1}", "" },
	};
	struct varlink_idl *idl = parsed(values);
	const struct varlink_type *type = varlink_idl_method(idl, "M")->in;

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		char text[256], where[64] = "untouched";
		json_t *json;
		int ret;

		snprintf(text, sizeof(text), "%s", all[i].json);
		for (char *c = text; *c; c++)
			*c = *c == '\'' ? '"' : *c;
		json = json_loads(text, 0, NULL);
		assert_non_null(json);
		ret = varlink_idl_check(type, json, where, sizeof(where));
		if (ret != (all[i].where ? -EINVAL : 0) ||
		    (all[i].where && strcmp(where, all[i].where)))
			fail_msg("%s: %d at '%s'", text, ret, where);
		json_decref(json);
	}
	varlink_idl_free(idl);
}

static void test_a_long_place_is_cut(void **state)
{
	struct varlink_idl *idl = parsed(values);
	const struct varlink_type *type = varlink_idl_method(idl, "M")->in;
	json_t *inner = json_pack("{s:s, s:[{}]}", "name", "a", "below");
	json_t *json = json_pack("{s:o}", "t", inner);
	char where[12], guard[8] = "guard", tiny[1];

	(void)state;
	assert_int_equal(varlink_idl_check(type, json, where, sizeof(where)), -EINVAL);
	assert_string_equal(where, "t.below[0].");
	assert_int_equal(varlink_idl_check(type, json, tiny, sizeof(tiny)), -EINVAL);
	assert_string_equal(tiny, "");
	assert_int_equal(varlink_idl_check(type, json, NULL, 0), -EINVAL);
	assert_string_equal(guard, "guard");
	json_decref(json);
	json = json_pack("{}");
	assert_int_equal(varlink_idl_check(varlink_idl_method(idl, "N")->in, json, where,
					   sizeof(where)),
			 -EINVAL);
	assert_string_equal(where, "must");
	json_decref(json);
	varlink_idl_free(idl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_our_own_interfaces),
		cmocka_unit_test(test_the_grammar),
		cmocka_unit_test(test_errors_name_the_line),
		cmocka_unit_test(test_cut_texts),
		cmocka_unit_test(test_deep_types_are_refused),
		cmocka_unit_test(test_values_are_checked),
		cmocka_unit_test(test_a_long_place_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
