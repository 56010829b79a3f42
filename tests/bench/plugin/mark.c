/* SPDX-License-Identifier: MIT */
/*
 * mark: run in the guest, has the plugin (blocks.c) write its counts and begin anew.
 */
int main(void)
{
	__asm__ volatile("nopl 0x75626c6b(%rax)");
	return 0;
}
