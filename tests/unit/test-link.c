/* SPDX-License-Identifier: MIT */
#include "common/error.h"
#include "tests/unit/test.h"
#include "worker/link.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static int pair[2];
static off_t open_before;

static off_t open_files(void)
{
	struct stat st;

	assert_int_equal(stat("/proc/self/fd", &st), 0);
	return st.st_size;
}

static int setup(void **state)
{
	(void)state;
	open_before = open_files();
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **state)
{
	(void)state;
	close(pair[0]);
	close(pair[1]);
	return open_files() != open_before;
}

static void test_message_with_descriptors(void **state)
{
	int fds[LINK_FDS];
	struct link_fds got;
	struct stat a, b;
	json_t *message;

	(void)state;
	for (unsigned i = 0; i < LINK_FDS; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(link_send(pair[0], json_pack("{s:i}", "n", 7), fds, LINK_FDS), 0);
	assert_int_equal(link_receive(pair[1], &message, &got), 0);
	assert_int_equal(json_integer_value(json_object_get(message, "n")), 7);
	assert_int_equal(got.nr, LINK_FDS);
	assert_int_equal(fstat(fds[0], &a) | fstat(got.fd[0], &b), 0);
	assert_int_equal(a.st_rdev, b.st_rdev);
	assert_true(fcntl(got.fd[0], F_GETFD) & FD_CLOEXEC);
	close(link_take_fd(&got, 1));
	assert_int_equal(link_take_fd(&got, 1), -1);
	assert_int_equal(link_take_fd(&got, LINK_FDS), -1);
	link_close_fds(&got);
	link_close_fds(&got);
	json_decref(message);
	assert_int_equal(link_receive(pair[1], &message, &got), -EAGAIN);
	for (unsigned i = 0; i < LINK_FDS; i++)
		close(fds[i]);
}

/* More descriptors than a message of ours has; one of them a socket that lingers. */
static void test_descriptors_too_many(void **state)
{
	enum {
		MANY = 253
	};
	union {
		char bytes[CMSG_SPACE(MANY * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	char text[] = "{\"n\": 1}";
	struct iovec part = { text, sizeof(text) - 1 };
	struct msghdr header = { .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes) };
	struct linger linger = { 1, 3600 };
	struct link_fds got;
	int fds[MANY], lingers;
	json_t *message;
	socklen_t length = sizeof(linger);

	(void)state;
	lingers = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(lingers, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	for (unsigned i = 0; i < MANY; i++)
		fds[i] = lingers;
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(&control.align), fds, sizeof(fds));
	assert_int_equal(sendmsg(pair[0], &header, 0), (int)part.iov_len);
	assert_int_equal(link_receive(pair[1], &message, &got), 0);
	assert_int_equal(got.nr, LINK_FDS);
	link_close_fds(&got);
	json_decref(message);
	assert_int_equal(getsockopt(lingers, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
	assert_false(linger.l_onoff);
	close(lingers);
}

static void test_refuses_bad_messages(void **state)
{
	static const char *const texts[] = {
		"{",    "[]",  "1", "{\"a\": 1} x", "{\"a\":1,\"a\":2}", "{\"a\": \"\xff\"}",
		"\xff", "null"
	};
	static char huge[LINK_BYTES_MAX + 1];
	struct link_fds got;
	json_t *message;
	int size = 1 << 20;

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		assert_true(send(pair[0], texts[i], strlen(texts[i]), 0) > 0);
		assert_int_equal(link_receive(pair[1], &message, &got), -EBADMSG);
		assert_null(message);
	}
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	memset(huge, ' ', sizeof(huge));
	memcpy(huge, "{}", 2);
	assert_int_equal(send(pair[0], huge, sizeof(huge), 0), (int)sizeof(huge));
	assert_int_equal(link_receive(pair[1], &message, &got), -EBADMSG);
	/* And none of ours is one. */
	memset(huge, 'x', sizeof(huge));
	huge[sizeof(huge) - 1] = 0;
	assert_int_equal(link_send(pair[0], json_pack("{s:s}", "a", huge), NULL, 0), -EMSGSIZE);
	assert_int_equal(link_send(pair[0], json_object(), NULL, 0), 0);
	assert_int_equal(link_receive(pair[1], &message, &got), 0);
	json_decref(message);
}

/* The peer had not read all that was sent to it, which is reported before what it has sent. */
static void test_messages_before_a_reset_are_read(void **state)
{
	struct link_fds fds;
	json_t *message;

	(void)state;
	assert_int_equal(link_send(pair[0], json_pack("{s:i}", "heard", 1), NULL, 0), 0);
	assert_int_equal(link_send(pair[1], json_pack("{s:i}", "never", 1), NULL, 0), 0);
	close(pair[0]);
	assert_int_equal(link_receive(pair[1], &message, &fds), 0);
	assert_int_equal(json_integer_value(json_object_get(message, "heard")), 1);
	json_decref(message);
	assert_int_equal(link_receive(pair[1], &message, &fds), -EPIPE);
	pair[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void test_the_other_side_is_gone_or_full(void **state)
{
	struct link_fds got;
	json_t *message;
	unsigned n = 0;

	(void)state;
	while (!link_send(pair[0], json_object(), NULL, 0))
		n++;
	assert_int_equal(link_send(pair[0], json_object(), NULL, 0), -EAGAIN);
	while (!link_receive(pair[1], &message, &got)) {
		json_decref(message);
		n--;
	}
	assert_int_equal(n, 0);
	shutdown(pair[0], SHUT_WR);
	assert_int_equal(link_receive(pair[1], &message, &got), -EPIPE);
	shutdown(pair[1], SHUT_RDWR);
	assert_int_equal(link_send(pair[0], json_object(), NULL, 0), -EPIPE);
}

static void test_failures(void **state)
{
	static const struct {
		const char *json;
		int code;
		const char *text;
	} odd[] = {
		{ "{\"code\": 5, \"text\": \"a\"}", 5, "a" },
		{ "{\"code\": -5, \"text\": \"a\\u001b\\n\"}", EIO, "a??" },
		{ "{\"code\": 99999999999, \"text\": \"a\"}", EIO, "a" },
		{ "{\"code\": \"x\"}", EIO, "Input/output error" },
		{ "{}", EIO, "Input/output error" },
	};
	struct error err = { .code = ENOSPC, .text = "it is full \033" }, back;
	json_t *json = link_failure(3, &err);

	(void)state;
	assert_int_equal(json_integer_value(json_object_get(json, "failed")), 3);
	assert_int_equal(link_to_error(json, &back), -ENOSPC);
	assert_string_equal(back.text, "it is full ?");
	json_decref(json);
	for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		json = json_loads(odd[i].json, 0, NULL);
		assert_int_equal(link_to_error(json, &back), -odd[i].code);
		assert_string_equal(back.text, odd[i].text);
		json_decref(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_message_with_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuses_bad_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages_before_a_reset_are_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_the_other_side_is_gone_or_full, setup,
						teardown),
		cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
