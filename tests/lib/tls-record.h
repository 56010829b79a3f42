/* SPDX-License-Identifier: MIT */
/*
 * Records of any type on a socket whose TLS the kernel does (Documentation/networking/tls.rst), for
 * the tests' own servers.
 */
#ifndef UBLKD_TESTS_TLS_RECORD_H
#define UBLKD_TESTS_TLS_RECORD_H

#include <linux/tls.h>
#include <stdint.h>
#include <sys/socket.h>

/* Returns what sendmsg(2) does. */
static inline ssize_t send_record(int fd, unsigned char type, const void *data, size_t size)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(1)];
	} control = { .align = { .cmsg_level = SOL_TLS,
				 .cmsg_type = TLS_SET_RECORD_TYPE,
				 .cmsg_len = CMSG_LEN(1) } };
	struct iovec piece = { (void *)(uintptr_t)data, size };
	struct msghdr m = { .msg_iov = &piece,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = CMSG_LEN(1) };

	*CMSG_DATA(&control.align) = type;
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

#endif
