/* SPDX-License-Identifier: MIT */
#include "backends/nbd/cover.h"

bool nbd_cover_add(struct nbd_cover *c, uint32_t start, uint32_t length)
{
	uint32_t end = start + length;
	unsigned before = c->nr, after = c->nr;

	if (!length)
		return true;
	for (unsigned i = 0; i < c->nr; i++) {
		if (start < c->parts[i].end && c->parts[i].start < end)
			return false;
		if (c->parts[i].end == start)
			before = i;
		if (c->parts[i].start == end)
			after = i;
	}
	if (before < c->nr && after < c->nr) {
		c->parts[before].end = c->parts[after].end;
		c->parts[after] = c->parts[--c->nr];
	} else if (before < c->nr) {
		c->parts[before].end = end;
	} else if (after < c->nr) {
		c->parts[after].start = start;
	} else if (c->nr < NBD_COVER_PARTS) {
		c->parts[c->nr].start = start;
		c->parts[c->nr++].end = end;
	} else {
		return false;
	}
	return true;
}
