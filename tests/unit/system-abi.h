/* SPDX-License-Identifier: MIT */
/*
 * The system's own header of the ublk driver, in a form that can be compared.
 */
#ifndef UBLKD_SYSTEM_ABI_H
#define UBLKD_SYSTEM_ABI_H

struct abi_fact {
	const char *name; /* a macro, "struct" (its size) or "struct.member" (its offset) */
	unsigned long long value;
};

extern const struct abi_fact system_abi[];
extern const unsigned system_abi_count;

#endif
