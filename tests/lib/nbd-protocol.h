/* SPDX-License-Identifier: MIT */
/*
 * The NBD protocol's numbers, for the tests' own servers: doc/proto.md of the NBD
 * project.
 */
#ifndef UBLKD_TESTS_NBD_PROTOCOL_H
#define UBLKD_TESTS_NBD_PROTOCOL_H

#define HELLO_MAGIC   0x4e42444d41474943ull
#define OPTION_MAGIC  0x49484156454f5054ull
#define ANSWER_MAGIC  0x0003e889045565a9ull
#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC   0x67446698u
#define CHUNK_MAGIC   0x668e33efu

enum option_code {
	OPT_EXPORT_NAME = 1,
	OPT_ABORT,
	OPT_LIST,
	OPT_INFO = 6,
	OPT_GO,
	OPT_STRUCTURED_REPLY,
	OPT_LIST_META_CONTEXT,
	OPT_SET_META_CONTEXT,
};

enum request_code {
	CMD_READ,
	CMD_WRITE,
	CMD_DISCONNECT,
	CMD_FLUSH,
	CMD_TRIM,
	CMD_ZEROES = 6,
};

#endif
