/* SPDX-License-Identifier: MIT */
/*
 * Who is told of a completion.
 */
#ifndef UBLKD_RING_OP_H
#define UBLKD_RING_OP_H

/*
 * What a completion is for: its address is the SQE's user_data.  Must stay until
 * done was called, or the ring is closed.
 */
struct ring_op {
	void (*done)(struct ring_op *op, int result);
};

#endif
