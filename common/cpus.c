/* SPDX-License-Identifier: MIT */
#include "common/cpus.h"
#include "common/error.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS (8 * sizeof(unsigned long))
#define WORDS     (CPUS_MAX / WORD_BITS)

bool cpus_empty(const struct cpus *cpus)
{
	return !cpus_count(cpus);
}

unsigned cpus_count(const struct cpus *cpus)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WORDS; i++)
		n += (unsigned)__builtin_popcountl(cpus->bits[i]);
	return n;
}

bool cpus_has(const struct cpus *cpus, unsigned cpu)
{
	return cpu < CPUS_MAX && cpus->bits[cpu / WORD_BITS] >> cpu % WORD_BITS & 1;
}

bool cpus_overlap(const struct cpus *a, const struct cpus *b)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (a->bits[i] & b->bits[i])
			return true;
	return false;
}

void cpus_add(struct cpus *cpus, const struct cpus *more)
{
	for (unsigned i = 0; i < WORDS; i++)
		cpus->bits[i] |= more->bits[i];
}

static bool number(const char **text, unsigned long *n)
{
	char *end;

	if (!isdigit((unsigned char)**text))
		return false;
	*n = strtoul(*text, &end, 10);
	*text = end;
	return *n < CPUS_MAX;
}

int cpus_parse(const char *list, struct cpus *cpus, struct error *err)
{
	const char *at = list;
	unsigned long first, last;

	memset(cpus, 0, sizeof(*cpus));
	do {
		if (!number(&at, &first))
			goto bad;
		last = first;
		if (*at == '-') {
			at++;
			if (!number(&at, &last) || last < first)
				goto bad;
		}
		for (unsigned long cpu = first; cpu <= last; cpu++)
			cpus->bits[cpu / WORD_BITS] |= 1ul << cpu % WORD_BITS;
	} while (*at++ == ',');
	if (!at[-1])
		return 0;
bad:
	return error_set(err, EINVAL,
			 "'%s' is not a list of CPUs: use numbers and ranges, as in 0-3,8", list);
}

const char *cpus_format(const struct cpus *cpus, char *out, unsigned out_size)
{
	unsigned used = 0, first;
	char range[24];

	out[0] = 0;
	for (unsigned cpu = 0; cpu < CPUS_MAX; cpu++) {
		if (!cpus_has(cpus, cpu))
			continue;
		first = cpu;
		while (cpus_has(cpus, cpu + 1))
			cpu++;
		if (cpu == first)
			snprintf(range, sizeof(range), "%s%u", used ? "," : "", first);
		else
			snprintf(range, sizeof(range), "%s%u-%u", used ? "," : "", first, cpu);
		if (used + strlen(range) >= out_size)
			break;
		strcpy(out + used, range);
		used += (unsigned)strlen(range);
	}
	return out;
}

unsigned cpus_available(void)
{
	struct cpus cpus = { 0 };
	unsigned n;

	if (sched_getaffinity(0, sizeof(cpus), (cpu_set_t *)&cpus))
		return 1;
	n = cpus_count(&cpus);
	return n ? n : 1;
}

bool cpus_usable(const struct cpus *cpus)
{
	struct cpus ours = { 0 };

	if (sched_getaffinity(0, sizeof(ours), (cpu_set_t *)&ours))
		return true; /* it will show when a thread is pinned */
	return cpus_overlap(&ours, cpus);
}

void cpus_limit(struct cpus *cpus)
{
	struct cpus ours = { 0 };

	if (sched_getaffinity(0, sizeof(ours), (cpu_set_t *)&ours))
		return;
	for (unsigned i = 0; i < WORDS; i++)
		cpus->bits[i] &= ours.bits[i];
}

int cpus_pin(const struct cpus *cpus)
{
	/* 0 is the calling thread: a worker may name no other. */
	return sched_setaffinity(0, sizeof(*cpus), (const cpu_set_t *)cpus) ? -errno : 0;
}
