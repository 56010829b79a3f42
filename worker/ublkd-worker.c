/* SPDX-License-Identifier: MIT */
/*
 * ublkd-worker: serves one export, with no privilege; ublkd starts it.
 */
int main(void)
{
	return 1;
}
