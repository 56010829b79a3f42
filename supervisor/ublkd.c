/* SPDX-License-Identifier: MIT */
/*
 * ublkd: keeps exports alive.
 */
int main(void)
{
	return 1;
}
