/* SPDX-License-Identifier: MIT */
/*
 * The kernel says which devices there are and whether a worker serves them. Their names are in
 * NAME_RECORDS, which everybody may read; URI, origin and worker are in the records of
 * supervisor/record.c, which only root may read: what cannot be read is left out.
 *
 * A worker lives on while ublkd does not run, so an export is live then, too. One whose worker
 * has died meanwhile has state recovering: the next ublkd recovers it, and its I/O waits for that.
 */
#include "supervisor/describe_offline.h"
#include "common/error.h"
#include "engine/control.h"
#include "engine/device_list.h"
#include "engine/state.h"
#include "supervisor/describe_device.h"
#include "common/json_set.h"
#include "supervisor/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS "/run/ublkd/exports" /* of an ublkd that was given no other state directory */

static void add_record(json_t *json, const char *name)
{
	char path[sizeof(RECORDS) + NAME_MAX_LENGTH + 16];
	json_t *record;
	json_int_t pid;

	snprintf(path, sizeof(path), RECORDS "/%s.json", name);
	record = json_load_file(path, 0, NULL);
	json_set_text(json, "uri", json_string_value(json_object_get(record, "uri")));
	json_set_text(json, "origin", json_string_value(json_object_get(record, "origin")));
	pid = json_integer_value(json_object_get(json_object_get(record, "worker"), "pid"));
	if (pid > 0 && !json_object_get(json, "reason"))
		json_set_number(json, "pid", (uint64_t)pid);
	json_decref(record);
}

/* Turns a device of the kernel's into the export of that name. */
static void make_export(json_t *json, const char *name)
{
	char link[NAME_MAX_LENGTH + sizeof(NAME_DIRECTORY) + 2];
	bool served = !json_object_get(json, "reason");

	json_set_text(json, "name", name);
	json_set_text(json, "origin", "requested");
	json_set_text(json, "state", export_state_name(served ? EXPORT_LIVE : EXPORT_RECOVERING));
	snprintf(link, sizeof(link), NAME_DIRECTORY "/%s", name);
	json_set_text(json, "link", link);
	json_object_del(json, "program");
	if (!served)
		json_set_text(json, "reason",
			      "its worker has exited: I/O waits until ublkd runs again");
	add_record(json, name);
}

int describe_offline(struct control *control, json_t **exports, struct error *err)
{
	char name[NAME_MAX_LENGTH + 1], device[32];
	struct error ignored;
	uint32_t *ids;
	unsigned nr;
	int ret = device_list_find(&ids, &nr);

	if (ret)
		return error_set(err, -ret, "/dev: %s", strerror(-ret));
	*exports = json_array();
	for (unsigned i = 0; i < nr; i++) {
		json_t *json = describe_device(control, ids[i]);

		if (!json)
			continue;
		snprintf(device, sizeof(device), "ublkb%u", ids[i]);
		if (!name_lookup(NAME_RECORDS, device, name, &ignored))
			make_export(json, name);
		json_array_append_new(*exports, json);
	}
	free(ids);
	return 0;
}
