/* SPDX-License-Identifier: MIT */
/*
 * Receivers of completions.
 */
#ifndef UBLKD_RING_OP_H
#define UBLKD_RING_OP_H

/*
 * The receiver of a completion: its address is the SQE's user_data.  Must stay until
 * done was called, or the ring is closed.
 */
struct ring_op {
	void (*done)(struct ring_op *op, int result);
};

#endif
