/* SPDX-License-Identifier: MIT */
/*
 * blocks: a plugin for QEMU's emulator that counts how often each translated block of guest
 * code ran, for tests/bench/profile.
 *
 *   -plugin blocks.so,out=FILE
 *
 * Each time the guest runs tests/bench/plugin/mark.c, the blocks that ran since the last time are
 * written to FILE, one a line, and a line "mark"; then all counts begin at 0 again:
 *
 *   TIMES ADDRESS INSTRUCTION.INSTRUCTION...      the last two in hexadecimal
 *
 * A block is known by its address and its instructions: processes share addresses, and a block may
 * be translated many times. One virtual processor: counts are not atomic.
 *
 * Debian's QEMU has no header for plugins. Declared here is what is used of the interface's version
 * 1 (QEMU 4.2 to 8.2); later versions refuse to load it.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum {
	OP_ADD_U64 = 0
}; /* enum qemu_plugin_op */
enum {
	CALL_NO_REGS = 0
}; /* enum qemu_plugin_cb_flags */

EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(uint64_t id, const void *machine, int argc, char **argv);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*call)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *to,
					      uint64_t amount);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*call)(unsigned int cpu, void *data), int flags,
					    void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

/* The instruction of mark.c: a long nop that no compiler makes. */
static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 'k', 'l', 'b', 'u' };

struct block {
	struct block *next;
	uint64_t times;
	uint64_t address;
	char code[]; /* as written out */
};

static struct block *table[1 << 18];
static FILE *out;

static void write_counts(unsigned int cpu, void *data)
{
	struct block *b;
	size_t i;

	(void)cpu, (void)data;
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		for (b = table[i]; b; b = b->next) {
			if (b->times)
				fprintf(out, "%" PRIu64 " %" PRIx64 " %s\n", b->times, b->address,
					b->code);
			b->times = 0;
		}
	}
	fprintf(out, "mark\n");
	fflush(out);
}

/* The block of that address and code, which is new where none is found. */
static struct block *find_block(uint64_t address, const char *code)
{
	uint64_t hash = address * 0x9e3779b97f4a7c15;
	struct block **slot = &table[hash >> 46];
	struct block *b;

	for (b = *slot; b; b = b->next) {
		if (b->address == address && !strcmp(b->code, code))
			return b;
	}
	b = calloc(1, sizeof(*b) + strlen(code) + 1);
	if (!b)
		abort();
	b->address = address;
	strcpy(b->code, code);
	b->next = *slot;
	*slot = b;
	return b;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	/* An instruction has at most 15 bytes, a block 512 instructions. */
	char code[512 * 31 + 1], *end = code;

	(void)id;
	for (i = 0; i < n && i < 512; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const uint8_t *byte = qemu_plugin_insn_data(insn);
		size_t j, size = qemu_plugin_insn_size(insn);

		if (i)
			*end++ = '.';
		for (j = 0; j < size; j++)
			end += sprintf(end, "%02x", byte[j]);
		if (size == sizeof(mark) && !memcmp(byte, mark, size))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, write_counts, CALL_NO_REGS,
							       NULL);
	}
	*end = '\0';
	qemu_plugin_register_vcpu_tb_exec_inline(
		tb, OP_ADD_U64, &find_block(qemu_plugin_tb_vaddr(tb), code)->times, 1);
}

int qemu_plugin_install(uint64_t id, const void *machine, int argc, char **argv)
{
	(void)machine;
	if (argc == 1 && !strncmp(argv[0], "out=", 4))
		out = fopen(argv[0] + 4, "w");
	if (!out) {
		fprintf(stderr, "blocks: out=FILE, a file that can be written, is wanted\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
